"""How good is a model on images that it was not trained on: pure figures, no files, no TensorFlow."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

TOP = 3
"""Likeliest classes whose probabilities an answer keeps."""


@dataclass(frozen=True)
class Answer:
    """What a model said of one held-out image whose class is `truth`.

    `top` has its likeliest classes with their probabilities, where the model tells them.
    """

    sha256: str
    truth: str
    label: str
    probability: float
    top: tuple[tuple[str, float], ...] = ()

    @property
    def right(self) -> bool:
        """Whether it is right."""
        return self.label == self.truth


@dataclass(frozen=True)
class Evaluation:
    """The figures of one model.

    Attributes:
        classes: C names, the rows (truth) and columns (answer) of `confusion`, [C, C] counts.
        accuracy: share of right answers, 0..1; None without any.
        precision: share of right answers among those with this class; 0 if there were none.
        recall: share of the class's images that were answered with it.
        f1: the harmonic mean of both; all three for each class that has held-out images.
        answers: one for each held-out image.

    """

    classes: tuple[str, ...]
    confusion: NDArray[np.int64]
    accuracy: float | None
    precision: dict[str, float]
    recall: dict[str, float]
    f1: dict[str, float]
    answers: tuple[Answer, ...]

    @property
    def macro_f1(self) -> float | None:
        """The mean F1: every class weighs the same, however many images it has; None without any."""
        return sum(self.f1.values()) / len(self.f1) if self.f1 else None

    @property
    def metrics(self) -> dict[str, Any]:
        """The figures that a manifest keeps, rounded."""
        return {
            "accuracy": _rounded(self.accuracy),
            "held_out": len(self.answers),
            "macro_f1": _rounded(self.macro_f1),
            "f1": {name: _rounded(value) for name, value in self.f1.items()},
        }


def _rounded(share: float | None) -> float | None:
    return None if share is None else round(share, 4)


def evaluate(answers: Sequence[Answer]) -> Evaluation:
    """Count what was right and what was taken for what."""
    classes = tuple(sorted({a.truth for a in answers} | {a.label for a in answers}))
    index = {name: i for i, name in enumerate(classes)}
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    for answer in answers:
        confusion[index[answer.truth], index[answer.label]] += 1
    right = np.diag(confusion)
    seen, said = confusion.sum(axis=1), confusion.sum(axis=0)
    precision, recall, f1 = (
        {name: float(count * right[i] / max(of[i], 1)) for name, i in index.items() if seen[i]}
        for count, of in ((1, said), (1, seen), (2, seen + said))
    )
    accuracy = float(right.sum() / len(answers)) if answers else None
    return Evaluation(classes, confusion, accuracy, precision, recall, f1, tuple(answers))


def answers_of(
    probabilities: NDArray[np.float32], classes: Sequence[str], truths: Sequence[tuple[str, str]]
) -> list[Answer]:
    """Pair probabilities [N, C] with the (SHA-256, class) of each image."""
    likeliest = np.argsort(-probabilities, axis=1, kind="stable")[:, :TOP]
    return [
        Answer(sha, truth, classes[k[0]], float(row[k[0]]), tuple((classes[i], float(row[i])) for i in k))
        for (sha, truth), k, row in zip(truths, likeliest, probabilities, strict=True)
    ]
