"""Where ZIPs lie while they are taken in: nameless files, gone with the process at the latest."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from prometheus_client import Gauge

from caravan import tracing
from caravan.errors import BadInput, Unavailable

SPOOLED = Gauge("caravan_feeder_spool_bytes", "Bytes of ZIPs that are being taken in")

_WRITE_BYTES = 2**20
_BUFFER_BYTES = 16 * 2**20
"""Most bytes of all uploads in memory before they are written."""
_FULL = (errno.ENOSPC, errno.EDQUOT)
_DISK_FULL = "the disk has no room for this upload now"


@dataclass(frozen=True, slots=True)
class SpoolLimits:
    """Bytes of one upload and of all, bytes of the disk to leave free."""

    upload_bytes: int
    spool_bytes: int
    free_bytes: int


@dataclass(frozen=True, slots=True)
class Spooled:
    """A body that came whole: the file, its size in bytes and the SHA-256 of its content in hex."""

    file: BinaryIO
    size: int
    sha256: str


class UploadSpool:
    """Takes bodies to disk, within bounds.

    Args:
        directory: where; None for the system's temporary directory.
        limits: the bounds.

    """

    def __init__(self, directory: Path | None, limits: SpoolLimits) -> None:
        self._directory = directory or Path(tempfile.gettempdir())
        self._limits = limits
        self.used = 0
        self._buffered = 0

    @asynccontextmanager
    async def taken_in(self, body: AsyncIterator[bytes], declared: int | None) -> AsyncIterator[Spooled]:
        """Write a body to disk as it comes; its file is gone at the end of the context.

        Args:
            body: the chunks.
            declared: its size in bytes, if the sender says it.

        Raises:
            BadInput: 413 if it is too large.
            Unavailable: 503 if other uploads take the room, 507 if the disk is full.

        """
        self._admit(declared or 0, declared or 0)
        taken = 0
        block = bytearray()
        file = await asyncio.to_thread(self._open, declared or 0)
        try:
            digest = hashlib.sha256()
            with tracing.span("receive"):
                async for chunk in body:
                    self._admit(taken + len(chunk), len(chunk))
                    taken += len(chunk)
                    self.used += len(chunk)
                    self._buffered += len(chunk)
                    SPOOLED.set(self.used)
                    block += chunk
                    # Written in blocks that are worth a thread's while, if not too many gather theirs.
                    if len(block) >= _WRITE_BYTES or self._buffered > _BUFFER_BYTES:
                        await self._flush(file, digest, block)
                await self._flush(file, digest, block)
            yield Spooled(file, taken, digest.hexdigest())
        finally:
            self.used -= taken
            self._buffered -= len(block)
            SPOOLED.set(self.used)
            await asyncio.to_thread(file.close)  # giving back gigabytes takes a while

    async def _flush(self, file: BinaryIO, digest: hashlib._Hash, block: bytearray) -> None:
        whole = bytes(block)
        block.clear()
        self._buffered -= len(whole)
        await asyncio.to_thread(self._write, file, digest, whole)

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
