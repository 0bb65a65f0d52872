"""What a person at a terminal sees: a bar for each stage, or one line a stage where there is no terminal."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from caravan.holds import Hold
from caravan.manifest import Manifest
from training.events import SHARES
from training.session import Sink

console = Console(stderr=True)


@contextmanager
def stages() -> Iterator[Sink]:
    """Show the stages of a run while it lasts; yields what takes its events."""
    columns = (TextColumn("{task.description:<9}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    with Progress(
        *columns, TimeElapsedColumn(), console=console, disable=not console.is_terminal
    ) as progress:
        tasks: dict[str, TaskID] = {}

        def show(event: dict[str, Any]) -> None:
            stage = event["stage"]
            if stage not in SHARES:
                return
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=1.0)
                if not console.is_terminal:
                    console.print(f"{stage} …")
            begin, end = SHARES[stage]
            progress.update(tasks[stage], completed=(event["progress"] - begin) / (end - begin))

        yield show


def versions_table(
    edge: str,
    model: str,
    found: dict[int, Manifest | None],
    ready: set[int],
    held: Hold | None,
    *,
    retained: int,
) -> Table:
    """List versions, newest first; one without a manifest is not complete."""
    told = [] if held is None else [held.reason]
    if retained and len(found) >= retained:
        told.append(f"older ones are removed: RETAIN_VERSIONS is {retained}")
    caption = "\n".join(told) or None
    table = Table(title=f"{model} for {edge}", title_justify="left", caption=caption, caption_justify="left")
    for column in ("version", "state", "accuracy", "parent", "classes", "created", "data"):
        table.add_column(column, justify="right" if column in {"version", "accuracy", "parent"} else "left")
    for version in sorted(found, reverse=True):
        manifest = found[version]
        if manifest is None:
            table.add_row(str(version), "incomplete")
            continue
        lineage = manifest.lineage
        kept = "kept back" if lineage.rejected is None else f"rejected: {lineage.rejected}"
        state = "ready" if version in ready else kept
        if lineage.rollback_of is not None:
            state += f", rollback of {lineage.rollback_of}"
        accuracy = lineage.metrics.get("accuracy")
        table.add_row(
            str(version),
            state,
            "" if accuracy is None else f"{accuracy:.2%}",
            "" if lineage.parent is None else str(lineage.parent),
            ", ".join(lineage.classes),
            lineage.created,
            (lineage.data_digest or "")[:12],
        )
    return table
