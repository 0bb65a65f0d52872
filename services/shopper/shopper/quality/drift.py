"""Whether a version's answers look like those before, by a test that may be asked at every answer. Pure.

A conformal test (Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World"): each answer's scores
are ranked among those of all answers of this version before it. While nothing changes, the ranks are uniform
and independent, whatever the scores' distribution is, so bets against that win nothing on average. A bet
begins at every moment, with stakes that come to 1 in HORIZON (Shin, Ramdas and Rinaldo, "E-detectors", 2023):
so the chance of a false alarm is at most ALPHA in 30 days, however many answers come.

Which change is looked for is in the bets alone: scores that fall, and photos that are darker or brighter,
flatter or harder, bluer or redder than before. The photos' look is asked too: a model that has learnt to be
sure in any light does not show that the light has changed. A look is ranked among those of products, or among
those of `other`, as the answer is (a Mondrian conformal test): photos of a product that nobody taught are a
small part of all, but soon most of `other`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Self

from PIL import Image, ImageStat

ALPHA = 0.25
"""Probability of a false alarm within HORIZON."""
HORIZON = 30 * 86_400.0
"""Seconds over which a false alarm has the probability ALPHA."""
FIRST = 100
"""First answers of a version that only train the test: among fewer, none stands out."""
POWERS = (0.3, 0.5, 0.7)
"""Bets: a rank p in 0..1 pays k p^(k-1), which is 1 on average. A small k bets on a few odd answers, a large
one on many that are a little odd."""
STEPS = ((0.1, 0.35), (0.25, 0.5), (0.5, 0.75))
"""Bets that ranks below the first number come with the probability of the second, as where one kind of answer
comes more often."""
BINS = 256
SCORES, LOOKS = 2, 4
STATISTICS = SCORES + LOOKS
_ROWS = SCORES + 2 * LOOKS
_BETS = len(POWERS) + len(STEPS)
_SIDES = (
    *((place, False) for place in range(STATISTICS)),
    *((place, True) for place in range(SCORES, STATISTICS)),
)
"""Direction in which each statistic is tested: scores that rise are no trouble."""
LOOK_SIDE = 112
"""Pixels per side of the photo whose appearance is tested."""
LOOKED_AT = f"{LOOK_SIDE} RGB"
"""Version of the appearance features; counts of another version are dropped."""
WIDEST = 14.0
"""Largest logit, either way: further digits of a probability near 0 or 1 say nothing."""


@dataclass(slots=True)
class DriftTest:
    """The test of one version at one edge.

    Args:
        counts: answers by bin, [SCORES + 2 * LOOKS][BINS]: the looks of `other`, then of products.
        wealth: of each side and bet, all that was begun so far.
        answers: number of answers seen.
        last: when the last answer came, seconds since 1970.
        excess: how much the newest bets have won in a row, in nats; 0 while there is nothing to win.
        since: when that was 0 for the last time, seconds since 1970: the change came after it.
        alarm: when the alarm was raised, seconds since 1970; 0 while there is none.
        looked_at: version of the appearance features.

    """

    counts: list[list[int]] = field(default_factory=lambda: [[0] * BINS for _ in range(_ROWS)])
    wealth: list[float] = field(default_factory=lambda: [0.0] * len(_SIDES) * _BETS)
    answers: int = 0
    last: float = 0.0
    excess: float = 0.0
    since: float = 0.0
    alarm: float = 0.0
    looked_at: str = LOOKED_AT

    @classmethod
    def of(cls, state: dict[str, Any]) -> Self:
        """Return a test as `state` has it; a new one where that is of other statistics or bets."""
        test = cls(**{"looked_at": "", **state})
        is_ours = len(test.counts) == _ROWS and len(test.wealth) == len(_SIDES) * _BETS
        return test if is_ours and test.looked_at == LOOKED_AT else cls()

    @property
    def state(self) -> dict[str, Any]:
        """All of it, as JSON has it."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    def look(self, scores: Sequence[float], now: float, draws: Sequence[float], *, is_product: bool) -> bool:
        """Look at an answer; return whether it raises the alarm.

        Args:
            scores: results of `statistics` and `appearance`, 0..1 each.
            now: seconds since 1970; never less than before.
            draws: as many random numbers in [0, 1), for ranks among equals.
            is_product: whether the answer is a product.

        """
        looks = self.counts[SCORES + LOOKS :] if is_product else self.counts[SCORES : SCORES + LOOKS]
        places = map(_bin, range(STATISTICS), scores)
        ranks = [_rank(*each) for each in zip(self.counts[:SCORES] + looks, places, draws, strict=True)]
        stake = max(now - self.last, 0.0) / HORIZON
        self.answers += 1
        self.last = max(now, self.last)
        if self.alarm:
            return False
        if self.answers <= FIRST:
            self.since = now
            return False
        wins = [win for place, rises in _SIDES for win in _wins(1 - ranks[place] if rises else ranks[place])]
        self.wealth = [(held + stake) * win for held, win in zip(self.wealth, wins, strict=True)]
        self.excess = max(0.0, self.excess + math.log(sum(wins) / len(wins)))
        if not self.excess:
            self.since = now
        # Scores are half of the stakes, though photos may change in more ways.
        of_scores, of_looks = self.wealth[: SCORES * _BETS], self.wealth[SCORES * _BETS :]
        if (sum(of_scores) / len(of_scores) + sum(of_looks) / len(of_looks)) / 2 >= 1 / ALPHA:
            self.alarm = now
        return bool(self.alarm)


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


def appearance(pixels: bytes) -> tuple[float, ...]:
    """Return light, contrast, blue and red of a photo, 0..1 each: means, and the deviation, of its YCbCr.

    Args:
        pixels: RGB, uint8 [112, 112, 3].

    """
    image = Image.frombytes("RGB", (LOOK_SIDE, LOOK_SIDE), pixels)
    found = ImageStat.Stat(image.convert("YCbCr"))
    light, blue, red = (mean / 255 for mean in found.mean)
    return light, min(found.stddev[0] / 128, 1.0), blue, red


def spread(points: Sequence[Sequence[float]], most: int) -> list[int]:
    """Return indices of points that cover all best: each the farthest from those before (Gonzalez 1985).

    Args:
        points: [N, D].
        most: number of answers returned.

    """
    import numpy as np  # noqa: PLC0415 - 13 MB, and no alarm may ever come

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


def _rank(counts: list[int], place: int, draw: float) -> float:
    """Return the rank of an answer among those counted and itself, in (0, 1], and count it."""
    counts[place] += 1
    return max((sum(counts[:place]) + draw * counts[place]) / sum(counts), 1e-12)


def _wins(rank: float) -> list[float]:
    """Return what each bet pays for a rank, in 0..1."""
    rank = max(rank, 1e-12)
    powers = [power * rank ** (power - 1) for power in POWERS]
    return powers + [more / below if rank <= below else (1 - more) / (1 - below) for below, more in STEPS]


def _bin(statistic: int, score: float) -> int:
    """Return the bin of a statistic: of a probability by its logit, of how a photo looks evenly."""
    score = min(max(score, 1e-9), 1 - 1e-9) if math.isfinite(score) else 0.5
    if statistic >= SCORES:
        return int(score * BINS)
    logit = math.log(score / (1 - score))
    return min(max(int((logit + WIDEST) / (2 * WIDEST) * BINS), 0), BINS - 1)
