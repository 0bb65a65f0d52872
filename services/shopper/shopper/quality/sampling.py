"""Which answers are audited: a uniform sample of the last days, bounded however many come. Pure.

Every answer gets a random number. The sample is those with the smallest numbers, so at any moment each answer
of the days in question is in it with the same probability, and no forecast is needed. A day keeps as many as
the whole sample may take, so whichever days are asked about, the smallest of all of them are there.
"""

from __future__ import annotations

import math
from bisect import insort
from dataclasses import dataclass, field

DAYS = 7
"""Days before today whose answers are drawn from."""


@dataclass(slots=True)
class Reservoir:
    """The smallest random numbers of one day.

    Args:
        most: number of values kept.
        kept: they, rising.

    """

    most: int
    kept: list[float] = field(default_factory=list)

    def takes(self, number: float) -> bool:
        """Take a number in if it is one of the smallest; the largest then gives way."""
        if not self.most or (len(self.kept) >= self.most and number >= self.kept[-1]):
            return False
        insort(self.kept, number)
        return True

    def given_way(self) -> list[float]:
        """Take out the numbers that are too many, and return them."""
        gone, self.kept[self.most :] = self.kept[self.most :], []
        return gone


def size(per_week: int, days: float) -> int:
    """Return how large the sample is: it grows by a seventh of `per_week` a day, to the days asked about.

    So, where the traffic is even, the largest number in the sample stays the same through the day, and hardly
    an image is asked for in vain.

    Args:
        per_week: answers in a sample of a week.
        days: since the first of its answers, the part of today included; 0 to DAYS + 1.

    """
    return math.ceil(per_week * days / DAYS)
