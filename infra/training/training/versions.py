"""Versions in a bucket: which are there, which are whole, and whose number is whose."""

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Self

import structlog
from obstore.store import ObjectStore

from caravan import model_index, s3, strict_json, times, tracing
from caravan.concurrency import for_each
from caravan.contracts import (
    CLAIMS,
    ENTRY_FILES,
    MANIFEST,
    MODELS,
    SIGNATURE,
    VersionKey,
    claim_key,
    version_prefix,
)
from caravan.errors import CaravanError, Permanent, Transient
from caravan.manifest import File, Manifest
from training.stores import EDGES_AT_ONCE, Stores

log = structlog.get_logger()

ATTEMPTS = 20
AT_ONCE = 4
"""Files of a version that are written side by side."""

Sizes = Mapping[str, int]
"""Size in bytes of each file of a version, by its path."""
Read = Callable[[File], Awaitable[bytes]]
"""Returns a file of a version, verified."""


async def stored(store: ObjectStore, model: str) -> dict[int, dict[str, int]]:
    """Return what files each version has, whole or not."""
    versions: dict[int, dict[str, int]] = {}
    async for entry in s3.listing(store, f"{MODELS}{model}/"):
        key = VersionKey.parse(entry["path"])
        if key is not None:
            versions.setdefault(key.version, {})[key.path] = entry["size"]
    return versions


async def sizes(store: ObjectStore, model: str, version: int) -> dict[str, int]:
    """Return what files one version has, whole or not."""
    return {path: entry["size"] for path, entry in (await model_index.files(store, model, version)).items()}


async def newest_complete(store: ObjectStore, model: str) -> Manifest | None:
    """Return the manifest of the newest version that is whole; older ones are not looked at."""
    for version in await model_index.numbers(store, model):
        manifest = await whole(store, model, version)
        if manifest is not None:
            return manifest
    return None


async def whole(store: ObjectStore, model: str, version: int) -> Manifest | None:
    """Return the manifest of one version, if that is whole."""
    return await manifest_of(store, model, version, await sizes(store, model, version))


async def complete(store: ObjectStore, model: str) -> dict[int, Manifest]:
    """Return the manifests of the versions that are whole: manifest there, and every file of its size."""
    versions = await stored(store, model)
    found = await asyncio.gather(*(manifest_of(store, model, v, sizes) for v, sizes in versions.items()))
    return {manifest.version: manifest for manifest in found if manifest is not None}


async def manifest_of(store: ObjectStore, model: str, version: int, sizes: Sizes) -> Manifest | None:
    """Return a version's manifest if the version is whole."""
    manifest = await read_manifest(store, model, version) if MANIFEST in sizes else None
    if manifest is None or (manifest.model, manifest.version) != (model, version):
        return None
    return manifest if all(sizes.get(file.path) == file.size for file in manifest.files) else None


async def read_manifest(store: ObjectStore, model: str, version: int) -> Manifest | None:
    """Return a version's manifest, whole or not; None if it has none that can be read."""
    try:
        return Manifest.from_json(await s3.read(store, version_prefix(model, version) + MANIFEST))
    except (FileNotFoundError, Permanent):
        return None


async def read_verified(store: ObjectStore, manifest: Manifest, file: File) -> bytes:
    """Return a file of a version.

    Raises:
        Permanent: if it is not there, or not what the manifest says.

    """
    key = version_prefix(manifest.model, manifest.version) + file.path
    try:
        content = await s3.read(store, key)
    except FileNotFoundError as exc:
        raise Permanent(f"{key} is missing") from exc
    return verified(content, file, key)


async def signature_of(store: ObjectStore, model: str, version: int) -> bytes | None:
    """Return the content of a version's `model.sig`, if it has one."""
    try:
        return await s3.read(store, version_prefix(model, version) + SIGNATURE)
    except FileNotFoundError:
        return None


def verified(content: bytes, file: File, name: str) -> bytes:
    """Return the content of a file of a version.

    Raises:
        Permanent: if it is not what the manifest says; the message has the `name`.

    """
    if len(content) != file.size or hashlib.sha256(content).hexdigest() != file.sha256:
        raise Permanent(f"{name} is not what its manifest says")
    return content


async def write(
    store: ObjectStore,
    manifest: Manifest,
    read: Read,
    written: Collection[File] = frozenset(),
    signature: bytes | None = None,
) -> None:
    """Write a whole version into a bucket: its entry file after the other files, the manifest last.

    Who finds it there goes on with the current trace, by the manifest's metadata. Files that are `written`
    already are left out. The signature is that of `model.sig`, if there is one.
    """
    prefix = version_prefix(manifest.model, manifest.version)
    for is_entry in (False, True):
        files = [file for file in manifest.files if (file.path in ENTRY_FILES) is is_entry]
        await write_files(store, prefix, [file for file in files if file not in written], read)
    if signature is not None:
        await s3.write(store, prefix + SIGNATURE, signature)
    await s3.write(store, prefix + MANIFEST, manifest.to_json(), tracing.headers())


