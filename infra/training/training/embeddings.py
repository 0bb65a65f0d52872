"""Embeddings, kept on disk by the image's SHA-256: retraining costs what is new, not what is there."""

import hashlib
import secrets
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from caravan.files import write_file

BACKBONE = "efficientnet-lite0-224-9"
"""What embeddings are made by; their cache and a version's figures name it. Change it when pixels
(`caravan.images`), views (`training.views`), weights or layers change."""
SHAPES = 1472
"""Number of features of shape, which come first; features of colour follow."""
FEATURES = SHAPES + 33
COLUMNS = FEATURES + 1
"""Numbers of an embedding as it is kept: its features, and how sharp the picture is."""

Array = NDArray[np.float32]
Key = tuple[str, int]
"""An image's SHA-256 and the number of its view; view 0 is the image itself."""
Progress = Callable[[int, int], None]
"""Called with the number of images done, and of all."""

BATCH = 32
BLOCK = 1024
"""Embeddings per file, 6 MB."""

_ROW = np.dtype([("sha256", "S64"), ("view", "u1"), ("columns", "<f4", COLUMNS)])
_DIGEST_BYTES = 32


@dataclass(frozen=True)
class Embedded:
    """What was asked for.

    Attributes:
        features: of each image, by SHA-256: [F] float32.
        sharpness: of each image, likewise.
        views: features of the views that were asked for.
        unreadable: by SHA-256, why an image could not be read.

    """

    features: Mapping[str, Array]
    sharpness: Mapping[str, float]
    views: Mapping[Key, Array]
    unreadable: Mapping[str, str]


@dataclass(frozen=True)
class Wanted:
    """An image to embed, and the views of it (0 is the image as it is)."""

    sha256: str
    file: Path
    views: tuple[int, ...]


class EmbeddingCache:
    """Files of up to BLOCK rows each, with a digest at the end, written whole or not at all.

    What is new is added to a file that is not full, under a new name: two processes at once do no harm, at
    worst a row is there twice. A file that is damaged is removed, and what was in it is made again.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory / "embeddings" / BACKBONE

    def find(self, wanted: Iterable[Key]) -> dict[Key, Array]:
        """Return what is there of some views: [F + 1] float32 each."""
        wanted = frozenset(wanted)
        found: dict[Key, Array] = {}
        for _, rows in self._blocks():
            names, views = rows["sha256"].tolist(), rows["view"].tolist()
            for place, (name, view) in enumerate(zip(names, views, strict=True)):
                key = name.decode(), view
                if key in wanted:
                    found[key] = rows["columns"][place].copy()
        return found

    def add(self, embeddings: Mapping[Key, Array]) -> None:
        """Keep embeddings, [F + 1] each."""
        if not embeddings:
            return
        new = np.zeros(len(embeddings), _ROW)
        new["sha256"] = [sha256.encode() for sha256, _ in embeddings]
        new["view"] = [view for _, view in embeddings]
        new["columns"] = list(embeddings.values())
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

        Those of another backbone, which nobody reads again, all go. It reads the whole cache, and so does it
        once for the same images.
        """
        for other in self._directory.parent.glob("*"):
            if other != self._directory:
                shutil.rmtree(other, ignore_errors=True)
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
        body = rows.tobytes()
        path = self._directory / f"{secrets.token_hex(8)}.block"
        write_file(path, body + hashlib.sha256(body).digest(), durable=False)


class Embedder(Protocol):
    """What computes embeddings: `training.embedder.Embedder`, or a stand-in."""

    def __call__(self, wanted: Sequence[Wanted], /) -> list[Array | str]:
        """Return for each image the embeddings of its views, [V, F + 1] float32, or why it cannot be read."""


def embed(
    images: Mapping[str, Path],
    cache: EmbeddingCache,
    embedder: Callable[[], Embedder],
    progress: Progress,
    views: Mapping[str, int] | None = None,
) -> Embedded:
    """Embed images, given as SHA-256 → file, and views of them, computing only what the cache lacks.

    `embedder` is asked for only if there is something to compute. A run that is cut off loses less than a
    block of the cache.
    """
    counts = views or {}
    keys = {sha: [(sha, view) for view in range(counts.get(sha, 0) + 1)] for sha in images}
    found = cache.find(key for wanted in keys.values() for key in wanted)
    missing = [
        Wanted(sha, images[sha], tuple(view for _, view in wanted if (sha, view) not in found))
        for sha, wanted in keys.items()
    ]
    missing = [wanted for wanted in missing if wanted.views]
    fresh: dict[Key, Array] = {}
    unreadable: dict[str, str] = {}
    done = len(images) - len(missing)
    progress(done, len(images))
    for start in range(0, len(missing), BATCH):
        batch = missing[start : start + BATCH]
        for wanted, result in zip(batch, embedder()(batch), strict=True):
            if isinstance(result, str):
                unreadable[wanted.sha256] = result
            else:
                fresh |= {(wanted.sha256, view): row for view, row in zip(wanted.views, result, strict=True)}
        if len(fresh) >= BLOCK:
            cache.add(fresh)
            found |= fresh
            fresh = {}
        progress(done + start + len(batch), len(images))
    cache.add(fresh)
    found |= fresh
    return Embedded(
        {sha: row[:FEATURES] for (sha, view), row in found.items() if view == 0},
        {sha: float(row[FEATURES]) for (sha, view), row in found.items() if view == 0},
        {key: row[:FEATURES] for key, row in found.items() if key[1] > 0},
        unreadable,
    )
