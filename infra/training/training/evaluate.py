"""How good is a model on images that it was not trained on: pure figures, no files, no TensorFlow."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

HELD_OUT_SHARE = 0.2
TOP = 3
"""Classes whose probabilities an answer keeps."""


def held_out(members: Sequence[tuple[str, str]]) -> frozenset[str]:
    """Choose the held-out images among (class, SHA-256) pairs; returns their SHA-256.

    The choice depends on the content alone, so an image is on the same side for every version and a copy
    cannot leak. A class of two or more images of which none falls on this side gives its lowest hash; a class
    of which all fall on it keeps its highest for training.
    """
    by_class: dict[str, list[str]] = {}
    for name, sha in sorted(set(members)):
        by_class.setdefault(name, []).append(sha)
    chosen: set[str] = set()
    for shas in by_class.values():
        out = [sha for sha in shas if _position(sha) < HELD_OUT_SHARE]
        if len(shas) > 1 and not out:
            out = [min(shas)]
        if len(out) == len(shas):
            out.remove(max(out))
        chosen.update(out)
    return frozenset(chosen)


def _position(sha256: str) -> float:
    return int(sha256[:8], 16) / 2**32


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
        accuracy: share of right answers, 0..1.
        precision: of what was answered with a class, the share that is of it; 0 where nothing was.
        recall: of a class's images, the share that was answered with it.
        f1: the harmonic mean of both; all three for each class that has held-out images.
        answers: one for each held-out image.

    """

    classes: tuple[str, ...]
    confusion: NDArray[np.int64]
    accuracy: float
    precision: dict[str, float]
    recall: dict[str, float]
    f1: dict[str, float]
    answers: tuple[Answer, ...]

    @property
    def macro_f1(self) -> float:
        """The mean F1: every class weighs the same, however many images it has."""
        return sum(self.f1.values()) / max(len(self.f1), 1)

    @property
    def metrics(self) -> dict[str, Any]:
        """The figures that a manifest keeps, rounded."""
        return {
            "accuracy": round(self.accuracy, 4),
            "held_out": len(self.answers),
            "macro_f1": round(self.macro_f1, 4),
            "f1": {name: round(value, 4) for name, value in self.f1.items()},
        }


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
    accuracy = float(right.sum() / max(len(answers), 1))
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


@dataclass(frozen=True)
class Verdict:
    """Whether a version may go to the edge; if not, why."""

    rejected: str | None = None

    @property
    def passed(self) -> bool:
        """Whether it may."""
        return self.rejected is None


def gate(accuracy: float, parent: tuple[int, float] | None, tolerance: float, fault: str | None) -> Verdict:
    """Decide on a version.

    Args:
        accuracy: of the new version on the held-out images.
        parent: version and accuracy, on the same images, of the version that serves now; None for the first.
        tolerance: by how much it may be worse, 0..1.
        fault: what the smoke test found, or None.

    """
    if fault is not None:
        return Verdict(f"the smoke test failed: {fault}")
    if parent is not None and accuracy < parent[1] - tolerance - 1e-9:
        version, before = parent
        return Verdict(
            f"worse than version {version} on the same held-out images: "
            f"accuracy {accuracy:.4f} against {before:.4f}"
        )
    return Verdict()