async def write_files(store: ObjectStore, prefix: str, files: Iterable[File], read: Read) -> None:
    """Write files of a version, some side by side."""
    places = asyncio.Semaphore(AT_ONCE)

    async def put(file: File) -> None:
        async with places:
            await s3.write(store, prefix + file.path, await read(file))

    try:
        async with asyncio.TaskGroup() as puts:
            for file in files:
                puts.create_task(put(file))
    except ExceptionGroup as several:
        raise several.exceptions[0] from several


async def offer(ready: ObjectStore, manifest: Manifest, read: Read, signature: bytes | None) -> None:
    """Write a whole version into `E-ready`, then name it there."""
    await write(ready, manifest, read, signature=signature)
    await name(ready, manifest)


async def name(ready: ObjectStore, manifest: Manifest) -> None:
    """Name a version in the index of `E-ready`; best effort: without it the version is found later."""
    try:
        await model_index.add(ready, manifest.model, manifest.version, manifest.to_json())
    except CaravanError as exc:
        prefix = version_prefix(manifest.model, manifest.version)
        log.warning("version not named in the index; it is found later", key=prefix, error=str(exc))


@dataclass(frozen=True)
class Claim:
    """A version number that is taken, before any of its files is there.

    Attributes:
        attempt: who took it: the id of an attempt at training, or `rollback-<version>`,
            or the id of an upload.
        run: id of the run that took it; None if nobody noted it.
        created: ISO 8601 time, UTC; the manifest's, so that a repeat writes the same bytes.

    """

    version: int
    attempt: str
    created: str
    run: str | None = None

    @classmethod
    def from_json(cls, raw: bytes) -> Self:
        """Read a claim; raises Permanent if it is none."""
        try:
            body = strict_json.loads_object(raw)
            run = body.get("run")
            return cls(
                int(body["version"]),
                str(body["attempt"]),
                str(body["created"]),
                None if run is None else str(run),
            )
        except (ValueError, KeyError, TypeError) as exc:
            raise Permanent(f"a claim cannot be read: {exc!r}") from exc


async def claims(store: ObjectStore, model: str) -> list[Claim]:
    """Return every claim, in the order of versions."""
    keys = [claim_key(model, stem) for stem in await _claimed(store, model)]
    found = [Claim.from_json(raw) for raw in await asyncio.gather(*(s3.read(store, key) for key in keys))]
    return sorted(found, key=lambda taken: taken.version)


async def highest(stores: Stores, model: str) -> int:
    """Return the highest number that a version has, or a claim on one; of a group, at any member, too."""
    numbers = [
        *[model_index.version_number(stem) or 0 for stem in await _claimed(stores.models, model)],
        *await model_index.numbers(stores.models, model),
        *await model_index.numbers(stores.ready, model),
    ]

    async def ask(member: Stores) -> None:
        numbers.append(await highest(member, model))

    await for_each(stores.members, ask, at_once=EDGES_AT_ONCE)
    return max(numbers, default=0)


async def run_of(store: ObjectStore, model: str, version: int) -> str | None:
    """Return the run that took a version's number, if that is noted in `E-models`."""
    try:
        return Claim.from_json(await s3.read(store, claim_key(model, str(version)))).run
    except (FileNotFoundError, Permanent):
        return None


async def claim(stores: Stores, model: str, attempt: str, run: str | None = None) -> Claim:
    """Take the next version number, see `highest`.

    Raises:
        Transient: if others take every number that is tried.

    """
    for _ in range(ATTEMPTS):
        number = await highest(stores, model) + 1
        mine = Claim(number, attempt, times.now(), run)
        key = claim_key(model, str(number))
        if await s3.create(stores.models, key, json.dumps(asdict(mine), sort_keys=True).encode()):
            return mine
    raise Transient("others take every version number that is tried")


async def forget_claim(store: ObjectStore, model: str, version: int) -> None:
    """Remove the claim on a number whose version is gone; newer ones keep it from being taken again."""
    await s3.delete(store, [claim_key(model, str(version))])


async def _claimed(store: ObjectStore, model: str) -> list[str]:
    """Return the numbers that claims are named for."""
    keys = [entry["path"] async for entry in s3.listing(store, f"{CLAIMS}{model}/")]
    return [PurePosixPath(key).stem for key in keys]
