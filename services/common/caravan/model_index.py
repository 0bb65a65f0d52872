"""Which versions of which models a bucket has, found at the cost of what is new.

`index.json`, beside `models/`, names the newest versions of each model. Who publishes a version adds it there
once its manifest is written; who looks for versions reads it with the ETag that it has, and most often is
answered that nothing changed. It is a hint, in both directions: what it names is looked at before it is
believed, and what others publish without it is found by the folders, if later. Nor does a folder prove
anything: SeaweedFS names one for minutes after its objects are gone.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeVar

import structlog
from obstore.store import ObjectStore

from caravan import s3, strict_json
from caravan.contracts import ENTRY_FILES, MANIFEST, MODEL_RULE, MODELS, is_model_name, version_prefix
from caravan.errors import Transient

log = structlog.get_logger()
T = TypeVar("T")

INDEX = "index.json"
NEWEST = 20
"""Newest versions that the index names per model."""
LARGEST_VERSION = 2**63 - 1
"""Largest version number that model servers read."""
MOST_TOLD = 1000
"""Folders that are none of ours and are told of once; of more, now and then again."""
NUMBER_RULE = "a version is 1, 2, 3 and so on, without zeros before it"
_SCHEMA = 1
_MOST_BYTES = 4 * 2**20
_ATTEMPTS = 10
_VERSION = re.compile(r"[1-9][0-9]{0,18}")


@dataclass(frozen=True, slots=True)
class Index:
    """The newest versions of each model, and the SHA-256 (hex) of the manifest that each has.

    The SHA-256 makes the index change with a version that is published anew under its number.
    """

    manifests: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    e_tag: str | None = None

    @classmethod
    def from_json(cls, raw: bytes, e_tag: str | None = None) -> Index:
        """Read an index; an unknown format counts as empty."""
        try:
            body = strict_json.loads_object(raw)
            models: dict[str, dict[str, str]] = body["models"] if body["schema"] == _SCHEMA else {}
            manifests = {
                model: _newest(
                    {number: str(sha) for text, sha in found.items() if (number := version_number(text))}
                )
                for model, found in models.items()
                if is_model_name(model)
            }
        except (ValueError, KeyError, TypeError, AttributeError):
            manifests = {}
        return cls(manifests, e_tag)

    def to_json(self) -> bytes:
        """Return the bytes to store."""
        models = {
            model: {str(number): found[number] for number in sorted(found)}
            for model, found in self.manifests.items()
        }
        return json.dumps({"schema": _SCHEMA, "models": models}, sort_keys=True).encode()

    def with_version(self, model: str, version: int, sha256: str) -> Index:
        """Return an index that names a version too, if it is among the newest."""
        found = {**self.manifests.get(model, {}), version: sha256}
        return Index({**self.manifests, model: _newest(found)}, self.e_tag)

    def without(self, model: str, versions: Collection[int]) -> Index:
        """Return an index that does not name these versions."""
        found = self.manifests.get(model, {})
        left = {number: sha256 for number, sha256 in found.items() if number not in versions}
        return self if left == found else Index({**self.manifests, model: left}, self.e_tag)


def _newest(found: Mapping[int, str]) -> dict[int, str]:
    return {number: found[number] for number in sorted(found, reverse=True)[:NEWEST]}


def version_number(text: str) -> int | None:
    """Return the version that a folder is named for, or None if it is none: `7`, but not `007`."""
    number = int(text) if _VERSION.fullmatch(text) else 0
    return number if 0 < number <= LARGEST_VERSION else None


async def read(store: ObjectStore, known: Index = Index()) -> Index:
    """Return the index as it is now: `known` itself, if that has not changed; an empty one, if there is none.

    Raises:
        Transient: if the store is away.
        Permanent: if it refuses us.

    """
    try:
        read = await s3.read_changed(store, INDEX, known.e_tag, most=_MOST_BYTES)
    except FileNotFoundError:
        return Index()
    if read is None:
        return known
    return Index.from_json(read.content or b"", read.e_tag)


async def add(store: ObjectStore, model: str, version: int, manifest: bytes) -> None:
    """Name a version in the index, once its manifest is written; others may do so at the same time.

    Raises:
        Transient: if the store is away, or others are always quicker.

    """
    sha256 = hashlib.sha256(manifest).hexdigest()
    await _change(store, lambda index: index.with_version(model, version, sha256))


async def remove(store: ObjectStore, model: str, versions: Collection[int]) -> None:
    """Name versions no longer, before they are removed; others may change the index at the same time.

    Raises:
        Transient: if the store is away, or others are always quicker.

    """
    await _change(store, lambda index: index.without(model, versions))


async def _change(store: ObjectStore, change: Callable[[Index], Index]) -> None:
    for _ in range(_ATTEMPTS):
        index = await read(store)
        changed = change(index)
        if changed == index:
            return
        if await s3.replace(store, INDEX, changed.to_json(), index.e_tag):
            return
    raise Transient(f"others write {INDEX} at the same time, again and again")


async def models(store: ObjectStore) -> list[str]:
    """Return the models that a bucket has folders of."""
    folders = await s3.folders(store, MODELS)
    return sorted(_own(folders, lambda name: name if is_model_name(name) else None, MODEL_RULE))


async def numbers(store: ObjectStore, model: str) -> list[int]:
    """Return the versions that a model has folders of, newest first; of some the objects may be gone."""
    folders = await s3.folders(store, f"{MODELS}{model}/")
    return sorted(_own(folders, version_number, NUMBER_RULE), reverse=True)


def _own(folders: Iterable[str], read: Callable[[str], T | None], rule: str) -> Iterator[T]:
    """Yield what folders are named for; one that is none of ours is told of, once."""
    for folder in folders:
        own = read(folder.split("/")[-2])
        if own is None:
            _tell(folder, rule)
        else:
            yield own


@lru_cache(MOST_TOLD)
def _tell(folder: str, rule: str) -> None:
    log.warning("a folder is passed over", folder=folder[:300], rule=rule)


async def newest(store: ObjectStore) -> dict[str, int]:
    """Return the newest version of each model: it has its manifest, which comes last, or its entry file."""
    found = {}
    for model in await models(store):
        for version in await numbers(store, model):
            there = await files(store, model, version)
            if any(path in there for path in (MANIFEST, *ENTRY_FILES)):
                found[model] = version
                break
    return found


async def files(store: ObjectStore, model: str, version: int) -> dict[str, Mapping[str, Any]]:
    """Return the metadata of a version's objects (as `s3.listing` does), by their path in the version."""
    prefix = version_prefix(model, version)
    return {entry["path"].removeprefix(prefix): entry async for entry in s3.listing(store, prefix)}
