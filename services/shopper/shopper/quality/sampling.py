"""Which answers are audited: a uniform sample of the last days, bounded however many come. Pure.

Every answer gets a random number. The sample is those with the smallest numbers, so at any moment each answer
of the days in question is in it with the same probability, and no forecast is needed. A day keeps as many as
the whole sample may take, so whichever days are asked about, the smallest of all of them are there.

The sample is read by rising numbers, and each answer that was wrong makes it longer: the more are wrong, the
more labels an interval of the same width takes.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Iterable
from dataclasses import dataclass, field

DAYS = 7
"""Days before today whose answers are drawn from."""
LEAST, MORE, MOST = 0.85, 0.1, 2
"""Confident answers in the sample of a week, as shares of what is set: where none is wrong, for each that is,
and at most. So about as many as are set are asked for where 2 or 3 % are wrong."""


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


def size(per_week: float, days: float) -> int:
    """Return how large the sample is: it grows by a seventh of `per_week` a day, to the days asked about.

    So, where the traffic is even, the largest number in the sample stays the same through the day, and hardly
    an image is asked for in vain.

    Args:
        per_week: answers in a sample of a week.
        days: since the first of its answers, the part of today included; 0 to DAYS + 1.

    """
    return math.ceil(per_week * days / DAYS)


def length(wrong: Iterable[bool], per_week: int, days: float) -> int:
    """Return how many answers are in a sample that grows with what is wrong.

    Args:
        wrong: whether each answer, by rising number, was wrong; False where that is not known yet.
        per_week: confident answers in a sample of a week, as set.
        days: as `size` has them.

    """
    count, most = 0, size(LEAST * per_week, days)
    for is_wrong in wrong:
        if count >= min(most, size(MOST * per_week, days)):
            break
        count += 1
        most += math.ceil(MORE * per_week) * is_wrong
    return count
