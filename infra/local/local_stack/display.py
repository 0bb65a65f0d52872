"""What people see of the stack: a table, a list of addresses, a line per change."""

from __future__ import annotations

from datetime import UTC, datetime

from rich.console import Console, Group, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

from local_stack.state import PartState, Phase, StackState

_COLOURS = {
    Phase.READY: "green",
    Phase.STOPPED: "dim",
    Phase.DOWN: "red",
    Phase.LATE: "red",
    Phase.UNREADY: "red",
}


def status(state: StackState) -> RenderableType:
    """Draw the table of parts, and beneath it what is wrong."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("part", "state", "pid", "address", "since", "restarts"):
        table.add_column(column, justify="right" if column in ("pid", "restarts") else "left", no_wrap=True)
    for part in state.parts:
        phase = Text(part.phase, style=_COLOURS.get(part.phase, "yellow"))
        table.add_row(
            part.name, phase, str(part.pid or ""), part.address, since(part.since), str(part.restarts)
        )
    notes = [Text(f"{part.name}: {note}", style="red") for part in state.parts if (note := trouble(part))]
    return Group(table, *notes)


def trouble(part: PartState) -> str:
    """Say what is wrong with a part, or what was; "" where nothing is to be said."""
    if part.phase in (Phase.DOWN, Phase.LATE, Phase.UNREADY, Phase.CUT_OFF):
        return f"{part.detail}; its last line: {part.last_line}" if part.last_line else part.detail
    if part.restarts and part.last_exit:
        return f"had ended with {part.last_exit}; its last line was: {part.last_line}"
    return ""


def addresses(state: StackState) -> RenderableType:
    """List where things answer: what a user opens first, then the rest."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for part in state.parts:
        for port_name, port in part.ports.items():
            if shown := address(port_name, port):
                table.add_row(part.name, Text(shown, style="cyan"))
    return table


def address(port_name: str, port: int) -> str:
    """Write an address as its client takes it; "" for a port that is only inner."""
    match port_name:
        case "http" | "rest" | "s3":
            return f"http://127.0.0.1:{port}"
        case "websocket":
            return f"ws://127.0.0.1:{port}/mqtt"
        case "mqtt":
            return f"mqtt://127.0.0.1:{port}"
        case "mqtts":
            return f"mqtts://127.0.0.1:{port}"
        case "kafka" | "grpc":
            return f"127.0.0.1:{port}"
    return ""


def change(part: PartState) -> str:
    """Tell one change in a line, for where there is no terminal."""
    detail = f": {part.detail}" if part.detail else ""
    return f"{part.name} {part.phase}{detail}"


def since(moment: datetime) -> str:
    """Say how long ago: `42 s`, `3 min`, `5 h`, `2 d`."""
    seconds = int((datetime.now(UTC) - moment).total_seconds())
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{max(seconds, 0)} s"


def progress(console: Console) -> Progress:
    """Return a bar that says what goes on, how far it is and since when, and is gone at the end."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )
