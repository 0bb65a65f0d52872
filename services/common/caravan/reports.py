"""What a bucket's model versions say of themselves, and the report beside each: for the doors that show them.

A report is one page, `models/<model>/<version>/report/index.html`, and in the version's manifest as its other
files are. It comes out of a bucket that pipelines of others write to as well, so it is shown under a policy
by which it can run nothing, load nothing, and send nothing.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import Response
from obstore.store import ObjectStore

from caravan import s3
from caravan.contracts import ENTRY_FILES, MANIFEST, MODELS, VersionKey, is_model_name, version_prefix
from caravan.errors import BadInput, Permanent
from caravan.manifest import Manifest

REPORT = "report/index.html"
LATEST = "latest"
MOST_VERSIONS = 50
"""Of each model in a list, the newest; the list says how many older ones there are."""
MOST_BYTES = 8 * 2**20
"""Of a page or a manifest that is read into memory; our own reports have a quarter of it at most."""
AT_ONCE = 16
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'; sandbox",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

_NUMBER = re.compile(r"[1-9]\d{0,18}")

Sizes = Mapping[str, int]
"""Size in bytes of each file of a version, by its path."""
Address = Callable[[str, int], str]
"""Where the report of a model's version is shown."""


@dataclass(frozen=True, slots=True)
class Report:
    """The page of a version."""

    model: str
    version: int
    content: bytes


ListModels = Callable[[], Awaitable[list[dict[str, Any]]]]
ReadReport = Callable[[str, str], Awaitable[Report]]


async def list_models(store: ObjectStore, address: Address) -> list[dict[str, Any]]:
    """Return each model with its versions, newest first, and what their manifests say.

    Raises:
        Transient: if the store is away.

    """
    places = asyncio.Semaphore(AT_ONCE)

    async def facts(model: str, version: int, sizes: Sizes) -> dict[str, Any]:
        async with places:
            manifest = await _manifest(store, model, version, sizes)
        return _facts(version, manifest, address(model, version) if REPORT in sizes else None)

    models = []
    for model, versions in sorted((await _versions(store)).items()):
        newest = sorted(versions, reverse=True)[:MOST_VERSIONS]
        found = await asyncio.gather(*(facts(model, version, versions[version]) for version in newest))
        models.append({"model": model, "versions": found, "older": len(versions) - len(newest)})
    return models


async def read_report(store: ObjectStore, model: str, version: str) -> Report:
    """Return the report of a version: its number, or `latest`.

    Raises:
        BadInput: 404 if there is none; the message says what there is instead.
        Transient: if the store is away.

    """
    if version != LATEST and not _NUMBER.fullmatch(version):
        raise BadInput(f"a version is a whole number, or {LATEST}", 404, reason="no-version")
    versions = (await _versions(store, model)).get(model) if is_model_name(model) else None
    if not versions:
        raise BadInput(f"there is no version of a model {model!r} here", 404, reason="no-model")
    number = max(versions) if version == LATEST else int(version)
    if number not in versions:
        message = f"there is no version {number} of {model} here, but {_told(versions)}"
        raise BadInput(message, 404, reason="no-version")
    size = versions[number].get(REPORT)
    if size is None:
        others = [other for other, sizes in versions.items() if REPORT in sizes]
        message = (
            f"version {number} of {model} came without a report: one is made where a version is trained; "
            f"{_told(others)} have one"
            if others
            else f"no version of {model} has a report: one is made where a version is trained"
        )
        raise BadInput(message, 404, reason="no-report")
    key = version_prefix(model, number) + REPORT
    if size > MOST_BYTES:
        message = f"the report has {size} bytes, too many to be shown: fetch {key} from the bucket"
        raise BadInput(message, 404, reason="no-report")
    try:
        return Report(model, number, await s3.read(store, key))
    except FileNotFoundError as exc:
        raise BadInput(f"version {number} of {model} is being removed", 404, reason="no-version") from exc


def show(report: Report) -> Response:
    """Answer with a report, for browsers to show and nothing else."""
    return Response(report.content, headers=HEADERS, media_type="text/html; charset=utf-8")


async def _versions(store: ObjectStore, model: str | None = None) -> dict[str, dict[int, dict[str, int]]]:
    """Return the files of the versions that a model server would see, by model and version."""
    found: dict[str, dict[int, dict[str, int]]] = {}
    try:
        async for entry in s3.listing(store, MODELS if model is None else f"{MODELS}{model}/"):
            key = VersionKey.parse(entry["path"])
            if key is not None and is_model_name(key.model):
                found.setdefault(key.model, {}).setdefault(key.version, {})[key.path] = entry["size"]
    except FileNotFoundError:
        return {}  # The bucket is made when the first version comes.
    seen = {
        name: {version: sizes for version, sizes in versions.items() if any(e in sizes for e in ENTRY_FILES)}
        for name, versions in found.items()
    }
    return {name: versions for name, versions in seen.items() if versions}


async def _manifest(store: ObjectStore, model: str, version: int, sizes: Sizes) -> Manifest | None:
    if sizes.get(MANIFEST, MOST_BYTES + 1) > MOST_BYTES:
        return None
    try:
        return Manifest.from_json(await s3.read(store, version_prefix(model, version) + MANIFEST))
    except (FileNotFoundError, Permanent):
        return None


def _facts(version: int, manifest: Manifest | None, report: str | None) -> dict[str, Any]:
    if manifest is None:
        # Made by someone else's pipeline: nothing is known of it.
        return {"version": version, "verdict": None, "report": report}
    lineage = manifest.lineage
    return {
        "version": version,
        "verdict": "passed" if lineage.rejected is None else "rejected",
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
    more = " and older ones" if len(newest) > 5 else ""  # noqa: PLR2004 - as many as a sentence bears
    return f"{', '.join(map(str, newest[:5]))}{more}"
