"""The catalogue in force: read from its file, read again when the file changes."""

from __future__ import annotations

import asyncio
from importlib import resources
from pathlib import Path
from typing import NoReturn

import structlog

from shopper import metrics
from shopper.catalogue import Catalogue, CatalogueFault

log = structlog.get_logger()

LOOK_SECONDS = 1.0
MAX_BYTES = 10 * 2**20

Stamp = tuple[int, int, int]
"""What tells a changed file from an unchanged one: time of change in ns, size in bytes, inode."""


def default() -> Catalogue:
    """Return the catalogue that comes with the package."""
    return Catalogue.parse(resources.files("shopper").joinpath("catalogue.json").read_bytes())


def read(path: Path) -> Catalogue:
    """Read a catalogue's file; blocks.

    Raises:
        CatalogueFault: if there is none, or it is broken.

    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise CatalogueFault(f"{path}: larger than {MAX_BYTES} bytes")
        return Catalogue.parse(path.read_bytes())
    except OSError as exc:
        raise CatalogueFault(f"{path}: {exc.strerror}") from exc


class CatalogueFile:
    """Holds the last good catalogue.

    Args:
        path: the file to watch; None for the default catalogue, which never changes.

    Raises:
        CatalogueFault: if the file is broken at the start.

    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._seen = _stamp(path)
        self._catalogue = default() if path is None else read(path)
        metrics.CATALOGUE_PRODUCTS.set(len(self._catalogue.products))

    @property
    def catalogue(self) -> Catalogue:
        """The catalogue now in force."""
        return self._catalogue

    async def watch(self) -> NoReturn:
        """Look at the file every second, if there is one; to be run as a task."""
        while self._path is not None:
            await asyncio.sleep(LOOK_SECONDS)
            await self.look()
        await asyncio.Event().wait()  # a task that ends is a service that fails
        raise AssertionError

    async def look(self) -> None:
        """Take a changed file, or refuse it once and keep the last good catalogue."""
        stamp = await asyncio.to_thread(_stamp, self._path)
        if self._path is None or stamp == self._seen:
            return
        self._seen = stamp
        try:
            self._catalogue = await asyncio.to_thread(read, self._path)
        except CatalogueFault as exc:
            metrics.CATALOGUE_READS.labels("refused").inc()
            log.warning("catalogue refused, the last good one stays", error=str(exc))
            return
        metrics.CATALOGUE_READS.labels("taken").inc()
        metrics.CATALOGUE_PRODUCTS.set(len(self._catalogue.products))
        log.info("catalogue taken", path=str(self._path), products=len(self._catalogue.products))


def _stamp(path: Path | None) -> Stamp | None:
    if path is None:
        return None
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino
