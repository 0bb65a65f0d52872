"""How often to look where nobody tells: often while something happens, seldom when nothing does for long."""

from __future__ import annotations

import time
from collections.abc import Callable

QUIET_SECONDS = 12
"""Quiet seconds per second by which a pause grows."""
TIMES, LONGEST_SECONDS = 5, 5.0
"""Bounds of a grown pause: a multiple of the shortest, and seconds. A longer shortest pause stays."""


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
        return max(self._seconds, min(self._grown, self._longest))

    @property
    def is_at_rest(self) -> bool:
        """Whether nothing has changed for so long that the pause grows no more."""
        return self._grown >= self._longest

    @property
    def _grown(self) -> float:
        return (self._clock() - self._changed) / QUIET_SECONDS
