"""Images on the local disk while the object store is away: bounded, durable, oldest out first.

One file an image: a line of JSON, then the bytes. It is written aside, synced and renamed, so that a file
with its final name is whole, whenever the power goes.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
import uuid
from datetime import datetime
from pathlib import Path
from typing import Annotated, Self

import structlog
from pydantic import BaseModel, StringConstraints

from caravan import strict_json
from caravan.errors import Unavailable
from caravan.files import sync
from shopper import metrics
from shopper.ports import Capture

log = structlog.get_logger()

WHOLE = ".image"
PART = ".part"
DAMAGED = ".damaged"
REFUSED = ".refused"
INSUFFICIENT_STORAGE = 507


class ImageSpool:
    """A folder of images that wait.

    Args:
        folder: made if it is not there.
        max_bytes: bytes of all files together, refused and damaged ones included.

    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._sizes: dict[str, int] = {}
        self._bytes = 0
        self._aside_bytes = 0
        self._filled = asyncio.Event()

    @classmethod
    async def opened(cls, folder: Path, max_bytes: int) -> Self:
        """Return the spool with what an earlier process left in it."""
        spool = cls(folder, max_bytes)
        spool._sizes = await asyncio.to_thread(_scan, folder)
        spool._bytes = sum(spool._sizes.values())
        spool._aside_bytes = await asyncio.to_thread(_aside, folder)
        if spool._sizes:
            log.info("spool has images from before", images=len(spool._sizes), bytes=spool._bytes)
        spool._changed()
        return spool

    def __len__(self) -> int:
        return len(self._sizes)

    async def add(self, capture: Capture) -> None:
        """Write an image; on return it survives a crash of the machine.

        Raises:
            Unavailable: 507 if the spool, or the disk, is full.

        """
        content = _encode(capture)
        if self._is_full(content) and self._aside_bytes:  # someone may have looked at those, and removed them
            self._aside_bytes = await asyncio.to_thread(_aside, self._folder)
        if self._is_full(content):
            raise Unavailable("the object store is away and the local spool is full", INSUFFICIENT_STORAGE)
        name = f"{time.time_ns():020}-{uuid.uuid4().hex[:8]}{WHOLE}"
        self._bytes += len(content)
        try:
            await asyncio.to_thread(_write, self._folder / name, content)
        except OSError as exc:
            self._bytes -= len(content)
            log.warning("spool cannot be written", folder=str(self._folder), error=str(exc))
            message = "the object store is away and the local spool cannot be written"
            raise Unavailable(message, INSUFFICIENT_STORAGE) from exc
        self._sizes[name] = len(content)
        self._changed()

    async def oldest(self) -> tuple[str, Capture]:
        """Wait for an image, and return the oldest with its name in the spool."""
        while True:
            await self._filled.wait()
            name = next(iter(self._sizes))
            try:
                content = await asyncio.to_thread((self._folder / name).read_bytes)
                return name, _decode(content)
            except (OSError, ValueError) as exc:
                await self.refuse(name, str(exc), DAMAGED)

    async def refuse(self, name: str, reason: str, suffix: str = REFUSED) -> None:
        """Take an image out that cannot be carried on; its file stays, under another name."""
        log.warning("file in the spool is refused", file=name, reason=reason, suffix=suffix)
        await asyncio.to_thread(_rename, self._folder / name, suffix)
        self._aside_bytes += self._sizes.get(name, 0)
        self._forget(name)

    async def remove(self, name: str) -> None:
        """Take an image out that is safe elsewhere."""
        await asyncio.to_thread((self._folder / name).unlink, missing_ok=True)
        self._forget(name)

    def _is_full(self, content: bytes) -> bool:
        return self._bytes + self._aside_bytes + len(content) > self._max_bytes

    def _forget(self, name: str) -> None:
        self._bytes -= self._sizes.pop(name, 0)
        self._changed()

    def _changed(self) -> None:
        (self._filled.set if self._sizes else self._filled.clear)()
        metrics.SPOOL_IMAGES.set(len(self._sizes))
        metrics.SPOOL_BYTES.set(self._bytes)


class _Head(BaseModel):
    """The line before an image."""

    bucket: str
    item: str
    at: datetime
    facts: dict[str, Annotated[str, StringConstraints(pattern="^[ -~]*$")]]
    size: int


def _encode(capture: Capture) -> bytes:
    head = {
        "bucket": capture.bucket,
        "item": capture.item,
        "at": capture.at.isoformat(),
        "facts": dict(capture.facts),
        "size": len(capture.image),
    }
    return json.dumps(head).encode() + b"\n" + capture.image


def _decode(content: bytes) -> Capture:
    line, _, image = content.partition(b"\n")
    head = _Head.model_validate(strict_json.loads_object(line))
    if head.size != len(image):
        message = f"{len(image)} bytes instead of {head.size}"
        raise ValueError(message)
    return Capture(head.bucket, head.item, image, head.at, head.facts)


def _scan(folder: Path) -> dict[str, int]:
    folder.mkdir(parents=True, exist_ok=True)
    for part in folder.glob(f"*{PART}"):
        part.unlink()  # its sender never had an answer
    return {path.name: path.stat().st_size for path in sorted(folder.glob(f"*{WHOLE}"))}


def _aside(folder: Path) -> int:
    return sum(path.stat().st_size for suffix in (REFUSED, DAMAGED) for path in folder.glob(f"*{suffix}"))


def _write(path: Path, content: bytes) -> None:
    part = path.with_suffix(PART)
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.rename(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    sync(path.parent)


def _rename(path: Path, suffix: str) -> None:
    if path.exists():
        path.rename(path.with_suffix(suffix))
