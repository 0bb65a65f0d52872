"""A dense softmax layer that learns, and its learning curves."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import OptimizeResult, minimize

from training.head import SCALE, Array, Labels, normalised, softmax

DECAY = np.float32(5e-5)
MOST_STEPS = 200
PATIENCE = 30
GAIN = 1e-4
ABSENT = np.float32(-30)
"""The bias of a class without images, which is `other`: only the guard gives it mass."""


@dataclass(frozen=True)
class Curves:
    """Learning curves, one value a step: losses (nats) and accuracies on both sides of an inner split."""

    train_loss: tuple[float, ...]
    validation_loss: tuple[float, ...]
    train_accuracy: tuple[float, ...]
    validation_accuracy: tuple[float, ...]
    best_step: int


def train(x: Array, y: Labels, count: int, steps: int) -> tuple[Array, Array, Array]:
    """Train on normalised features [N, F]; returns their mean [F], the weights [F, C] and the bias [C]."""
    mean = x.mean(axis=0)
    layer = _descend(_Side(normalised(x - mean) * SCALE, y, count), steps)
    return mean, layer.weights, layer.bias


def learn(x: Array, y: Labels, count: int, left_out: NDArray[np.bool_]) -> Curves:
    """Watch the layer learn on the images that are not left out."""
    mean = x[~left_out].mean(axis=0)
    z = normalised(x - mean) * SCALE
    learnt = _Side(z[~left_out], y[~left_out], count)
    # With fewer images than folds nothing is left out: then the layer is watched on what it learns from.
    watched = _Side(z[left_out], y[left_out], count) if left_out.any() else learnt
    history: list[tuple[tuple[float, float], ...]] = []
    best = 0

    def watch(layer: _Layer) -> None:
        nonlocal best
        history.append((learnt.measure(layer), watched.measure(layer)))
        if history[-1][1][0] < history[best][1][0] - GAIN:
            best = len(history) - 1
        if len(history) - best > PATIENCE:
            raise StopIteration

    layer = _descend(learnt, MOST_STEPS, watch)
    if not history:  # images that are all alike: there is nowhere to go
        watch(layer)
    (train_loss, train_accuracy), (loss, accuracy) = (
        zip(*side, strict=True) for side in zip(*history, strict=True)
    )
    return Curves(train_loss, loss, train_accuracy, accuracy, best + 1)


@dataclass(frozen=True)
class _Layer:
    """A dense softmax layer: weights [F, C], bias [C]."""

    weights: Array
    bias: Array

    def probabilities(self, x: Array) -> Array:
        return softmax(x @ self.weights + self.bias)


@dataclass(frozen=True)
class _Side:
    """Features [N, F] and labels [N] that a layer is measured by; every class weighs the same."""

    x: Array
    y: Labels
    count: int

    @property
    def balance(self) -> Array:
        """The weight of each image, [N], all together 1."""
        sizes = np.bincount(self.y, minlength=self.count)
        return (1.0 / (sizes[self.y] * np.count_nonzero(sizes))).astype(np.float32)

    def measure(self, layer: _Layer) -> tuple[float, float]:
        """Return the balanced loss and the plain accuracy."""
        p = layer.probabilities(self.x)
        true = p[np.arange(len(self.y)), self.y]
        loss = -(np.log(np.maximum(true, 1e-9)) * self.balance).sum()
        return float(loss), float((p.argmax(axis=1) == self.y).mean())


def _descend(side: _Side, steps: int, watch: Callable[[_Layer], None] = lambda _: None) -> _Layer:
    """Lower the balanced cross-entropy, decay included, from all images at once.

    The problem is convex, and L-BFGS gets within some twenty steps to where gradient descent needs many
    hundreds. `watch` sees the layer after each step, and ends the descent by StopIteration.
    """
    features, balance = side.x.shape[1], side.balance[:, None]
    target = np.eye(side.count, dtype=np.float32)[side.y]
    present = target.any(axis=0)

    def layer_of(values: NDArray[np.float64]) -> _Layer:
        table = values.astype(np.float32).reshape(features + 1, side.count)
        return _Layer(table[:-1], table[-1])

    def loss_and_slope(values: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        layer = layer_of(values)
        p = layer.probabilities(side.x)
        true = np.maximum((p * target).sum(axis=1, keepdims=True), np.float32(1e-30))
        loss = -(np.log(true) * balance).sum() + DECAY / 2 * np.vdot(layer.weights, layer.weights)
        error = (p - target) * balance * present
        slope = np.vstack([side.x.T @ error + DECAY * layer.weights, error.sum(axis=0)])
        return float(loss), slope.ravel().astype(np.float64)

    def after_step(intermediate_result: OptimizeResult) -> None:
        watch(layer_of(intermediate_result.x))

    start = np.vstack([np.zeros((features, side.count)), np.where(present, 0, ABSENT)]).ravel()
    # Neither tolerance ends it: how many steps are taken is what was learnt from the images left out.
    options = {"maxiter": steps, "maxfun": 20 * steps, "ftol": 0, "gtol": 0}
    found = minimize(loss_and_slope, start, jac=True, method="L-BFGS-B", callback=after_step, options=options)
    return layer_of(found.x)
