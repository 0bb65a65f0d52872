"""Training ZIPs, read as the feeder reads them: entries `images/<class>/<name>.(jpg|jpeg|png|webp)`."""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lab.demo.errors import UnfitPhotos

ENTRY = re.compile(r"images/([^/]+)/[^/]+\.(?:jpg|jpeg|png|webp)", re.IGNORECASE)
MOST_BYTES = 32 * 2**20
"""An entry that is larger is left to the feeder to judge."""
LOOK = 8
"""Side of the thumbnail by which photos are compared, in pixels."""


@dataclass(frozen=True, slots=True)
class Photo:
    """One image of a ZIP."""

    name: str
    product: str
    data: bytes

    @property
    def sha256(self) -> str:
        """What makes two photos the same, whatever their names."""
        return hashlib.sha256(self.data).hexdigest()


def photos(path: Path) -> Iterator[Photo]:
    """Yield the images of a ZIP, one in memory at a time.

    Raises:
        UnfitPhotos: if it is not a ZIP, is damaged or encrypted, or cannot be read.

    """
    with _opened(path) as archive:
        for info in archive.infolist():
            match = ENTRY.fullmatch(info.filename)
            if match is not None and info.file_size <= MOST_BYTES:
                yield Photo(info.filename, match[1], archive.read(info))


def copy_without(source: Path, target: Path, left_out: Collection[str]) -> int:
    """Copy the images of a ZIP, without those whose SHA-256 is in `left_out`; return how many were copied."""
    copied = 0
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for photo in photos(source):
            if photo.sha256 not in left_out:
                archive.writestr(zipfile.ZipInfo(photo.name), photo.data)
                copied += 1
    return copied


def look_of(photo: bytes) -> NDArray[np.float32] | None:
    """Return what a photo looks like from afar, `[192]` float32; None if it is not an image."""
    try:
        with Image.open(io.BytesIO(photo)) as image:
            image.draft("RGB", (4 * LOOK, 4 * LOOK))
            small = image.convert("RGB").resize((LOOK, LOOK), Image.Resampling.BOX)
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
    return np.asarray(small, dtype=np.float32).ravel()


def most_typical(looks: NDArray[np.float32]) -> int:
    """Return which of `[N, 192]` looks is the nearest to the middle of them all."""
    return int(np.linalg.norm(looks - np.median(looks, axis=0), axis=1).argmin())


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except FileNotFoundError as exc:
        raise UnfitPhotos(f"{path} does not exist") from exc
    except (OSError, zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, EOFError) as exc:
        # RuntimeError is how zipfile says that an entry is encrypted.
        raise UnfitPhotos(f"{path} cannot be read as a ZIP: {exc}") from exc
