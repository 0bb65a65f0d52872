"""How often to look where nobody tells: often while something happens, seldom when nothing does for long."""

from __future__ import annotations

import time
from collections.abc import Callable

QUIET_SECONDS = 12
"""A pause grows by a second for each so many seconds in which nothing changed."""
LONGEST = 5
"""Times the shortest pause."""


class Pace:
    """Pauses between looks.

    Args:
        seconds: the shortest.
        clock: seconds that only go on.

    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._changed = clock()

    def stir(self) -> None:
        """Note that something changed, or is about to."""
        self._changed = self._clock()

    @property
    def pause(self) -> float:
        """Seconds until the next look."""
        quiet = self._clock() - self._changed
        return min(max(self._seconds, quiet / QUIET_SECONDS), LONGEST * self._seconds)
