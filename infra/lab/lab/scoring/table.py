"""The score of a model, as a person reads it."""

from __future__ import annotations

from rich.table import Table

from lab.cameras.tally import Tally, percentile
from lab.scoring.score import Score


def table(score: Score) -> Table:
    """Return what became of each class: how many were sent and right, and what the others were taken for."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, column in enumerate(
        ("class", "sent", "answered", "right", "accuracy", "most often taken for")
    ):
        table.add_column(column, justify="right" if 0 < index < 5 else "left", no_wrap=True)  # noqa: PLR2004
    for name, tally in score.classes.items():
        share = f"{tally.right / tally.sent:.3f}" if tally.sent else ""
        table.add_row(
            name, str(tally.sent), str(tally.answered), str(tally.right), share, _other(name, tally)
        )
    return table


def _other(name: str, tally: Tally) -> str:
    """Return the class that is most often said of pictures that are of another."""
    said = tally.certain + tally.uncertain
    said.pop(name, None)
    return " ".join(f"{other} ({count})" for other, count in said.most_common(1))


def in_words(score: Score) -> str:
    """Return the whole in a line."""
    times = sorted(second for tally in score.classes.values() for second in tally.seconds)
    p50, p99 = (percentile(times, percent) * 1000 for percent in (50, 99))
    again = sum(tally.retried for tally in score.classes.values())
    rate = score.answered / score.seconds if score.seconds else 0.0
    return (
        f"accuracy {score.accuracy:.4f}: {score.right} right of {score.sent}, {score.answered} answered,"
        f" {again} sent again; {score.seconds:.1f} s, {rate:.0f} images/s, p50 {p50:.0f} ms, p99 {p99:.0f} ms"
    )
