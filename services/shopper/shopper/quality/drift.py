"""Whether a version's answers look like those before, by a test that may be asked at every answer. Pure.

A conformal test (Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World"): each answer's scores
are ranked among those of all answers of this version before it. While nothing changes, the ranks are uniform
and independent, whatever the scores' distribution is, so bets against that win nothing on average. A bet
begins at every moment, with stakes that come to 1 in HORIZON (Shin, Ramdas and Rinaldo, "E-detectors", 2023):
so the chance of a false alarm is at most ALPHA in 30 days, however many answers come.

Which change is looked for is in the bets alone: scores that fall.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np

ALPHA = 0.1
"""Of a false alarm, in HORIZON."""
HORIZON = 30 * 86_400.0
"""Seconds."""
FIRST = 100
"""Answers of a version that are only learnt from: among fewer, none stands out."""
POWERS = (0.2, 0.4, 0.6, 0.8)
"""Bets: a rank p in 0..1 pays k p^(k-1), which is 1 on average. A small k bets on a few odd answers, a large
one on many that are a little odd."""
BINS = 256
STATISTICS = 2
WIDEST = 14.0
"""Logits beyond are counted as this: further digits of a probability near 0 or 1 say nothing."""


@dataclass(slots=True)
class DriftTest:
    """The test of one version at one edge.

    Args:
        counts: answers by bin, [STATISTICS][BINS].
        wealth: of each statistic and bet, all that was begun so far.
        answers: how many were seen.
        last: when the last answer came, seconds since 1970.
        excess: how much the newest bets have won in a row, in nats; 0 while there is nothing to win.
        since: when that was 0 for the last time, seconds since 1970: the change came after it.
        alarm: when the alarm was raised, seconds since 1970; 0 while there is none.

    """

    counts: list[list[int]] = field(default_factory=lambda: [[0] * BINS for _ in range(STATISTICS)])
    wealth: list[float] = field(default_factory=lambda: [0.0] * STATISTICS * len(POWERS))
    answers: int = 0
    last: float = 0.0
    excess: float = 0.0
    since: float = 0.0
    alarm: float = 0.0

    @classmethod
    def of(cls, state: dict[str, Any]) -> Self:
        """Return a test as `state` has it."""
        return cls(**state)

    @property
    def state(self) -> dict[str, Any]:
        """All of it, as JSON has it."""
        return asdict(self)

    def look(self, scores: Sequence[float], now: float, draws: Sequence[float]) -> bool:
        """Look at an answer; return whether it raises the alarm.

        Args:
            scores: what `statistics` returns, 0..1 each.
            now: seconds since 1970; never less than before.
            draws: as many random numbers in [0, 1), for ranks among equals.

        """
        ranks = [
            self._rank(counts, _bin(score), draw)
            for counts, score, draw in zip(self.counts, scores, draws, strict=True)
        ]
        stake = max(now - self.last, 0.0) / HORIZON
        self.answers += 1
        self.last = max(now, self.last)
        if self.alarm:
            return False
        if self.answers <= FIRST:
            self.since = now
            return False
        wins = [power * rank ** (power - 1) for rank in ranks for power in POWERS]
        self.wealth = [(held + stake) * win for held, win in zip(self.wealth, wins, strict=True)]
        self.excess = max(0.0, self.excess + math.log(sum(wins) / len(wins)))
        if not self.excess:
            self.since = now
        if sum(self.wealth) / len(self.wealth) >= 1 / ALPHA:
            self.alarm = now
        return bool(self.alarm)

    def _rank(self, counts: list[int], place: int, draw: float) -> float:
        """Return the rank of an answer among all before and itself, in (0, 1], and count it."""
        counts[place] += 1
        return max((sum(counts[:place]) + draw * counts[place]) / (self.answers + 1), 1e-12)


def statistics(item: str, score: float, products: Sequence[float], other: str) -> tuple[float, float]:
    """Return what is asked of an answer: how sure it is of a product, and how sure at all; both 0..1.

    Args:
        item: the model's first choice.
        score: its probability.
        products: the probabilities of all classes but `other`; empty where the model does not say.
        other: the class of unknown things.

    """
    best = max(products) if products else score if item != other else 1 - score
    return best, score


def spread(points: Sequence[Sequence[float]], most: int) -> list[int]:
    """Return indices of points that cover all best: each the farthest from those before (Gonzalez 1985).

    Args:
        points: [N, D].
        most: how many.

    """
    if not points:
        return []
    at = np.asarray(points, np.float32)
    chosen = [int(((at - at.mean(axis=0)) ** 2).sum(axis=1).argmin())]
    distances = np.full(len(at), np.inf, np.float32)
    while len(chosen) < min(most, len(at)):
        distances = np.minimum(distances, ((at - at[chosen[-1]]) ** 2).sum(axis=1))
        distances[chosen] = -1
        chosen.append(int(distances.argmax()))
    return chosen


def _bin(score: float) -> int:
    """Return the bin of a probability, by its logit."""
    score = min(max(score, 1e-9), 1 - 1e-9) if math.isfinite(score) else 0.5
    logit = math.log(score / (1 - score))
    return min(max(int((logit + WIDEST) / (2 * WIDEST) * BINS), 0), BINS - 1)
