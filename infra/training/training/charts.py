"""What a report draws, as numbers: the cells of the confusion matrix and the points of the curves."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.evaluate import Evaluation
from training.layer import Curves

MOST_CLASSES = 30
"""Most rows and columns of a legible confusion matrix."""
MOST_PAIRS = 30
WIDTH, HEIGHT, LEFT, BOTTOM, MARGIN = 640, 240, 40, 24, 8
"""Sizes of the drawing of curves, in its own units."""
MOST_POINTS = 160


@dataclass(frozen=True)
class Cell:
    """Images of one class that got one answer, and their share of that class, 0..1."""

    count: int
    share: float
    is_right: bool


@dataclass(frozen=True)
class Pair:
    """How many images of a class were taken for another."""

    truth: str
    answer: str
    count: int


def matrix(evaluation: Evaluation) -> list[tuple[str, list[Cell]]]:
    """Return the rows (truth) of the confusion matrix; none where it has too many for a screen."""
    if len(evaluation.classes) > MOST_CLASSES:
        return []
    counts = evaluation.confusion
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return [
        (name, [Cell(int(n), float(s), i == j) for j, (n, s) in enumerate(zip(*row, strict=True))])
        for i, (name, row) in enumerate(
            zip(evaluation.classes, zip(counts, shares, strict=True), strict=True)
        )
    ]


def commonest(evaluation: Evaluation) -> list[Pair]:
    """Return what was confused most often, most often first."""
    wrong = evaluation.confusion.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:MOST_PAIRS]
    places = [divmod(int(place), len(wrong)) for place in order if wrong.flat[place]]
    classes = evaluation.classes
    return [Pair(classes[i], classes[j], int(wrong[i, j])) for i, j in places]


@dataclass(frozen=True)
class Line:
    """One curve: `x,y x,y …` in units of the drawing."""

    kind: str
    label: str
    points: str


@dataclass(frozen=True)
class Plot:
    """The curves of a training: `top` is the value at the upper end, `kept_at` the x of the step kept."""

    lines: tuple[Line, ...]
    top: float
    steps: int
    kept: int
    kept_at: float


def plot(curves: Curves) -> Plot:
    """Lay the curves out in a drawing of WIDTH x HEIGHT."""
    series = (
        ("a", "loss, learned from", curves.train_loss),
        ("b", "loss, left out", curves.validation_loss),
        ("c", "accuracy, left out", curves.validation_accuracy),
    )
    top = max(1.0, *(max(values) for _, _, values in series))
    steps, kept = len(curves.train_loss), curves.best_step
    lines = tuple(Line(kind, label, _points(values, top)) for kind, label, values in series)
    return Plot(lines, top, steps, kept, _x(kept - 1, steps))


def _points(values: Sequence[float], top: float) -> str:
    chosen = np.unique(np.linspace(0, len(values) - 1, min(len(values), MOST_POINTS)).astype(int))
    height = HEIGHT - BOTTOM - MARGIN
    return " ".join(
        f"{_x(int(i), len(values)):.1f},{MARGIN + height * (1 - min(max(values[i] / top, 0), 1)):.1f}"
        for i in chosen
    )


def _x(step: int, steps: int) -> float:
    return LEFT + (WIDTH - MARGIN - LEFT) * step / max(steps - 1, 1)
