"""What a person sees of the cameras: a table that moves while they film, and the account at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.progress import Progress, SpinnerColumn, TextColumn
from rich.table import Table
from rich.text import Text

from lab.cameras.tally import Comparison, Tally, percentile

MOST_ROWS = 20
"""Cameras shown one by one; of more, the sum alone."""
PLAIN_SECONDS = 10.0
"""Pause between two lines where there is no terminal."""

Draw = Callable[[], None]


class Screen:
    """Where the cameras are shown."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def say(self, text: str, style: str = "") -> None:
        """Print one line."""
        self._console.print(Text(text, style=style), soft_wrap=True)

    @contextmanager
    def preparing(self, data: str) -> Iterator[Callable[[int, int], None]]:
        """Show how far the images are."""
        with Progress(
            SpinnerColumn(), TextColumn("{task.description}"), console=self._console, transient=True
        ) as progress:
            task = progress.add_task(f"Images: {data}")
            yield lambda done, of: progress.update(task, description=f"Images: {data}, {done} of {of}")

    @contextmanager
    def filming(self, tallies: Mapping[str, Tally], seconds: float) -> Iterator[Draw]:
        """Show the cameras while they film."""
        began = time.monotonic()

        def elapsed() -> float:
            return max(time.monotonic() - began, 1e-3)

        if self._console.is_terminal:
            with Live(console=self._console, auto_refresh=False, transient=True) as live:
                yield lambda: live.update(_moving(tallies, elapsed(), seconds), refresh=True)
            return
        told = 0.0

        def tell() -> None:
            nonlocal told
            if elapsed() - told >= PLAIN_SECONDS:
                told = elapsed()
                self.say(f"{told:4.0f} s: {_in_words(tallies, told)}")

        yield tell

    @contextmanager
    def comparing(
        self, tallies: Mapping[str, Tally]
    ) -> Iterator[Callable[[float, Mapping[str, Comparison]], None]]:
        """Show how much the hub has yet to tell."""
        answered = sum(tally.answered for tally in tallies.values())
        with Progress(
            SpinnerColumn(), TextColumn("{task.description}"), console=self._console, transient=True
        ) as progress:
            task = progress.add_task("Asking the hub")

            def told(seconds: float, found: Mapping[str, Comparison]) -> None:
                there = answered - sum(sum(each.missing.values()) for each in found.values())
                what = f"The hub has {there} of {answered} images, after {seconds:.0f} s"
                progress.update(task, description=what)

            yield told

    def account(
        self,
        tallies: Mapping[str, Tally],
        seconds: float,
        cpu: float,
        comparisons: Mapping[str, Comparison] | None,
    ) -> None:
        """Close with what each camera was answered, and how that compares."""
        self._console.print(_counts(tallies, comparisons))
        self._console.print(_classes(tallies))
        self.say(
            f"{_in_words(tallies, seconds)}; the cameras themselves took {cpu / seconds:.0%} of one core"
        )
        labelled = sum(tally.labelled for tally in tallies.values())
        if labelled and not any(tally.right for tally in tallies.values()):
            self.say(
                f"None of {labelled} answers was the image's class: has the model learnt them?", "yellow"
            )
        errors = {tally.first_error for tally in tallies.values() if tally.first_error}
        for error in sorted(errors)[:3]:
            self.say(f"  for example: {error}", "yellow")
        if comparisons is None:
            return
        bad = {name: each for name, each in comparisons.items() if not each.equal}
        for name, each in bad.items():
            self.say(f"{name}: {each}", "red")
        if bad:
            self.say(f"The hub differs for {len(bad)} of {len(comparisons)} cameras.", "bold red")
        else:
            answered = sum(tally.answered for tally in tallies.values())
            self.say(f"The hub counted all {answered} images, each once.", "bold green")


def _moving(tallies: Mapping[str, Tally], elapsed: float, seconds: float) -> Table:
    caption = f"{min(elapsed, seconds):.0f} of {seconds:.0f} s"
    table = _table(
        "camera", "sent", "answered", "refused", "unknown", "p50", "p99", "images/s", caption=caption
    )
    if len(tallies) <= MOST_ROWS:
        for name, tally in tallies.items():
            table.add_row(name, *_row([tally], elapsed))
        table.add_section()
    table.add_row("all", *_row(list(tallies.values()), elapsed), style="bold")
    return table


def _row(tallies: list[Tally], elapsed: float) -> list[str]:
    times = sorted(second for tally in tallies for second in tally.seconds)
    answered = sum(tally.answered for tally in tallies)
    return [
        str(sum(tally.sent for tally in tallies)),
        str(answered),
        str(sum(tally.refused for tally in tallies)),
        str(sum(tally.unknown for tally in tallies)),
        f"{percentile(times, 50) * 1000:.0f} ms",
        f"{percentile(times, 99) * 1000:.0f} ms",
        f"{answered / elapsed:.1f}",
    ]


def _counts(tallies: Mapping[str, Tally], comparisons: Mapping[str, Comparison] | None) -> Table:
    columns = ["camera", "sent", "answered", "refused", "unknown", "certain", "uncertain"]
    table = _table(*columns, *(["hub"] if comparisons is not None else []))
    for name, tally in tallies.items():
        row = [name, tally.sent, tally.answered, tally.refused, tally.unknown]
        cells = [str(cell) for cell in (*row, tally.certain.total(), tally.uncertain.total())]
        if comparisons is not None:
            equal = comparisons[name].equal
            table.add_row(*cells, Text("equal" if equal else "differs", style="green" if equal else "red"))
        else:
            table.add_row(*cells)
    return table


def _classes(tallies: Mapping[str, Tally]) -> Table:
    table = _table("class", "certain", "uncertain")
    names = sorted({name for tally in tallies.values() for name in (*tally.certain, *tally.uncertain)})
    for name in names:
        certain = sum(tally.certain[name] for tally in tallies.values())
        uncertain = sum(tally.uncertain[name] for tally in tallies.values())
        table.add_row(name, str(certain), str(uncertain))
    return table


def _table(*columns: str, caption: str | None = None) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", caption=caption, caption_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left", no_wrap=True)
    return table


def _in_words(tallies: Mapping[str, Tally], seconds: float) -> str:
    sent, answered, refused, unknown, p50, p99, rate = _row(list(tallies.values()), seconds)
    retried = sum(tally.retried for tally in tallies.values())
    right = sum(tally.right for tally in tallies.values())
    return (
        f"{sent} sent, {answered} answered ({right} with the class of the data set), {refused} refused,"
        f" {unknown} unknown, {retried} sent again; p50 {p50}, p99 {p99}, {rate} images/s"
    )
