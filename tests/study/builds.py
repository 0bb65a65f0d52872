"""A build's own functions: files in, embeddings, a head and its answers out; the build that Python finds."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.intp]
Array = NDArray[np.float32]


@dataclass(frozen=True)
class Lesson:
    """A photo that may be learnt from."""

    name: str
    file: Path
    sha256: str


@dataclass(frozen=True)
class Answers:
    """What a head says of N images.

    Attributes:
        labels: [N], the most likely class.
        scores: [N], its probability.
        other: [N], the probability of `other`.

    """

    labels: NDArray[np.str_]
    scores: Array
    other: Array


@dataclass(frozen=True)
class Asked:
    """Photos as a head may see them.

    Attributes:
        features: [N, F], of the photos as they are.
        sharpened: [N, F], of the same sharpened.
        sharpness: [N].

    """

    features: Array
    sharpened: Array
    sharpness: Array

    def __getitem__(self, rows: Rows) -> Asked:
        return Asked(self.features[rows], self.sharpened[rows], self.sharpness[rows])


class Build(Protocol):
    """What a build does; `lessons` are photos that it may learn from."""

    lessons: Asked

    def embed(self, files: Sequence[Path]) -> Asked:
        """Return photos as a head may see them."""

    def learn(self, rows: Rows, seed: int = 0) -> Any:
        """Return a head that learnt from some of the lessons."""


def build(lessons: Sequence[Lesson]) -> Build:
    """Return the build at hand, which has embedded its lessons."""
    return _WithViews(lessons) if importlib.util.find_spec("training.views") else _Plain(lessons)


def ask(head: Any, asked: Asked) -> Answers:
    """Ask a head about photos, as it is served: what is less sharp than it may be is seen sharpened."""
    limit = getattr(head, "blurriest", 0)
    features = np.where((asked.sharpness < limit)[:, None], asked.sharpened, asked.features)
    p = head.probabilities(features)
    return Answers(np.array(head.classes)[p.argmax(axis=1)], p.max(axis=1), p[:, head.other])


class _Plain:
    """Learns from photos as they are."""

    def __init__(self, lessons: Sequence[Lesson]) -> None:
        self._names = [lesson.name for lesson in lessons]
        self._embedder = _of("embedder").Embedder()
        self.lessons = self.embed([lesson.file for lesson in lessons])

    def embed(self, files: Sequence[Path]) -> Asked:
        features = np.stack([self._embedder([file])[0] for file in files])
        return Asked(features, features, np.ones(len(features), np.float32))

    def learn(self, rows: Rows, seed: int = 0) -> Any:
        return _of("fit").fit(self.lessons.features[rows], [self._names[row] for row in rows], seed)[0]


class _WithViews:
    """Learns from views of the photos, too, and sharpens what is blurred."""

    def __init__(self, lessons: Sequence[Lesson]) -> None:
        self._names = [lesson.name for lesson in lessons]
        self._embedder = _of("embedder").Embedder()
        self._sharpening = _of("embedder").Embedder(np.array([np.inf], np.float32))
        counts = _of("views").views_of([(lesson.name, lesson.sha256) for lesson in lessons])
        self.lessons = self.embed([lesson.file for lesson in lessons])
        self._views = [
            self._embedded(one.file, one.sha256, range(1, counts[one.sha256] + 1)) for one in lessons
        ]

    def embed(self, files: Sequence[Path]) -> Asked:
        wanted, features = (
            [_of("embeddings").Wanted("", file, (0,)) for file in files],
            _of("embeddings").FEATURES,
        )
        plain, sharpened = (np.concatenate(how(wanted)) for how in (self._embedder, self._sharpening))
        return Asked(plain[:, :features], sharpened[:, :features], plain[:, features])

    def _embedded(self, file: Path, sha256: str, views: range) -> Array:
        if not views:
            return np.zeros((0, _of("embeddings").COLUMNS), np.float32)
        (rows,) = self._embedder([_of("embeddings").Wanted(sha256, file, tuple(views))])
        return np.asarray(rows)

    def learn(self, rows: Rows, seed: int = 0) -> Any:
        names = [self._names[row] for row in rows]
        views = [view for row in rows for view in self._views[row]]
        image = [place for place, row in enumerate(rows) for _ in self._views[row]]
        is_turned = _of("views").is_turned
        turned = [is_turned(number + 1) for row in rows for number in range(len(self._views[row]))]
        features, of_shape = _of("embeddings").FEATURES, _of("embeddings").SHAPES
        samples = _of("samples").Samples(
            names,
            self.lessons.features[rows],
            np.reshape(views, (-1, features + 1))[:, :features],
            np.array(image, np.intp),
            np.array(turned, np.bool_),
            of_shape,
            float(self.lessons.sharpness[rows].min()),
        )
        return _of("fit").fit(samples, seed)[0]


def _of(module: str) -> Any:
    return importlib.import_module(f"training.{module}")
