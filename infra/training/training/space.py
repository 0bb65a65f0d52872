"""The space of what is typical, in which directions are damped in which photos of one product differ."""

import math

import numpy as np

from training.head import Array, Labels, Space, damped, weighed
from training.samples import Rows

DIRECTIONS = 400
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
    shapes, of_shapes = _nuisance(centred[:, : rows.shapes], rows.y, other)
    colours, of_colours = _nuisance(centred[images, rows.shapes :], rows.y[images], other)
    directions = np.zeros((len(mean), len(of_shapes) + len(of_colours)), np.float32)
    directions[: rows.shapes, : len(of_shapes)] = shapes
    directions[rows.shapes :, len(of_shapes) :] = colours
    damping = np.concatenate([of_shapes, of_colours])
    placed = damped(centred, directions, damping)
    placed[rows.is_view, rows.shapes :] = 0
    sums = np.eye(count, dtype=np.float32)[:, rows.y] @ weighed(placed, rows.shapes)
    return Space(mean, directions, damping, weighed(sums, rows.shapes), rows.shapes)


def _nuisance(x: Array, y: Labels, other: int) -> tuple[Array, Array]:
    """Return directions [F, M] in which photos of one product differ, and how much of each to take away."""
    if not x.shape[1]:
        return np.zeros((0, 0), np.float32), np.zeros(0, np.float32)
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
