"""Train a head: the layer by early stopping, the guard by cross-validation; same input, same head."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from caravan.contracts import OTHER
from caravan.errors import Permanent
from training.guard import thresholds_of
from training.head import NARROW, Head, Labels, normalised, rounded
from training.layer import Curves, learn, train
from training.samples import Rows, Samples, folds_of
from training.space import learn_space

BORNE = 0.5
"""Least share of a kind of view that must come nearest to its class for the class to learn from it."""


def fit(samples: Samples, seed: int) -> tuple[Head, Curves]:
    """Train a head; the same input gives the same head.

    The number of steps is the one with the lowest loss on a fold that is left out for that; the layer is then
    trained again on all.

    Raises:
        Permanent: with fewer than two classes.

    """
    found = sorted(set(samples.names))
    if len(found) < 2:  # noqa: PLR2004 - nothing to tell apart
        raise Permanent("there is nothing to tell apart: images of at least two classes are needed")
    classes = tuple(sorted({*found, OTHER}))
    rows = _rows(samples, np.array([classes.index(name) for name in samples.names], dtype=np.intp), seed)
    with ThreadPoolExecutor(1) as beside:
        thresholds = beside.submit(thresholds_of, rows, classes)
        curves = learn(rows.x, rows.y, len(classes), rows.folds == 0)
        space = learn_space(rows, len(classes), classes.index(OTHER))
        weights, bias = train(rows.x - space.mean, rows.y, len(classes), curves.best_step)
        weights = rounded(weights, NARROW["weights"])
        blurriest = np.array([samples.blurriest], np.float32)
        return Head(classes, weights, bias, space, *thresholds.result(), blurriest), curves


def _rows(samples: Samples, y: Labels, seed: int) -> Rows:
    """Return the images, and after them the views that their classes bear."""
    folds = folds_of(samples, seed)
    borne = _borne(samples, y)
    image = np.concatenate([np.arange(len(y)), samples.image[borne]])
    is_view = np.arange(len(image)) >= len(y)
    x = np.concatenate([samples.features, samples.views[borne]])
    return Rows(x, y[image], folds[image], is_view, samples.shapes)


def _borne(samples: Samples, y: Labels) -> NDArray[np.bool_]:
    """Tell which views teach: none of a kind that makes a class look like another, as a turned 6."""
    owner = y[samples.image]
    if not len(owner):
        return np.zeros(0, np.bool_)
    mean = samples.features.mean(axis=0)
    sums = np.eye(int(y.max()) + 1, dtype=np.float32)[:, y] @ normalised(samples.features - mean)
    nearest = ((samples.views - mean) @ normalised(sums).T).argmax(axis=1)
    borne = np.zeros(len(owner), np.bool_)
    for label in np.unique(owner):
        for turned in (False, True):
            kind = (owner == label) & (samples.turned == turned)
            borne |= kind & bool((nearest[kind] == label).mean() >= BORNE if kind.any() else False)
    return borne
