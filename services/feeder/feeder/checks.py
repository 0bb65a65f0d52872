"""The first pass over an archive: every image is unpacked and read to its end, and nothing is stored yet."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO

from caravan import images
from caravan.concurrency import for_each
from caravan.errors import BadInput
from feeder.archive import Archive, Candidate, Limits, Rejected, read_archive


@dataclass(frozen=True, slots=True)
class Labelled:
    """A checked image with its place; the content is read again when it is stored.

    Attributes:
        name: its name in the batch.
        key: where it belongs in the bucket: `images/<class>/<file>`.
        sha256: of its content, in hex.
        size: bytes of its content.
        media_type: such as `image/jpeg`.
        read: returns its content; blocks.

    """

    name: str
    key: str
    sha256: str
    size: int
    media_type: str
    read: Callable[[], bytes]


@dataclass(frozen=True, slots=True)
class Batch:
    """What came in at once: its id and size, the images to store, the rest by reason or number.

    Attributes:
        id: of a ZIP, its SHA-256 in hex.
        size: bytes that came in.
        images: what is to be stored, in the order in which it came.
        rejected: images that are not taken.
        ignored: how many entries are no images by their names.

    """

    id: str
    size: int
    images: tuple[Labelled, ...]
    rejected: tuple[Rejected, ...]
    ignored: int


class Checks:
    """Checks archives, one image per thread in memory.

    Args:
        pool: threads; those of all uploads.
        at_once: how many of them one upload keeps busy.
        limits: what an archive may hold.
        max_pixels: what an image may have.

    """

    def __init__(self, pool: Executor, at_once: int, limits: Limits, max_pixels: int) -> None:
        self._pool = pool
        self._at_once = at_once
        self._limits = limits
        self._max_pixels = max_pixels

    async def sort_out(self, file: BinaryIO, batch: str, size: int) -> Batch:
        """Check an archive and every image in it; the file must stay open while the images are read.

        Raises:
            BadInput: if it is no ZIP, or is refused whole.

        """
        if not size:
            raise BadInput("the body is empty: send a ZIP")
        loop = asyncio.get_running_loop()
        archive = await loop.run_in_executor(self._pool, read_archive, file, self._limits)
        results: list[Labelled | Rejected | None] = [None] * len(archive.candidates)

        async def check(numbered: tuple[int, Candidate]) -> None:
            number, candidate = numbered
            results[number] = await loop.run_in_executor(self._pool, self._check, archive, candidate)

        await for_each(enumerate(archive.candidates), check, at_once=self._at_once)
        return Batch(
            id=batch,
            size=size,
            images=tuple(result for result in results if isinstance(result, Labelled)),
            rejected=archive.rejected + tuple(result for result in results if isinstance(result, Rejected)),
            ignored=archive.ignored,
        )

    def _check(self, archive: Archive, candidate: Candidate) -> Labelled | Rejected:
        try:
            content = archive.read(candidate)
            info = images.verify(content, max_bytes=self._limits.entry_bytes, max_pixels=self._max_pixels)
        except BadInput as exc:
            return Rejected(candidate.name, exc.detail)
        return Labelled(
            candidate.name,
            candidate.key,
            hashlib.sha256(content).hexdigest(),
            len(content),
            f"image/{info.format.lower()}",
            partial(archive.read, candidate),
        )
