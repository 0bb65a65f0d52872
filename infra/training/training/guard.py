"""What is typical of each product: the space, the centres and the thresholds of the guard."""

import math
from collections.abc import Sequence

import numpy as np

from caravan.contracts import OTHER
from training.head import Array, Labels, damped, normalised

DIRECTIONS = 128
SHRINKAGE = 0.3
STRICT, LENIENT = 0.05, 0.001
"""The threshold starts from what all but this share of a product's images reach when left out of training:
strictly where images of `other` come as near, leniently where none does."""
UNTRIED = 0.3
"""The threshold of a product with a single image, which cannot be left out."""
SURE = 8.0
"""A product's median image passes the guard with probability sigmoid(SURE) = 0.9997."""


def nuisance(x: Array, y: Labels, other: int) -> tuple[Array, Array]:
    """Return directions [F, M] in which photos of one product differ, and how much of each to take away.

    `other` has no say: its images differ because they show different things.
    """
    products = [label for label in np.unique(y) if label != other]
    scatter = np.concatenate(
        [(x[y == p] - x[y == p].mean(axis=0)) / math.sqrt((y == p).sum() * len(products)) for p in products]
    )
    variance, directions = _principal(scatter)
    floor = SHRINKAGE * max(float((scatter**2).sum()) / x.shape[1], 1e-9)
    return directions, 1 - np.sqrt(floor / ((1 - SHRINKAGE) * variance + floor))


def _principal(rows: Array) -> tuple[Array, Array]:
    """Return the largest eigenvalues [M] and the eigenvectors [F, M] of `rows.T @ rows`."""
    if len(rows) >= rows.shape[1]:
        values, vectors = np.linalg.eigh(rows.T @ rows)
        return values[::-1][:DIRECTIONS].clip(0), np.ascontiguousarray(vectors[:, ::-1][:, :DIRECTIONS])
    # Fewer images than features: the smaller Gram matrix has the same eigenvalues.
    values, vectors = np.linalg.eigh(rows @ rows.T)
    keep = np.nonzero(values[::-1][:DIRECTIONS] > values[-1] * 1e-5)[0]
    values, vectors = values[::-1][keep], vectors[:, ::-1][:, keep]
    return values, rows.T @ vectors / np.sqrt(values)


def centres_of(space: Array, y: Labels, count: int) -> Array:
    """Return the mean direction, [C, F] unit vectors, of each class; zeros for one without images."""
    sums = np.zeros((count, space.shape[1]), np.float32)
    np.add.at(sums, y, space)
    return normalised(sums)


def thresholds_of(x: Array, y: Labels, classes: Sequence[str], folds: Labels) -> tuple[Array, Array]:
    """Set each product's threshold by what its own images, and those of `other`, reach when left out.

    A threshold costs right answers, so it is only as strict as `other` asks for; products without any such
    image are guarded leniently, for nobody has shown what they could be mistaken for.
    """
    other = classes.index(OTHER)
    cosines = np.full((len(y), len(classes)), np.nan, np.float32)
    for fold in np.unique(folds):
        out = folds == fold
        if not set(np.unique(y[~out])) - {other}:
            continue
        mean = x[~out].mean(axis=0)
        directions, damping = nuisance(x[~out], y[~out], other)
        centres = centres_of(normalised(damped(x[~out] - mean, directions, damping)), y[~out], len(classes))
        cosines[out] = normalised(damped(x[out] - mean, directions, damping)) @ centres.T
    tried = ~np.isnan(cosines[:, other])
    strangers = cosines[tried & (y == other)]
    limits = [
        _limit(cosines[tried & (y == label), label], strangers[:, label]) for label in range(len(classes))
    ]
    return (
        np.array([threshold for threshold, _ in limits], np.float32),
        np.array([slope for _, slope in limits], np.float32),
    )


def _limit(own: Array, strangers: Array) -> tuple[float, float]:
    """Return threshold and slope from the cosines that left-out images have to a product's centre."""
    if len(own) < 2:  # noqa: PLR2004 - a lone image was never left out
        return UNTRIED, SURE / UNTRIED
    # The fewer images, the less is known of how far the product's images range.
    strict, lenient = (low - abs(low) / math.sqrt(len(own)) for low in np.quantile(own, [STRICT, LENIENT]))
    threshold = float(np.clip(strangers.max(initial=-1), lenient, strict))
    return threshold, SURE / max(float(np.median(own)) - threshold, 0.05)
