"""Waiting in tests that have no loop of their own; those that have one use `caravan.testing.waiting`."""

from __future__ import annotations

import time
from collections.abc import Callable

SECONDS = 120.0


def wait_until(holds: Callable[[], object], what: str = "", seconds: float = SECONDS) -> None:
    """Ask again and again until the answer is true; fail, with `what`, after so many seconds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)
