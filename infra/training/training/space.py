"""The space of what is typical, in which directions are damped in which photos of one product differ."""

import math
from dataclasses import replace

import numpy as np

from training.head import NARROW, Array, Labels, Space, rounded, weighed
from training.samples import Rows

DIRECTIONS = 32
"""Most directions of shapes, and of colours: one of shapes is 1.5 kB of every version."""
SHRINKAGE = 0.3


def learn_space(rows: Rows, count: int, other: int) -> Space:
    """Return the space that images of `count` classes make.

    Args:
        rows: images and views. Views tell nothing of colours: what they show beside the product has any.
        count: C, of classes.
        other: number of the class of unknown things. Its images differ because they show different things,
            so it has no say in what is damped.

    """
    images = ~rows.is_view
    mean = np.concatenate([rows.x[:, : rows.shapes].mean(axis=0), rows.x[images, rows.shapes :].mean(axis=0)])
    centred = rows.x - mean
    by_shape = _nuisance(centred[:, : rows.shapes], rows.y, other)
    by_colour = _nuisance(centred[images, rows.shapes :], rows.y[images], other)
    space = Space(mean, *by_shape, *by_colour, np.zeros((count, len(mean)), np.float32))
    shapes, colours = space.damped(rows.x)
    colours[rows.is_view] = 0
    sums = np.eye(count, dtype=np.float32)[:, rows.y] @ weighed(shapes, colours)
    centres = weighed(*np.split(sums, [rows.shapes], axis=1))
    return replace(space, centres=rounded(centres, NARROW["centres"]))


def _nuisance(x: Array, y: Labels, other: int) -> tuple[Array, Array]:
    """Return directions [F, M] in which photos of one product differ, and how much of each to take away."""
    if not x.shape[1]:
        return np.zeros((0, 0), np.float32), np.zeros(0, np.float32)
    products = [label for label in np.unique(y) if label != other]
    scatter = np.concatenate(
        [(x[y == p] - x[y == p].mean(axis=0)) / math.sqrt((y == p).sum() * len(products)) for p in products]
    )
    variances, directions = _principal(scatter)
    floor = SHRINKAGE * max(float((scatter**2).sum()) / x.shape[1], 1e-9)
    along, beyond = np.split((1 - SHRINKAGE) * variances, [directions.shape[1]])
    # Differences beyond these directions stay as they are: so as much is left along them, too.
    left = floor + beyond @ beyond / max(float(beyond.sum()), 1e-9)
    return rounded(directions, NARROW["by_shape"]), 1 - np.sqrt(left / (along + floor))


def _principal(rows: Array) -> tuple[Array, Array]:
    """Return the eigenvalues of `rows.T @ rows`, largest first, and the first eigenvectors, [F, M]."""
    if len(rows) >= rows.shape[1]:
        values, vectors = np.linalg.eigh(rows.T @ rows)
        return values[::-1].clip(0), np.ascontiguousarray(vectors[:, ::-1][:, :DIRECTIONS])
    # Fewer images than features: the smaller Gram matrix has the same eigenvalues.
    values, vectors = np.linalg.eigh(rows @ rows.T)
    values, vectors = values[values > values[-1] * 1e-5][::-1], vectors[:, ::-1][:, :DIRECTIONS]
    first = values[:DIRECTIONS]
    return values, rows.T @ vectors[:, : len(first)] / np.sqrt(first)
