"""How good the answers of the last seven days were, as the hub is told. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from shopper.quality.intervals import Stratum, is_confidently_wrong, joined

MOST_PRODUCTS = 100
DIGITS = 4


@dataclass(frozen=True, slots=True)
class Answers:
    """Answers of one product and kind.

    Args:
        item: the product that was answered.
        sure: whether these are the confident ones.
        count: number of answers.
        score: their mean score, 0..1.
        labels: people's labels of the sampled images that were reviewed.

    """

    item: str
    sure: bool
    count: int
    score: float
    labels: tuple[str, ...]

    @property
    def wrong(self) -> list[str]:
        """What the images show where the answer was wrong."""
        return [label for label in self.labels if label != self.item]


@dataclass(frozen=True, slots=True)
class Drift:
    """Answers of a version look unlike those before.

    Args:
        version: version of the trained model.
        since: after when, seconds since 1970.
        images: number of images that show it and wait for a label.

    """

    version: int
    since: float
    images: int


def accuracy(answers: Sequence[Answers], name: Callable[[str], str]) -> dict[str, Any]:
    """Return the accuracy of all answers and of each product's, with intervals of 95 %.

    `accuracy`, `low` and `high` are None where nobody has labelled any. Sure and unsure answers are strata:
    each has a uniform sample of its own. Over all products the two strata are
    kept, and not each product's, so that a handful of labels does not fall to pieces.

    Args:
        answers: counts per product and kind.
        name: returns the label of a product.

    """
    items = sorted({each.item for each in answers}, key=lambda item: (-_count(answers, item), item))
    whole = [_pooled([each for each in answers if each.sure is sure]) for sure in (True, False)]
    return {
        **_figures(whole, answers),
        "products": [
            _product(item, name, [each for each in answers if each.item == item], len(items))
            for item in items[:MOST_PRODUCTS]
        ],
    }


def _product(
    item: str, name: Callable[[str], str], answers: Sequence[Answers], products: int
) -> dict[str, Any]:
    confident = [each for each in answers if each.sure and each.labels]
    wrong = [said for each in confident for said in each.wrong]
    is_wrong = any(
        is_confidently_wrong(len(each.labels), len(each.wrong), each.score, products) for each in confident
    )
    return {
        "item": item,
        "label": name(item),
        **_figures([_pooled([each]) for each in answers], answers),
        "confidently_wrong": is_wrong,
        "taken_for_it": name(Counter(wrong).most_common(1)[0][0]) if wrong else "",
    }


def _figures(strata: Sequence[Stratum], answers: Sequence[Answers]) -> dict[str, Any]:
    estimate = joined(strata)
    figures = (None, None, None) if estimate is None else (estimate.accuracy, estimate.low, estimate.high)
    named = zip(("accuracy", "low", "high"), figures, strict=True)
    return {
        "answers": sum(each.count for each in answers),
        "labelled": sum(len(each.labels) for each in answers),
        **{key: None if value is None else round(value, DIGITS) for key, value in named},
    }


def _pooled(answers: Sequence[Answers]) -> Stratum:
    labelled = sum(len(each.labels) for each in answers)
    wrong = sum(len(each.wrong) for each in answers)
    return Stratum(sum(each.count for each in answers), labelled, labelled - wrong)


def _count(answers: Sequence[Answers], item: str) -> int:
    return sum(each.count for each in answers if each.item == item)
