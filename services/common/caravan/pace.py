"""How often to look where nobody tells: often while something happens, seldom when nothing does for long."""

from __future__ import annotations

import time
from collections.abc import Callable

QUIET_SECONDS = 12
"""Quiet seconds for which a pause grows by one second."""
TIMES, LONGEST_SECONDS = 5, 5.0
"""What a pause grows to: so many times the shortest, and so many seconds. A longer one stays what it is."""


class Pace:
    """Pauses between looks.

    Args:
        seconds: the shortest.
        clock: seconds that only go on.
        longest: seconds that a pause grows to; None for the usual.

    """

    def __init__(
        self, seconds: float, clock: Callable[[], float] = time.monotonic, longest: float | None = None
    ) -> None:
        self._seconds = seconds
        self._clock = clock
        self._longest = min(TIMES * seconds, LONGEST_SECONDS) if longest is None else longest
        self._changed = clock()

    def stir(self) -> None:
        """Note that something changed, or is about to."""
        self._changed = self._clock()

    @property
    def pause(self) -> float:
        """Seconds until the next look."""
        quiet = self._clock() - self._changed
        grown = min(quiet / QUIET_SECONDS, self._longest)
        return max(self._seconds, grown)
