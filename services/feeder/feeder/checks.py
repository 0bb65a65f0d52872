"""The first pass over an archive: every image is unpacked and read to its end, and nothing is stored yet."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO

from caravan import tracing
from caravan.concurrency import for_each
from caravan.decoding import Decoding
from caravan.errors import BadInput
from caravan.moments import taken_at
from feeder.archive import Archive, Candidate, Limits, Rejected, read_archive
from feeder.concurrency import Budget


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
        taken: when, in seconds of a camera's clock; None where nobody knows.

    """

    name: str
    key: str
    sha256: str
    size: int
    media_type: str
    read: Callable[[], bytes]
    taken: float | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """What came in at once: its id and size, the images to store, the rest by reason or number.

    Attributes:
        id: of a ZIP, its SHA-256 in hex.
        size: bytes that came in.
        images: what is to be stored, in the order in which it came.
        rejected: images that are not taken.
        ignored: how many entries are no images by their names.
        misplaced: an image that is in no image's place; empty if there is none.

    """

    id: str
    size: int
    images: tuple[Labelled, ...]
    rejected: tuple[Rejected, ...]
    ignored: int
    misplaced: str = ""


@dataclass(frozen=True, slots=True)
class BatchBounds:
    """What checking one batch may cost.

    Attributes:
        pixels: of all its images.
        pixels_per_byte: of all its images, for each byte that was sent; two of the largest are always taken.
        seconds: from its first image to its last.

    """

    pixels: int
    pixels_per_byte: int
    seconds: float

    def allowed(self, size: int, max_pixels: int) -> int:
        """Return how many pixels a batch of so many bytes may have."""
        return min(self.pixels, max(2 * max_pixels, size * self.pixels_per_byte))


class Checks:
    """Checks archives side by side, in fair turns; what all of them keep in memory is bounded.

    Args:
        pool: threads that unpack; those of all uploads.
        decoding: what images are checked with.
        at_once: how many images of an upload are checked at once.
        limits: what an archive may hold; so many entries, twice, may be in memory of all archives.
        bounds: what checking an archive may cost.
        buffer_bytes: of images in memory while they are checked.

    """

    def __init__(
        self,
        pool: Executor,
        decoding: Decoding,
        at_once: int,
        *,
        limits: Limits,
        bounds: BatchBounds,
        buffer_bytes: int,
    ) -> None:
        self._pool = pool
        self._decoding = decoding
        self._at_once = at_once
        self._limits = limits
        self._bounds = bounds
        self._entries = Budget(2 * limits.entries)
        self._buffer = Budget(buffer_bytes)

    @asynccontextmanager
    async def sorted_out(self, file: BinaryIO, batch: str, size: int) -> AsyncIterator[Batch]:
        """Check an archive and every image in it; the file must stay open while the images are read.

        Raises:
            BadInput: if it is no ZIP, or is refused whole.

        """
        if not size:
            raise BadInput("the body is empty: send a ZIP")
        loop = asyncio.get_running_loop()
        # Read twice: one that waits for room must not hold its directory meanwhile.
        entries = await loop.run_in_executor(self._pool, _count, file, self._limits)
        async with self._entries.take(entries):
            with tracing.span("check"):
                archive = await loop.run_in_executor(self._pool, read_archive, file, self._limits)
                sorted_out = await self._sorted_out(archive, batch, size)
            yield sorted_out

    async def _sorted_out(self, archive: Archive, batch: str, size: int) -> Batch:
        loop = asyncio.get_running_loop()
        results: list[Labelled | Rejected | None] = [None] * len(archive.candidates)
        left = allowed = self._bounds.allowed(size, self._decoding.bounds.max_pixels)

        async def check(numbered: tuple[int, Candidate]) -> None:
            nonlocal left
            number, candidate = numbered
            try:
                async with self._buffer.take(candidate.info.file_size):
                    content, digest, taken = await loop.run_in_executor(self._pool, _read, archive, candidate)
                    info = self._decoding.inspect(content)
                    left -= info.pixels
                    if left >= 0:
                        await self._decoding.verify(content, sender=batch)
            except BadInput as exc:
                results[number] = Rejected(candidate.name, exc.detail)
                return
            if left < 0:
                message = f"the images of {size} bytes have more than {allowed} pixels: send them in parts"
                raise BadInput(message, status=413, reason="too-many-pixels")
            results[number] = Labelled(
                candidate.name,
                candidate.key,
                digest,
                len(content),
                info.media_type,
                partial(archive.read, candidate),
                taken,
            )

        try:
            async with asyncio.timeout(self._bounds.seconds):
                await for_each(enumerate(archive.candidates), check, at_once=self._at_once)
        except TimeoutError as exc:
            message = f"checking the images takes more than {self._bounds.seconds:g} s: send them in parts"
            raise BadInput(message, status=413, reason="too-slow") from exc
        return Batch(
            id=batch,
            size=size,
            images=tuple(result for result in results if isinstance(result, Labelled)),
            rejected=archive.rejected + tuple(result for result in results if isinstance(result, Rejected)),
            ignored=archive.ignored,
            misplaced=archive.misplaced,
        )


def _count(file: BinaryIO, limits: Limits) -> int:
    archive = read_archive(file, limits)
    return len(archive.candidates) + len(archive.rejected) + archive.ignored


def _read(archive: Archive, candidate: Candidate) -> tuple[bytes, str, float | None]:
    content = archive.read(candidate)
    return content, hashlib.sha256(content).hexdigest(), taken_at(candidate.key, content)
