"""What a bucket's model versions say of themselves, and the report beside each: for the doors that show them.

A report is one page, `models/<model>/<version>/report/index.html`, and in the version's manifest as its other
files are. `pages.show` shows it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import structlog
from obstore.store import ObjectStore

from caravan import model_index, s3
from caravan.contracts import ENTRY_FILES, MANIFEST, is_model_name, version_prefix
from caravan.errors import BadInput, CaravanError, Permanent
from caravan.manifest import Manifest

log = structlog.get_logger()

REPORT = "report/index.html"
LATEST = "latest"
MOST_VERSIONS = 50
"""Newest versions listed per model; the list says how many older ones there are."""
MOST_BYTES = 8 * 2**20
"""Most bytes of a page or manifest read into memory; our own reports have a quarter of it at most."""
MOST_NAMED = 5
"""Most versions named in one sentence."""
AT_ONCE = 16
_NUMBER = re.compile(r"[1-9]\d{0,18}")

Sizes = Mapping[str, int]
"""Size in bytes of each file of a version, by its path."""
Address = Callable[[str, int], str]
"""Returns the address of a version's report."""


@dataclass(frozen=True, slots=True)
class Report:
    """The page of a version."""

    model: str
    version: int
    content: bytes


ListModels = Callable[[], Awaitable[list[dict[str, Any]]]]
ReadReport = Callable[[str, str], Awaitable[Report]]


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known of a version: its manifest, by this ETag, and whether there is a report."""

    e_tag: str | None
    manifest: Manifest | None
    has_report: bool


class Reports:
    """The versions in one bucket. A list of them costs the manifests that are new; others are only asked for.

    Args:
        store: the bucket.

    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._known: dict[tuple[str, int], _Known] = {}

    async def list_models(self, address: Address) -> list[dict[str, Any]]:
        """Return each model with its versions, newest first, and what their manifests say.

        Of a version that cannot be read, what was known before is said.

        Raises:
            Transient: if the store is away.

        """
        places = asyncio.Semaphore(AT_ONCE)

        async def known(model: str, version: int) -> _Known | None:
            async with places:
                try:
                    return await self._look(model, version)
                except CaravanError as exc:
                    log.warning("version cannot be looked at", model=model, version=version, error=str(exc))
                    return self._known.get((model, version), _Known(None, None, has_report=False))

        models, shown = [], {}
        for model in await self._models():
            numbers = await model_index.numbers(self._store, model)
            newest = numbers[:MOST_VERSIONS]
            found = await asyncio.gather(*(known(model, version) for version in newest))
            there = {version: one for version, one in zip(newest, found, strict=True) if one is not None}
            shown.update({(model, version): one for version, one in there.items()})
            versions = [
                _facts(version, one.manifest, address(model, version) if one.has_report else None)
                for version, one in there.items()
            ]
            if versions:
                models.append({"model": model, "versions": versions, "older": len(numbers) - len(newest)})
        self._known = shown
        return models

    async def read_report(self, model: str, version: str) -> Report:
        """Return the report of a version: its number, or `latest`.

        Raises:
            BadInput: 404 if there is none; the message says what there is instead.
            Transient: if the store is away.

        """
        if version != LATEST and not _NUMBER.fullmatch(version):
            raise BadInput(f"a version is a whole number, or {LATEST}", 404, reason="no-version")
        there = await self._newest(model, 1 if version == LATEST else 0)
        if version != LATEST and is_model_name(model):
            there = {int(version): await self._sizes(model, int(version))}
        number, sizes = next(iter(there.items()), (0, {}))
        if not _is_seen(sizes):
            raise await self._not_there(model, version)
        size = sizes.get(REPORT)
        if size is None:
            raise await self._without_report(model, number)
        key = version_prefix(model, number) + REPORT
        if size > MOST_BYTES:
            message = f"the report has {size} bytes, too many to be shown: fetch {key} from the bucket"
            raise BadInput(message, 404, reason="no-report")
        try:
            return Report(model, number, await s3.read(self._store, key))
        except FileNotFoundError as exc:
            raise BadInput(f"version {number} of {model} is being removed", 404, reason="no-version") from exc

    async def _not_there(self, model: str, version: str) -> BadInput:
        others = await self._newest(model, MOST_NAMED + 1)
        if not others:
            return BadInput(f"there is no version of a model {model!r} here", 404, reason="no-model")
        message = f"there is no version {version} of {model} here, but {_told(others)}"
        return BadInput(message, 404, reason="no-version")

    async def _without_report(self, model: str, version: int) -> BadInput:
        newest = await self._newest(model, MOST_VERSIONS)
        others = [number for number, sizes in newest.items() if REPORT in sizes]
        message = (
            f"version {version} of {model} came without a report: one is made where a version is trained; "
            f"{_told(others)} have one"
            if others
            else f"no version of {model} has a report: one is made where a version is trained"
        )
        return BadInput(message, 404, reason="no-report")

    async def _models(self) -> list[str]:
        try:
            return await model_index.models(self._store)
        except FileNotFoundError:
            return []  # The bucket is made when the first version comes.

    async def _newest(self, model: str, most: int) -> dict[int, Sizes]:
        """Return the newest versions that a model server would see, newest first, and their files."""
        found: dict[int, Sizes] = {}
        if is_model_name(model) and most:
            for version in await self._numbers(model):
                sizes = await self._sizes(model, version)
                if _is_seen(sizes):
                    found[version] = sizes
                if len(found) == most:
                    break
        return found

    async def _numbers(self, model: str) -> list[int]:
        try:
            return await model_index.numbers(self._store, model)
        except FileNotFoundError:
            return []

    async def _sizes(self, model: str, version: int) -> Sizes:
        try:
            files = await model_index.files(self._store, model, version)
        except FileNotFoundError:
            return {}
        return {path: entry["size"] for path, entry in files.items()}

    async def _look(self, model: str, version: int) -> _Known | None:
        """Return what is known of a version, read anew if its manifest is; None if it is not to be seen."""
        known = self._known.get((model, version))
        key = version_prefix(model, version) + MANIFEST
        try:
            read = await s3.read_changed(self._store, key, known.e_tag if known else None, most=MOST_BYTES)
        except FileNotFoundError:
            read = s3.Content(None, None)
        if read is None:
            return known
        sizes = await self._sizes(model, version)
        if not _is_seen(sizes):
            return None
        manifest = None
        with suppress(Permanent):
            manifest = None if read.content is None else Manifest.from_json(read.content)
        return _Known(read.e_tag, manifest, REPORT in sizes)


def _is_seen(sizes: Sizes) -> bool:
    """Tell whether a model server would see a version."""
    return any(entry in sizes for entry in ENTRY_FILES)


def _facts(version: int, manifest: Manifest | None, report: str | None) -> dict[str, Any]:
    if manifest is None:
        # Made by someone else's pipeline: nothing is known of it.
        return {"version": version, "verdict": None, "report": report}
    lineage = manifest.lineage
    return {
        "version": version,
        "verdict": "rejected" if manifest.is_rejected else "passed",
        "rejected": lineage.rejected,
        "created": lineage.created,
        "data_digest": lineage.data_digest,
        "parent": lineage.parent,
        "rollback_of": lineage.rollback_of,
        "upload": lineage.upload,
        "classes": list(lineage.classes),
        "metrics": lineage.metrics,
        "report": report,
    }


def _told(versions: Mapping[int, Sizes] | list[int]) -> str:
    newest = sorted(versions, reverse=True)
    more = " and older ones" if len(newest) > MOST_NAMED else ""
    return f"{', '.join(map(str, newest[:MOST_NAMED]))}{more}"
