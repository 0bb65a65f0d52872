"""A trace drawn: the tree of its spans, each with its bar of time, in the colour of its service."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from caravan_cli.trace_files import Span, Trace

COLOURS = ("cyan", "magenta", "yellow", "green", "blue", "bright_red", "bright_cyan", "bright_magenta")
BAR = range(8, 33)
"""Columns that the bars may have."""
FACTS = 26
"""Columns below which facts are not worth showing."""
TOOK = 7
GAPS = 6
SHOWN = 16
"""Characters of a long value, as a digest is."""
UNSHOWN = ("exchange",)


def draw(trace: Trace, width: int, going_on: Sequence[str] = ()) -> RenderableType:
    """Draw a trace.

    Args:
        trace: which one.
        width: columns of the terminal; in a narrow one the facts of the spans have no room.
        going_on: ids of traces that answer it along with others.

    """
    colours = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(trace.services)}
    rows = list(_rows(trace.children(), None, ""))
    room = width - max(len(guide + span.name) for guide, span in rows) - max(map(len, colours)) - TOOK - GAPS
    has_facts = room >= BAR.start + FACTS
    bar = max(BAR.start, min(room - FACTS if has_facts else room, BAR.stop - 1))
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("span", no_wrap=True)
    table.add_column("", width=bar, no_wrap=True)
    table.add_column("took", justify="right", no_wrap=True, min_width=TOOK)
    table.add_column("service", no_wrap=True)
    if has_facts:
        table.add_column("", style="dim")
    for guide, span in rows:
        colour = colours[span.service]
        table.add_row(
            Text.assemble((guide, "dim"), (span.name, "red" if span.error else colour)),
            Text(_bar(trace, span, bar), colour),
            lasting(span.ended - span.began),
            Text(span.service, colour),
            *([_facts(span)] if has_facts else []),
        )
    notes = [Text(f"goes on in trace {other}", "dim") for other in going_on]
    if not has_facts:
        notes += [Text(f"{span.name}: {span.error}", "red") for _, span in rows if span.error]
        notes.append(Text("A wider terminal shows what each span was about.", "dim"))
    return Group(_title(trace), "", table, *notes)


def lasting(nanoseconds: int) -> str:
    """Say in three digits how long something took."""
    seconds = nanoseconds / 1e9
    if seconds < 0.9995:  # noqa: PLR2004 - what is rounded to a second
        return f"{_digits(seconds * 1e3)} ms"
    return f"{_digits(seconds)} s" if seconds < 99.95 else f"{_digits(seconds / 60)} min"  # noqa: PLR2004 - as above


def _digits(value: float) -> str:
    return f"{round(value, 2):#.3g}".rstrip(".")


def _title(trace: Trace) -> Text:
    spans = len(trace.spans)
    return Text.assemble(
        ("trace ", "dim"),
        (trace.id, "bold"),
        ("  ", ""),
        (lasting(trace.ended - trace.began), "bold"),
        (f"  {spans} span{'s' * (spans > 1)} of {', '.join(trace.services)}", "dim"),
    )


def _rows(
    children: Mapping[str | None, list[Span]], of: str | None, before: str
) -> Iterator[tuple[str, Span]]:
    """Yield each span after its parent, with the lines that lead to it."""
    mine = children.get(of, [])
    for number, span in enumerate(mine):
        is_last = number == len(mine) - 1
        if of is None:
            yield "", span
            yield from _rows(children, span.id, "")
        else:
            yield before + ("└─ " if is_last else "├─ "), span
            yield from _rows(children, span.id, before + ("   " if is_last else "│  "))


def _bar(trace: Trace, span: Span, width: int) -> str:
    whole = max(trace.ended - trace.began, 1)
    start = min(int((span.began - trace.began) / whole * width), width - 1)
    end = max(round((span.ended - trace.began) / whole * width), start + 1)
    return " " * start + "━" * (min(end, width) - start)


def _facts(span: Span) -> Text:
    parts = [Text(f"{name}={_short(value)}") for name, value in span.facts.items() if name not in UNSHOWN]
    if span.error:
        parts.append(Text(span.error, "red"))
    if span.links:
        parts.append(Text(f"also answers {', '.join(map(_short, span.links))}"))
    return Text("  ").join(parts)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 4]}…"
