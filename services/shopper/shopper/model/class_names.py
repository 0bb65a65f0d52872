"""What the classes of a model are called, where its answers do not say."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import structlog

from caravan.contracts import MANIFEST, version_prefix
from caravan.errors import CaravanError
from caravan.manifest import Manifest

log = structlog.get_logger()

READ_SECONDS = 2.0
ASK_AGAIN_SECONDS = 30.0
"""Seconds before an unreadable manifest is read again."""
MOST = 64
"""Most versions whose class names are remembered."""

Read = Callable[[str], Awaitable[bytes]]
"""Returns an object of the edge's bucket `production`; FileNotFoundError where it is not."""


async def is_rollback(read: Read, model: str, version: int) -> bool:
    """Tell whether a version is one that an operator rolled back to; it is not where no manifest says so."""
    try:
        async with asyncio.timeout(READ_SECONDS):
            raw = await read(f"{version_prefix(model, version)}{MANIFEST}")
        return Manifest.from_json(raw).lineage.rollback_of is not None
    except (FileNotFoundError, CaravanError, TimeoutError):
        return False


@dataclass(frozen=True, slots=True)
class _Known:
    classes: tuple[str, ...]
    until: float


class ClassNames:
    """Looks names up: in the manifest of the version, else in the settings, else the index is the name.

    A manifest is fetched once for each version. It is a help and no more: while S3 is away, the settings'
    names serve, or the indices.

    Args:
        read: reads the manifest.
        configured: names by model, in the order of its output.

    """

    def __init__(self, read: Read, configured: Mapping[str, tuple[str, ...]]) -> None:
        self._read = read
        self._configured = configured
        self._known: dict[tuple[str, int], _Known] = {}
        self._warned: set[tuple[str, int]] = set()
        self._reading = asyncio.Lock()

    async def of(self, model: str, version: int, count: int) -> tuple[str, ...]:
        """Return as many names as the model has classes; never fails.

        Args:
            model: its name.
            version: the one that answered; 0 where the server does not say, and then no manifest is read.
            count: number of scores in its answer.

        """
        sources = {
            "manifest": await self._of_manifest(model, version) if version else (),
            "setting": self._configured.get(model, ()),
        }
        for source, names in sources.items():
            if not names:
                continue
            if len(names) == len(set(names)) == count:
                return names
            self._warn(model, version, f"the {source} names {len(names)} classes, the model has {count}")
        return tuple(str(index) for index in range(count))

    async def _of_manifest(self, model: str, version: int) -> tuple[str, ...]:
        key = (model, version)
        if (known := self._fresh(key)) is not None:
            return known
        async with self._reading:
            if (known := self._fresh(key)) is not None:
                return known
            classes, keep = await self._classes(model, version)
            if len(self._known) >= MOST:
                self._known.pop(next(iter(self._known)))
            until = float("inf") if keep else asyncio.get_running_loop().time() + ASK_AGAIN_SECONDS
            self._known[key] = _Known(classes, until)
            return classes

    def _fresh(self, key: tuple[str, int]) -> tuple[str, ...] | None:
        known = self._known.get(key)
        return known.classes if known and asyncio.get_running_loop().time() < known.until else None

    async def _classes(self, model: str, version: int) -> tuple[tuple[str, ...], bool]:
        """Return the manifest's classes, and whether that is its last word."""
        try:
            async with asyncio.timeout(READ_SECONDS):
                raw = await self._read(f"{version_prefix(model, version)}{MANIFEST}")
            return Manifest.from_json(raw).lineage.classes, True
        except FileNotFoundError:
            return (), False  # made elsewhere; or the manifest comes yet
        except (CaravanError, TimeoutError) as exc:
            log.warning("manifest not read", model=model, version=version, error=str(exc) or repr(exc))
            return (), False

    def _warn(self, model: str, version: int, what: str) -> None:
        key = (model, version)
        if key not in self._warned:
            if len(self._warned) >= MOST:
                self._warned.clear()
            self._warned.add(key)
            log.warning("class names do not fit", model=model, version=version, reason=what)
