"""How typical of a product an image has to be: the thresholds of the guard."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from caravan.contracts import OTHER
from training.head import Array, Labels
from training.samples import Rows
from training.space import learn_space

LOST, LOST_VIEWS = 0.02, 0.05
"""Shares of the products' left-out images, and of these and their views together, that may be taken for
`other`."""
FARTHER, LENIENT = 1.5, 6.0
"""Where no image of `other` comes near, the limit is so many times as far as any left-out image was, and at
least so many spreads."""
LEAST = 0.05
"""Least spread: left-out images that are all alike do not tell how another will look."""
FEW = 10
"""Images at which a product's own spread weighs as much as that of all."""
UNTRIED = 0.3
"""Threshold if no product has an image that was left out of training."""
SURE = 8.0
"""A product's median image passes the guard with probability sigmoid(SURE) = 0.9997."""


def thresholds_of(rows: Rows, classes: Sequence[str]) -> tuple[Array, Array]:
    """Set each product's threshold by what its own images, and those of `other`, reach when left out.

    How far an image is from typical is measured by the spread of its product, and one limit holds for all
    products: it loses few images and views, and is only as strict as `other` asks for.
    """
    other, y, is_view = classes.index(OTHER), rows.y, rows.is_view
    likeness = np.full((len(y), len(classes)), np.nan, np.float32)
    for fold in np.unique(rows.folds):
        out = rows.folds == fold
        if not set(np.unique(y[~out])) - {other}:
            continue
        likeness[out] = learn_space(rows.only(~out), len(classes), other).likeness(rows.x[out])
        # A product of which nothing was learnt in this fold has no centre to be near to.
        likeness[np.ix_(out, ~np.isin(np.arange(len(classes)), y[~out]))] = np.nan
    products = [label for label in range(len(classes)) if label != other and (y == label).any()]
    typical = {label: _typical(likeness[y == label, label], is_view[y == label]) for label in products}
    known = [spread for spread in typical.values() if spread is not None]
    limits = (np.full(len(classes), UNTRIED, np.float32), np.full(len(classes), SURE / UNTRIED, np.float32))
    if not known:
        return limits
    pooled = Typical(
        float(np.median([one.median for one in known])),
        float(np.mean([one.spread for one in known])),
        0,
    )
    shares = {label: (typical[label] or pooled).shrunk(pooled) for label in products}
    limit = _limit(likeness, y, is_view, shares, other)
    for label, one in shares.items():
        limits[0][label] = one.median - limit * one.spread
        limits[1][label] = SURE / max(limit * one.spread, 0.05)
    return limits


@dataclass(frozen=True)
class Typical:
    """Likenesses that left-out images of a product have to its centre: median, spread, of how many."""

    median: float
    spread: float
    count: int

    def shrunk(self, pooled: "Typical") -> "Typical":
        """Return it with the spread of a product of few images drawn towards that of the others."""
        share = self.count / (self.count + FEW)
        return Typical(self.median, share * self.spread + (1 - share) * pooled.spread, self.count)


def _typical(own: Array, is_view: NDArray[np.bool_]) -> Typical | None:
    images = own[~is_view & ~np.isnan(own)]
    if not len(images):
        return None
    median = float(np.median(images))
    return Typical(median, max(median - float(np.quantile(images, 0.1)), LEAST), len(images))


def _limit(
    likeness: Array, y: Labels, is_view: NDArray[np.bool_], typical: Mapping[int, Typical], other: int
) -> float:
    """Return how many spreads below its median an image of a product may be."""
    labels = list(typical)
    spreads = (np.array([typical[label].median for label in labels]) - likeness[:, labels]) / np.array(
        [typical[label].spread for label in labels]
    )
    own = np.concatenate([spreads[y == label, place] for place, label in enumerate(labels)])
    view = np.concatenate([is_view[y == label] for label in labels])
    tried = ~np.isnan(own)
    own, view = own[tried], view[tried]
    strict = max(float(np.quantile(own[~view], 1 - LOST)), float(np.quantile(own, 1 - LOST_VIEWS)))
    strangers = spreads[(y == other) & ~np.isnan(spreads).all(axis=1)]
    near = float(np.quantile(np.nanmin(strangers, axis=1), LOST)) if len(strangers) else math.inf
    return max(float(np.clip(near, strict, max(float(own.max()) * FARTHER, LENIENT))), 0.5)
