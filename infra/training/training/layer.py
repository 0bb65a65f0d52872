"""A dense softmax layer that learns, and its learning curves."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.head import SCALE, Array, Labels, normalised, softmax

DECAY = np.float32(5e-5)
RATE = 0.01
MOST_STEPS = 600
PATIENCE = 30
GAIN = 1e-4
ABSENT = np.float32(-30)
"""The bias of a class without images, which is `other`: only the guard gives it mass."""


@dataclass(frozen=True)
class Curves:
    """Learning curves, one value a step: losses (nats) on both sides of an inner split, accuracy on one."""

    train_loss: tuple[float, ...]
    validation_loss: tuple[float, ...]
    validation_accuracy: tuple[float, ...]
    best_step: int


def train(centred: Array, y: Labels, count: int, steps: int) -> tuple[Array, Array]:
    """Train on features [N, F] less their mean; returns the weights [F, C] and the bias [C]."""
    layer = _Layer(normalised(centred) * SCALE, y, count)
    for _ in range(steps):
        layer.step()
    return layer.weights.value, layer.bias.value


def learn(x: Array, y: Labels, count: int, left_out: NDArray[np.bool_]) -> Curves:
    """Watch the layer learn on the images that are not left out."""
    mean = x[~left_out].mean(axis=0)
    z = normalised(x - mean) * SCALE
    layer = _Layer(z[~left_out], y[~left_out], count)
    # With fewer images than folds nothing is left out: then the layer is watched on what it learns from.
    watched = left_out if left_out.any() else ~left_out
    watched_x, watched_y = z[watched], y[watched]
    history: list[tuple[float, float, float]] = []
    best = 0
    while len(history) < MOST_STEPS and len(history) - best <= PATIENCE:
        layer.step()
        answers = layer.probabilities(watched_x)
        train_loss, loss = _loss(layer.answers, y[~left_out], count), _loss(answers, watched_y, count)
        history.append((train_loss, loss, float((answers.argmax(axis=1) == watched_y).mean())))
        if history[-1][1] < history[best][1] - GAIN:
            best = len(history) - 1
    train_losses, losses, accuracies = zip(*history, strict=True)
    return Curves(train_losses, losses, accuracies, best + 1)


def _balance(y: Labels, count: int) -> Array:
    """Weight each image so that every class weighs the same, all together 1."""
    sizes = np.bincount(y, minlength=count)
    return (1.0 / (sizes[y] * np.count_nonzero(sizes))).astype(np.float32)


def _loss(p: Array, y: Labels, count: int) -> float:
    """Return the balanced cross-entropy of answers [N, C]."""
    true = p[np.arange(len(y)), y]
    return float(-(np.log(np.maximum(true, 1e-9)) * _balance(y, count)).sum())


class _Layer:
    """A dense layer that learns by Adam on all images at once: the problem is convex, nothing is shuffled.

    Attributes:
        answers: [N, C], what it says now of what it learns from.

    """

    def __init__(self, x: Array, y: Labels, count: int) -> None:
        sizes = np.bincount(y, minlength=count)
        self._x, self._balance = x, _balance(y, count)[:, None]
        self._target = np.eye(count, dtype=np.float32)[y]
        self._present = (sizes > 0).astype(np.float32)
        self.weights = _Parameter(np.zeros((x.shape[1], count), np.float32))
        self.bias = _Parameter(np.where(sizes > 0, np.float32(0), ABSENT))
        self.answers = self.probabilities(x)

    def step(self) -> None:
        """Descend once on the balanced cross-entropy."""
        error = (self.answers - self._target) * self._balance * self._present
        self.weights.descend(self._x.T @ error + DECAY * self.weights.value)
        self.bias.descend(error.sum(axis=0))
        self.answers = self.probabilities(self._x)

    def probabilities(self, x: Array) -> Array:
        return softmax(x @ self.weights.value + self.bias.value)


class _Parameter:
    """Values with Adam's running moments (Kingma & Ba 2015, their constants)."""

    def __init__(self, value: Array) -> None:
        self.value = value
        self._first, self._second, self._steps = np.zeros_like(value), np.zeros_like(value), 0

    def descend(self, gradient: Array) -> None:
        self._steps += 1
        self._first += 0.1 * (gradient - self._first)
        self._second += 0.001 * (gradient**2 - self._second)
        second = self._second / (1 - 0.999**self._steps)
        self.value = self.value - RATE / (1 - 0.9**self._steps) * self._first / (np.sqrt(second) + 1e-8)
