"""Embeddings, kept on disk by the image's SHA-256: retraining costs what is new, not what is there."""

import hashlib
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

BACKBONE = "efficientnet-lite0-224-2"
"""What embeddings are made by; their cache and a version's figures name it. Change it when pixels
(`training.pixels`), weights or layers change."""
FEATURES = 1280

Array = NDArray[np.float32]
Progress = Callable[[int, int], None]
"""Called with how many are done, and of how many."""

BATCH = 32
BLOCK = 1024
"""Embeddings of a file, 5 MB."""

_ROW = np.dtype([("sha256", "S64"), ("features", "<f4", FEATURES)])
_DIGEST_BYTES = 32


@dataclass(frozen=True)
class Embedded:
    """Features by SHA-256, each [1280] float32; and by SHA-256 why an image could not be read."""

    features: Mapping[str, Array]
    unreadable: Mapping[str, str]


class EmbeddingCache:
    """Files of up to BLOCK rows each, with a digest at the end, written whole or not at all.

    What is new is added to a file that is not full, under a new name: two processes at once do no harm, at
    worst a row is there twice. A file that is damaged is removed, and what was in it is made again.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory / "embeddings" / BACKBONE

    def find(self, wanted: Iterable[str]) -> dict[str, Array]:
        """Return what is there of some images, by SHA-256: [1280] float32."""
        wanted = frozenset(wanted)
        found: dict[str, Array] = {}
        for _, rows in self._blocks():
            for place, name in enumerate(rows["sha256"].tolist()):
                sha256 = name.decode()
                if sha256 in wanted:
                    found[sha256] = rows["features"][place].copy()
        return found

    def add(self, features: Mapping[str, Array]) -> None:
        """Keep embeddings, by SHA-256."""
        if not features:
            return
        new = np.zeros(len(features), _ROW)
        new["sha256"] = [sha256.encode() for sha256 in features]
        new["features"] = list(features.values())
        last, rows = next(
            ((path, rows) for path, rows in self._blocks() if len(rows) < BLOCK), (None, new[:0])
        )
        rows = np.concatenate([rows, new])
        for start in range(0, len(rows), BLOCK):
            self._write(rows[start : start + BLOCK])
        if last is not None:
            last.unlink(missing_ok=True)

    def forget(self, edge: str, withdrawn: Collection[str]) -> None:
        """Remove embeddings of an edge's images that must not be kept, by their SHA-256.

        It reads the whole cache, and so does it once for the same images.
        """
        names = [sha256.encode() for sha256 in sorted(withdrawn)]
        note, digest = self._directory / f"{edge}.forgotten", hashlib.sha256(b"".join(names)).hexdigest()
        if not names or (note.exists() and note.read_text() == digest):
            return
        for path, rows in self._blocks():
            out = np.isin(rows["sha256"], names)
            if out.any():
                if not out.all():
                    self._write(rows[~out])
                path.unlink(missing_ok=True)
        self._directory.mkdir(parents=True, exist_ok=True)
        note.write_text(digest)

    def _blocks(self) -> Iterator[tuple[Path, NDArray[np.void]]]:
        for path in sorted(self._directory.glob("*.block")):
            with suppress(FileNotFoundError):  # another process has added to it
                content = path.read_bytes()
                body, digest = content[:-_DIGEST_BYTES], content[-_DIGEST_BYTES:]
                if hashlib.sha256(body).digest() == digest and len(body) % _ROW.itemsize == 0:
                    yield path, np.frombuffer(body, _ROW)
                else:
                    path.unlink(missing_ok=True)

    def _write(self, rows: NDArray[np.void]) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        body = rows.tobytes()
        with tempfile.NamedTemporaryFile(dir=self._directory, delete=False) as target:
            target.write(body + hashlib.sha256(body).digest())
        Path(target.name).replace(f"{target.name}.block")


class Embedder(Protocol):
    """What computes embeddings: `training.embedder.Embedder`, or a stand-in."""

    def __call__(self, files: Sequence[Path], /) -> list[Array | str]:
        """Return for each file its embedding, [1280] float32, or why it cannot be read."""


def embed(
    images: Mapping[str, Path], cache: EmbeddingCache, embedder: Callable[[], Embedder], progress: Progress
) -> Embedded:
    """Embed images, given as SHA-256 → file, computing only what the cache lacks.

    `embedder` is asked for only if there is something to compute. A run that is cut off loses less than a
    block of the cache.
    """
    features = cache.find(images)
    missing = [sha for sha in images if sha not in features]
    fresh: dict[str, Array] = {}
    unreadable: dict[str, str] = {}
    progress(len(features), len(images))
    for start in range(0, len(missing), BATCH):
        batch = missing[start : start + BATCH]
        for sha, result in zip(batch, embedder()([images[sha] for sha in batch]), strict=True):
            if isinstance(result, str):
                unreadable[sha] = result
            else:
                fresh[sha] = features[sha] = result
        if len(fresh) >= BLOCK:
            cache.add(fresh)
            fresh = {}
        progress(len(features) + len(unreadable), len(images))
    cache.add(fresh)
    return Embedded(features, unreadable)
