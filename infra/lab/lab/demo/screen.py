"""What a person sees of the demo: a line for each step, a bar while it lasts, a table at the end.

On a terminal the bars move; elsewhere (a log of a build) the same facts come as plain lines.
"""

from __future__ import annotations

import io
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

PICTURE_COLUMNS, PICTURE_ROWS = 36, 20
QUARTERS = 4


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the closing table; `accuracy` is on held-out photos, 0 to 1."""

    step: str
    what: str
    seconds: float
    version: int | None = None
    accuracy: float | None = None


class Step:
    """A step while it lasts: its bar, and in the end its result."""

    def __init__(self, console: Console, bar: tuple[Progress, TaskID] | None) -> None:
        self._console = console
        self._bar = bar
        self._told: tuple[str, int] | None = None
        self.result: str | None = None
        self.version: int | None = None
        self.accuracy: float | None = None
        self.seconds: float | None = None

    def update(self, done: float, of: float, note: str = "") -> None:
        """Tell how much is done, of how much, and what is being done."""
        share = min(done / of, 1.0) if of else 0.0
        if self._bar is not None:
            progress, task = self._bar
            progress.update(task, completed=share, note=note)
            return
        # A line for each quarter and each new word; numbers alone are no news.
        told = (re.sub(r"[\d.]+", "", note), int(share * QUARTERS))
        if told != self._told:
            self._told = told
            self._console.print(Text(f"    {share:4.0%} {note}"), soft_wrap=True)

    def end(
        self,
        result: str,
        version: int | None = None,
        accuracy: float | None = None,
        seconds: float | None = None,
    ) -> None:
        """Say what came of it; it took `seconds`, if that is not how long the step was open."""
        self.result, self.version, self.accuracy, self.seconds = result, version, accuracy, seconds


class Screen:
    """Where the demo is told; `rows` are the steps that came to a good end."""

    def __init__(self, console: Console) -> None:
        self.rows: list[Row] = []
        self._console = console
        self._steps = 0

    def title(self, text: str) -> None:
        """Open the show."""
        self._console.print(Rule(text, style="cyan") if self._console.is_terminal else text)

    @contextmanager
    def step(self, name: str, title: str, route: str) -> Iterator[Step]:
        """Announce a step and the way that things take in it, show its bar, and keep what came of it."""
        self._steps += 1
        self._console.print(Text.assemble((f"\n{self._steps:>2}  ", "cyan"), (title, "bold")))
        self._console.print(Text(f"    {route}", style="dim"), soft_wrap=True)
        began = time.monotonic()
        with self._bar() as bar:
            step = Step(self._console, bar)
            yield step
        if step.result is not None:
            seconds = time.monotonic() - began if step.seconds is None else step.seconds
            line = Text.assemble(("  ✓ ", "green"), step.result, (f"  {seconds:.1f} s", "dim"))
            self._console.print(line, soft_wrap=True)
            self.rows.append(Row(name, step.result, seconds, step.version, step.accuracy))

    @contextmanager
    def _bar(self) -> Iterator[tuple[Progress, TaskID] | None]:
        if not self._console.is_terminal:
            yield None
            return
        with Progress(
            TextColumn("  "),
            SpinnerColumn(),
            BarColumn(bar_width=32),
            TextColumn("{task.percentage:>4.0f}%"),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[note]}[/dim]"),
            console=self._console,
            transient=True,
        ) as progress:
            yield progress, progress.add_task("", total=1.0, note="")

    def picture(self, photo: bytes, caption: str) -> None:
        """Show a photo, two pixels a character, where colours can be shown."""
        if self._console.is_terminal and self._console.color_system in ("truecolor", "256"):
            self._console.print(_blocks(photo))
        self._console.print(Text(f"    {caption}", style="italic"))

    def table(self, *, complete: bool) -> None:
        """Close the show."""
        table = Table(title="What happened" if complete else "What happened until then", title_style="bold")
        table.add_column("step", no_wrap=True)
        table.add_column("what")
        table.add_column("took", justify="right", no_wrap=True)
        table.add_column("version", justify="right")
        table.add_column("validation accuracy", justify="right")
        for row in self.rows:
            accuracy = "" if row.accuracy is None else f"{row.accuracy:.3f}"
            version = "" if row.version is None else str(row.version)
            table.add_row(row.step, row.what, f"{row.seconds:.1f} s", version, accuracy)
        self._console.print()
        self._console.print(table)

    def say(self, text: str, style: str = "") -> None:
        """Print one line."""
        self._console.print(Text(text, style=style), soft_wrap=True)


def _blocks(photo: bytes) -> Text:
    """Draw a photo with half blocks: each character is an upper and a lower pixel."""
    with Image.open(io.BytesIO(photo)) as image:
        small = image.convert("RGB")
    small.thumbnail((PICTURE_COLUMNS, 2 * PICTURE_ROWS))
    text = Text()
    for y in range(0, small.height - 1, 2):
        text.append("    ")
        for x in range(small.width):
            upper, lower = (_hex(small.getpixel((x, y + i))) for i in (0, 1))
            text.append("▀", style=f"{upper} on {lower}")
        text.append("\n")
    return text


def _hex(pixel: object) -> str:
    r, g, b = pixel if isinstance(pixel, tuple) else (0, 0, 0)
    return f"#{r:02x}{g:02x}{b:02x}"
