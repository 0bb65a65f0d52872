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


class Build(Protocol):
    """What a build does; `features` are those of its lessons, [N, F]."""

    features: Array

    def embed(self, file: Path) -> Array:
        """Return an image's embedding, [F]."""

    def learn(self, rows: Rows, seed: int = 0) -> Any:
        """Return a head that learnt from some of the lessons."""


def build(lessons: Sequence[Lesson]) -> Build:
    """Return the build at hand, which has embedded its lessons."""
    return _WithViews(lessons) if importlib.util.find_spec("training.views") else _Plain(lessons)


def ask(head: Any, features: Array) -> Answers:
    """Ask a head about embeddings [N, F]."""
    p = head.probabilities(features)
    return Answers(np.array(head.classes)[p.argmax(axis=1)], p.max(axis=1), p[:, head.other])


class _Plain:
    """Learns from photos as they are."""

    def __init__(self, lessons: Sequence[Lesson]) -> None:
        self._names = [lesson.name for lesson in lessons]
        self._embedder = _of("embedder").Embedder()
        self.features = np.stack([self.embed(lesson.file) for lesson in lessons])

    def embed(self, file: Path) -> Array:
        (row,) = self._embedder([file])
        return np.asarray(row)

    def learn(self, rows: Rows, seed: int = 0) -> Any:
        return _of("fit").fit(self.features[rows], [self._names[row] for row in rows], seed)[0]


class _WithViews:
    """Learns from views of the photos, too."""

    def __init__(self, lessons: Sequence[Lesson]) -> None:
        self._names = [lesson.name for lesson in lessons]
        self._embedder = _of("embedder").Embedder()
        counts = _of("views").views_of([(lesson.name, lesson.sha256) for lesson in lessons])
        own = [self._embedded(lesson.file, lesson.sha256, counts[lesson.sha256]) for lesson in lessons]
        self.features = np.stack([rows[0] for rows in own])
        self._views = [rows[1:] for rows in own]

    def embed(self, file: Path) -> Array:
        row: Array = self._embedded(file, "", 0)[0]
        return row

    def _embedded(self, file: Path, sha256: str, views: int) -> Array:
        (rows,) = self._embedder([_of("embeddings").Wanted(sha256, file, tuple(range(views + 1)))])
        return np.asarray(rows)

    def learn(self, rows: Rows, seed: int = 0) -> Any:
        names = [self._names[row] for row in rows]
        views = [view for row in rows for view in self._views[row]]
        image = [place for place, row in enumerate(rows) for _ in self._views[row]]
        is_turned = _of("views").is_turned
        turned = [is_turned(number + 1) for row in rows for number in range(len(self._views[row]))]
        features = self.features[rows]
        samples = _of("samples").Samples(
            names,
            features,
            np.stack(views) if views else features[:0],
            np.array(image, np.intp),
            np.array(turned, np.bool_),
            _of("embeddings").SHAPES,
        )
        return _of("fit").fit(samples, seed)[0]


def _of(module: str) -> Any:
    return importlib.import_module(f"training.{module}")
