"""Embeddings, kept on disk by the image's SHA-256: retraining costs what is new, not what is there."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

BACKBONE = "efficientnet-lite0-224-2"
"""Part of every cached embedding's name: change it when pixels, weights or layers change."""
FEATURES = 1280

Array = NDArray[np.float32]
Progress = Callable[[int, int], None]
"""Called with how many are done, and of how many."""

BATCH = 32


@dataclass(frozen=True)
class Embedded:
    """Features by SHA-256, each [1280] float32; and by SHA-256 why an image could not be read."""

    features: Mapping[str, Array]
    unreadable: Mapping[str, str]


class EmbeddingCache:
    """One small file per image, named by backbone and content; written whole or not at all."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory / "embeddings" / BACKBONE

    def get(self, sha256: str) -> Array | None:
        """Return the embedding, [1280] float32, or None if it is not there or not whole."""
        try:
            features = np.fromfile(self._path(sha256), np.float32)
        except FileNotFoundError:
            return None
        return features if features.size == FEATURES else None

    def put(self, sha256: str, features: Array) -> None:
        """Keep an embedding; two processes that keep the same one do no harm."""
        path = self._path(sha256)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as target:
            target.write(features.astype(np.float32).tobytes())
        Path(target.name).replace(path)

    def _path(self, sha256: str) -> Path:
        return self._directory / sha256[:2] / sha256


class Embedder(Protocol):
    """What computes embeddings: `training.embedder.Embedder`, or a stand-in."""

    def __call__(self, files: Sequence[Path], /) -> list[Array | str]:
        """Return for each file its embedding, [1280] float32, or why it cannot be read."""


def embed(
    images: Mapping[str, Path], cache: EmbeddingCache, embedder: Callable[[], Embedder], progress: Progress
) -> Embedded:
    """Embed images, given as SHA-256 → file, computing only what the cache lacks.

    `embedder` is asked for only if there is something to compute.
    """
    cached = {sha: cache.get(sha) for sha in images}
    features = {sha: found for sha, found in cached.items() if found is not None}
    missing = [sha for sha in images if sha not in features]
    unreadable: dict[str, str] = {}
    progress(len(features), len(images))
    for start in range(0, len(missing), BATCH):
        batch = missing[start : start + BATCH]
        for sha, result in zip(batch, embedder()([images[sha] for sha in batch]), strict=True):
            if isinstance(result, str):
                unreadable[sha] = result
            else:
                cache.put(sha, result)
                features[sha] = result
        progress(len(features) + len(unreadable), len(images))
    return Embedded(features, unreadable)
