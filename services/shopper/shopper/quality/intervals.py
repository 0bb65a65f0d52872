"""Accuracy out of a few labels, with an interval of 95 %. Pure.

Within a stratum the limits are those of the mid-P test (Lancaster 1961), which hold their level on average
also near 1, where a Wald or Wilson interval is too short. Strata are joined by MOVER (Zou and Donner 2008):
distances from the estimate to the limits add up as standard errors do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

ALPHA = 0.05
WRONG_RATE = 0.05
"""Share of wrong confident answers above which a product counts as confidently wrong."""
_STEPS = 60
_TINY = 1e-300
_TERMS = 300
_PRECISION = 1e-12


@dataclass(frozen=True, slots=True)
class Stratum:
    """Answers of one kind, and what labels say of some of them.

    Args:
        answers: number of answers.
        labelled: number of answers with a label.
        right: number of labelled answers that were right.

    """

    answers: int
    labelled: int
    right: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """An accuracy and its interval of 95 %, each 0..1."""

    accuracy: float
    low: float
    high: float


def limits(right: int, labelled: int) -> tuple[float, float]:
    """Return the mid-P limits of a share; 0 and 1 where there is no label."""
    if labelled <= 0:
        return 0.0, 1.0
    wrong = labelled - right

    def above(share: float) -> float:
        """Return the probability of more right answers than seen, and half of that of as many."""
        more = beta_cdf(share, right + 1, wrong) if wrong > 0 else 0.0
        as_many_or_more = beta_cdf(share, right, wrong + 1) if right > 0 else 1.0
        return (more + as_many_or_more) / 2

    low = _root(above, ALPHA / 2) if right > 0 else 0.0
    high = _root(above, 1 - ALPHA / 2) if wrong > 0 else 1.0
    return low, high


def joined(strata: Sequence[Stratum]) -> Estimate | None:
    """Return the accuracy over all answers of some strata; None where none has a label.

    A stratum without labels may be all right or all wrong, and the interval says so.
    """
    strata = [each for each in strata if each.answers]
    answers = sum(each.answers for each in strata)
    if not any(each.labelled for each in strata):
        return None
    estimate = below = above = 0.0
    for each in strata:
        weight = each.answers / answers
        share = each.right / each.labelled if each.labelled else 0.5
        low, high = limits(each.right, each.labelled)
        estimate += weight * share
        below += (weight * (share - low)) ** 2
        above += (weight * (high - share)) ** 2
    return Estimate(estimate, max(0.0, estimate - math.sqrt(below)), min(1.0, estimate + math.sqrt(above)))


def is_confidently_wrong(labelled: int, wrong: int, score: float, products: int) -> bool:
    """Tell whether a product's confident answers are wrong more often than they may be.

    An exact binomial test against the rate that their scores promise, or WRONG_RATE where that is more;
    corrected for as many products as are asked about.

    Args:
        labelled: labels of confident answers.
        wrong: number of labels that contradict the answer.
        score: the mean score of its confident answers, 0..1.
        products: number of products tested.

    """
    rate = max(1 - score, WRONG_RATE)
    return wrong > 0 and beta_cdf(rate, wrong, labelled - wrong + 1) <= ALPHA / max(products, 1)


def beta_cdf(x: float, a: float, b: float) -> float:
    """Return the regularised incomplete beta function I_x(a, b), by its continued fraction (DLMF 8.17.22)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - beta_cdf(1 - x, b, a)
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )
    # Lentz's method.
    c, d = 1.0, 1 / _off_zero(1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, _TERMS):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / _off_zero(1 + term * d)
            c = _off_zero(1 + term / c)
            value *= c * d
        if abs(c * d - 1) < _PRECISION:
            break
    return front * value / a


def _off_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY


def _root(rising: Callable[[float], float], target: float) -> float:
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if rising(middle) < target:
            low = middle
        else:
            high = middle
    return (low + high) / 2
