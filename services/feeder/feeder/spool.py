"""Where ZIPs lie while they are taken in: nameless files, gone with the process at the latest."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import shutil
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from prometheus_client import Gauge

from caravan import tracing
from caravan.errors import BadInput, Unavailable

SPOOLED = Gauge("caravan_feeder_spool_bytes", "Bytes of ZIPs that are being taken in")

_WRITE_BYTES = 2**20
_FULL = (errno.ENOSPC, errno.EDQUOT)
_DISK_FULL = "the disk has no room for this upload now"


@dataclass(frozen=True, slots=True)
class SpoolLimits:
    """Bytes of one upload and of all, bytes of the disk to leave free, seconds to wait for a chunk."""

    upload_bytes: int
    spool_bytes: int
    free_bytes: int
    idle_seconds: float


@dataclass(frozen=True, slots=True)
class Spooled:
    """A body that came whole: the file, its size in bytes and the SHA-256 of its content in hex."""

    file: BinaryIO
    size: int
    sha256: str


class Spool:
    """Takes bodies to disk, within bounds.

    Args:
        directory: where; None for the system's temporary directory.
        limits: the bounds.

    """

    def __init__(self, directory: Path | None, limits: SpoolLimits) -> None:
        self._directory = directory or Path(tempfile.gettempdir())
        self._limits = limits
        self.used = 0

    @asynccontextmanager
    async def taken_in(self, body: AsyncIterator[bytes], declared: int | None) -> AsyncIterator[Spooled]:
        """Write a body to disk as it comes; its file is gone at the end of the context.

        Args:
            body: the chunks.
            declared: its size in bytes, if the sender says it.

        Raises:
            BadInput: 413 if it is too large, 408 if the sender falls silent.
            Unavailable: 503 if other uploads take the room, 507 if the disk is full.

        """
        self._admit(declared or 0, declared or 0)
        written = 0
        file = await asyncio.to_thread(self._open, declared or 0)
        try:
            digest = hashlib.sha256()
            with tracing.span("receive"):
                async with aclosing(_blocks(body, self._limits.idle_seconds)) as blocks:
                    async for block in blocks:
                        self._admit(written + len(block), len(block))
                        self.used += len(block)
                        written += len(block)
                        SPOOLED.set(self.used)
                        await asyncio.to_thread(self._write, file, digest, block)
            yield Spooled(file, written, digest.hexdigest())
        finally:
            self.used -= written
            SPOOLED.set(self.used)
            await asyncio.to_thread(file.close)  # giving back gigabytes takes a while

    def _admit(self, size: int, more: int) -> None:
        if size > self._limits.upload_bytes:
            raise BadInput(f"the body is larger than {self._limits.upload_bytes} bytes", status=413)
        if self.used + more > self._limits.spool_bytes:
            raise Unavailable("other uploads are being taken in: try again in a moment")

    def _open(self, size: int) -> BinaryIO:
        self._directory.mkdir(parents=True, exist_ok=True)
        self._find_room(size)
        return tempfile.TemporaryFile(dir=self._directory, buffering=0)

    def _write(self, file: BinaryIO, digest: hashlib._Hash, block: bytes) -> None:
        digest.update(block)
        self._find_room(len(block))
        try:
            rest = memoryview(block)
            while rest:
                rest = rest[file.write(rest) :]
        except OSError as exc:
            if exc.errno in _FULL:
                raise Unavailable(_DISK_FULL, status=507) from exc
            raise

    def _find_room(self, size: int) -> None:
        if shutil.disk_usage(self._directory).free < size + self._limits.free_bytes:
            raise Unavailable(_DISK_FULL, status=507)


async def _blocks(body: AsyncIterator[bytes], idle_seconds: float) -> AsyncGenerator[bytes, None]:
    """Join a body's chunks to blocks worth a thread's while."""
    block = bytearray()
    chunks = aiter(body)
    while True:
        try:
            async with asyncio.timeout(idle_seconds):
                chunk = await anext(chunks)
        except StopAsyncIteration:
            break
        except TimeoutError as exc:
            raise BadInput(f"nothing came for {idle_seconds:g} s", status=408) from exc
        block += chunk
        if len(block) >= _WRITE_BYTES:
            yield bytes(block)
            block.clear()
    if block:
        yield bytes(block)
