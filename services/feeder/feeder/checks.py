"""The first pass over an archive: every image is unpacked and read to its end, and nothing is stored yet."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO

from caravan import images, tracing
from caravan.concurrency import for_each
from caravan.decoding import Decoding
from caravan.errors import BadInput
from caravan.images import ImageInfo
from caravan.moments import taken_at
from feeder.archive import Archive, Candidate, Limits, RejectedEntry, read_archive
from feeder.concurrency import Budget

TOGETHER, TOGETHER_BYTES = 16, 2**20
"""Entries, and their unpacked bytes, that are checked in one call of a thread: a call costs as much as a
photo."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """A checked image with its place; the content is read again when it is stored.

    Attributes:
        name: its name in the batch.
        key: key in the bucket: `images/<class>/<file>`.
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
        id: SHA-256 of a ZIP, in hex.
        size: bytes that came in.
        images: the images to be stored, in the order in which they came.
        rejected: images that are not taken.
        ignored: number of entries whose names are not those of images.
        misplaced: an image that is in no image's place; empty if there is none.

    """

    id: str
    size: int
    images: tuple[Labelled, ...]
    rejected: tuple[RejectedEntry, ...]
    ignored: int
    misplaced: str = ""


@dataclass(frozen=True, slots=True)
class BatchBounds:
    """What checking one batch may cost.

    Attributes:
        pixels: most pixels of all its images.
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
    """Checks archives side by side, in fair turns, within a bound of memory for all.

    Args:
        pool: threads that unpack; those of all uploads.
        decoding: decodes the images.
        at_once: most images of an upload that are checked at once.
        limits: what an archive may hold; so many entries, twice, may be in memory of all archives.
        bounds: bounds on the work of checking an archive.
        buffer_bytes: most bytes of images in memory while they are checked.

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
        results: list[Labelled | RejectedEntry | None] = [None] * len(archive.candidates)
        left = allowed = self._bounds.allowed(size, self._decoding.bounds.max_pixels)

        async def check(some: Sequence[tuple[int, Candidate]]) -> None:
            nonlocal left
            async with self._buffer.take(sum(candidate.info.file_size for _, candidate in some)):
                there = await loop.run_in_executor(self._pool, self._read, archive, [one for _, one in some])
                for (number, candidate), found in zip(some, there, strict=True):
                    results[number] = found if isinstance(found, RejectedEntry) else found.image
                    if isinstance(found, RejectedEntry):
                        continue
                    left -= found.info.pixels
                    if left < 0:
                        message = (
                            f"the images of {size} bytes have more than {allowed} pixels: send them in parts"
                        )
                        raise BadInput(message, status=413, reason="too-many-pixels")
                    if found.unverified is None:
                        continue
                    try:
                        await self._decoding.verify(found.unverified, sender=batch)
                    except BadInput as exc:
                        results[number] = RejectedEntry(candidate.name, exc.detail)

        try:
            async with asyncio.timeout(self._bounds.seconds):
                await for_each(_together(archive.candidates), check, at_once=self._at_once)
        except TimeoutError as exc:
            message = f"checking the images takes more than {self._bounds.seconds:g} s: send them in parts"
            raise BadInput(message, status=413, reason="too-slow") from exc
        return Batch(
            id=batch,
            size=size,
            images=tuple(result for result in results if isinstance(result, Labelled)),
            rejected=archive.rejected
            + tuple(result for result in results if isinstance(result, RejectedEntry)),
            ignored=archive.ignored,
            misplaced=archive.misplaced,
        )

    def _read(self, archive: Archive, candidates: Sequence[Candidate]) -> list[_Read | RejectedEntry]:
        """Read entries, and those images to their ends that need no process for that."""
        return [self._read_one(archive, candidate) for candidate in candidates]

    def _read_one(self, archive: Archive, candidate: Candidate) -> _Read | RejectedEntry:
        try:
            content = archive.read(candidate)
            info = self._decoding.inspect(content)
            is_quick = images.is_quick(info)
            if is_quick:
                images.verify(content, self._decoding.bounds)
        except BadInput as exc:
            return RejectedEntry(candidate.name, exc.detail)
        image = Labelled(
            candidate.name,
            candidate.key,
            hashlib.sha256(content).hexdigest(),
            len(content),
            info.media_type,
            partial(archive.read, candidate),
            taken_at(candidate.key, content),
        )
        return _Read(image, info, None if is_quick else content)


@dataclass(frozen=True, slots=True)
class _Read:
    """An image that was read; its content too, where its pixels are still to be looked at."""

    image: Labelled
    info: ImageInfo
    unverified: bytes | None


def _together(candidates: Sequence[Candidate]) -> Iterator[Sequence[tuple[int, Candidate]]]:
    """Yield entries, numbered, so many at a time as are worth a thread's while; a large one by itself."""
    some: list[tuple[int, Candidate]] = []
    size = 0
    for number, candidate in enumerate(candidates):
        if some and (len(some) == TOGETHER or size + candidate.info.file_size > TOGETHER_BYTES):
            yield some
            some, size = [], 0
        some.append((number, candidate))
        size += candidate.info.file_size
    if some:
        yield some


def _count(file: BinaryIO, limits: Limits) -> int:
    archive = read_archive(file, limits)
    return len(archive.candidates) + len(archive.rejected) + archive.ignored
