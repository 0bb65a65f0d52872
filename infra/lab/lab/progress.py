"""How far something is: a bar on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console

from local_stack import display

PLAIN_SECONDS = 10.0
"""Pause between two lines."""

OnProgress = Callable[[int, int], None]
"""Called with how much is done, of how much."""


@contextmanager
def progress(console: Console, what: str) -> Iterator[OnProgress]:
    """Show how far `what` is, as long as it lasts."""
    if not console.is_terminal:
        yield _lines(console, what)
        return
    with display.progress(console) as shown:
        task = shown.add_task(what, total=None)
        yield lambda done, of: shown.update(task, completed=done, total=of)


def _lines(console: Console, what: str) -> OnProgress:
    said = time.monotonic()

    def told(done: int, of: int) -> None:
        nonlocal said
        if time.monotonic() - said >= PLAIN_SECONDS:
            said = time.monotonic()
            console.print(f"  {what}: {done} of {of}", markup=False, highlight=False)

    return told
