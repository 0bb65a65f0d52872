"""Which versions saw an image: asked of what each says that it was made of."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from obstore.store import ObjectStore

from caravan import model_index, s3
from caravan.concurrency import for_each
from caravan.contracts import MANIFEST, version_prefix
from caravan.errors import Permanent
from caravan.manifest import Manifest
from caravan.members import FACT, Member, find_members, members_key

MOST_MANIFEST_BYTES = 8 * 2**20
AT_ONCE = 4
"""Versions that are read at once."""


@dataclass(frozen=True, slots=True, order=True)
class Seen:
    """A version that saw an image.

    Attributes:
        role: `learnt`, or `held-out`: it was judged with the image.
        item: the class that the image had.
        serves: whether it is the newest in `E-ready`, which the edge serves unless it refused it.

    """

    model: str
    version: int
    role: str
    item: str
    serves: bool


@dataclass(frozen=True, slots=True, order=True)
class Unknown:
    """A version of which nobody can tell, and why."""

    model: str
    version: int
    why: str


async def which(
    models: ObjectStore, ready: ObjectStore, contents: Collection[str]
) -> tuple[list[Seen], list[Unknown]]:
    """Return an owner's versions that saw any of these contents, and those that cannot say; in order.

    Args:
        models: `E-models`, of an edge or a group.
        ready: its `E-ready`.
        contents: SHA-256 of each, in hex; none of them need be there any more.

    Raises:
        CaravanError: if a store is away, or refuses us.

    """
    seen: list[Seen] = []
    unknown: list[Unknown] = []
    newest = await _newest(ready)

    async def look(each: tuple[str, int]) -> None:
        model, version = each
        try:
            found = await _find(models, ready, model, version, contents)
        except Permanent as exc:
            unknown.append(Unknown(model, version, str(exc)))
            return
        serves = newest.get(model) == version
        seen.extend(Seen(model, version, role, item, serves) for role, item, _ in found)

    await for_each(await _versions((models, ready)), look, at_once=AT_ONCE)
    return sorted(seen), sorted(unknown)


async def _newest(ready: ObjectStore) -> dict[str, int]:
    try:
        return await model_index.newest(ready)
    except FileNotFoundError:
        return {}


async def _versions(stores: Collection[ObjectStore]) -> list[tuple[str, int]]:
    found: set[tuple[str, int]] = set()
    for store in stores:
        try:
            for model in await model_index.models(store):
                found.update((model, version) for version in await model_index.numbers(store, model))
        except FileNotFoundError:
            continue  # The bucket is made when the first version comes.
    return sorted(found)


async def _find(
    models: ObjectStore, ready: ObjectStore, model: str, version: int, contents: Collection[str]
) -> list[Member]:
    manifest = await _manifest(models, model, version) or await _manifest(ready, model, version)
    if manifest is None:
        if await model_index.files(models, model, version) or await model_index.files(ready, model, version):
            raise Permanent("it has no manifest: others made it, or it is not complete")
        return []  # Some stores list the folder of a removed version for minutes.
    if manifest.shared is not None:
        return []  # The group's own version says it.
    members = manifest.lineage.metrics.get(FACT)
    if not isinstance(members, str):
        was_sent = manifest.lineage.upload is not None
        raise Permanent("it was sent ready-made" if was_sent else "it does not say what it was made of")
    try:
        return await find_members(models, members_key(model, version), members, contents)
    except FileNotFoundError as exc:
        raise Permanent(f"{members_key(model, version)} is missing") from exc


async def _manifest(store: ObjectStore, model: str, version: int) -> Manifest | None:
    key = version_prefix(model, version) + MANIFEST
    try:
        read = await s3.read_changed(store, key, None, most=MOST_MANIFEST_BYTES)
    except FileNotFoundError:
        return None
    if read is None or read.content is None:
        raise Permanent(f"its manifest has more than {MOST_MANIFEST_BYTES} bytes")
    return Manifest.from_json(read.content)
