"""Step publish: a version number, the files in their order, the manifest last, then the edge's bucket.

Killed anywhere and run again, the outcome is one version, whole: the number belongs to the attempt, the time
comes from the claim, and nobody acts on a version before its manifest is there.
"""

import asyncio
import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from caravan import holds, model_index, s3
from caravan.contracts import (
    ENTRY_FILES,
    Event,
    model_rejected_event,
    version_prefix,
)
from caravan.errors import Permanent
from caravan.holds import Hold
from caravan.manifest import File, Lineage, Manifest
from caravan.members import FACT, members_key
from caravan.signatures import PrivateKey, read_private_key, sign
from training import versions
from training.sharing import Announce, facts_of, ready_event, share, to_nobody
from training.stores import Stores

Key = PrivateKey | None
"""With what versions are signed, if they are."""


@dataclass(frozen=True)
class Published:
    """What became of a version.

    Attributes:
        manifest: the version's.
        offered: whether this call brought it to `E-ready`.
        held: the rollback that keeps it in `E-models`, though it passed; None if none does.

    """

    manifest: Manifest
    offered: bool
    held: Hold | None = None


@dataclass(frozen=True)
class Begun:
    """A version that is not judged yet, and those of its files that are in `E-models` already."""

    version: int
    files: frozenset[File]


def read_key(path: Path | None) -> Key:
    """Read the key that versions are signed with, if one is set."""
    return None if path is None else read_private_key(path)


async def begin(
    stores: Stores, model: str, attempt: str, files: Mapping[str, Path], run: str | None = None
) -> Begun:
    """Write files of a version, by their path within it, that is still being judged; see `publish`.

    Nobody acts on it before its manifest is there, and what makes it visible is not written yet either.

    Raises:
        Transient: if the store is away.

    """
    mine = await _claim(stores, model, attempt, run)
    hidden = {path: file for path, file in files.items() if path not in ENTRY_FILES}
    listed = frozenset([await asyncio.to_thread(_file, path, file) for path, file in hidden.items()])
    await versions.write_files(
        stores.models, version_prefix(model, mine.version), listed, partial(_read_from, files)
    )
    return Begun(mine.version, listed)


async def publish(
    stores: Stores,
    model: str,
    attempt: str,
    files: Mapping[str, Path],
    lineage: Lineage,
    *,
    key: Key,
    members: Path | None = None,
    begun: Begun | None = None,
    run: str | None = None,
) -> Published:
    """Publish files, by their path within the version, and what the version was made of.

    They go to `E-ready` only if the lineage says no rejection, and no rollback holds; the members stay in
    `E-models`. What `begin` has written under this attempt is not written again. `run` is the id of the run
    that makes it, for its `model.sig`.

    Raises:
        Transient: if the store is away; run it again.

    """
    mine = await _claim(stores, model, attempt, run)
    listed = tuple(sorted(_file(path, file) for path, file in files.items()))
    made_of = None if members is None else await asyncio.to_thread(members.read_bytes)
    told = {} if made_of is None else {FACT: hashlib.sha256(made_of).hexdigest()}
    manifest = Manifest(
        model,
        mine.version,
        listed,
        replace(lineage, created=mine.created, metrics=lineage.metrics | told),
        stores.edge,
        "passed" if lineage.rejected is None else "rejected",
    )

    written = begun.files if begun is not None and begun.version == mine.version else frozenset[File]()
    read = partial(_read_from, files)
    return await _write(stores, manifest, read, key, made_of, run=mine.run, written=written)


async def rollback(
    stores: Stores, model: str, to: int, key: Key, announce: Announce = to_nobody
) -> Published:
    """Publish an older version's files again, as the next version, past the gate; hold all others back.

    Raises:
        Permanent: if there is no such version, or it was rejected.

    """
    old = await versions.whole(stores.models, model, to)
    if old is None:
        there = ", ".join(map(str, await model_index.numbers(stores.models, model))) or "none"
        raise Permanent(f"there is no complete version {to} of {model} here, but {there}")
    if old.is_rejected:
        raise Permanent(f"version {to} was rejected: {old.lineage.rejected}")
    await holds.hold(stores.models, model, to)
    published = await publish_again(stores, old, key, past_hold=True)
    announce_outcome(stores, published, announce)
    await share(stores, model, key, announce)
    return published


async def publish_again(
    stores: Stores, old: Manifest, key: Key, run: str | None = None, *, past_hold: bool = False
) -> Published:
    """Publish a version's files again, as the next version, without a comparison.

    Raises:
        Permanent: if they are not what the version's manifest says.

    """
    mine = await _claim(stores, old.model, f"rollback-{old.version}", run, again=True)
    parent = await versions.newest_complete(stores.ready, old.model)
    lineage = replace(
        old.lineage,
        rollback_of=old.version,
        parent=parent.version if parent else None,
        created=mine.created,
    )
    manifest = replace(
        old, version=mine.version, lineage=lineage, edge=stores.edge, verdict="passed", signature=None
    )
    read = partial(versions.read_verified, stores.models, old)
    try:
        made_of = await s3.read(stores.models, members_key(old.model, old.version))
    except FileNotFoundError:
        made_of = None  # It was sent, or is older than this file.
    return await _write(stores, manifest, read, key, made_of, run=mine.run, past_hold=past_hold)


async def settle(
    stores: Stores, manifest: Manifest, *, read: versions.Read | None = None, past_hold: bool = False
) -> Published:
    """Bring a version that passed to `E-ready`, if it is not there yet and nothing holds.

    Its files are those in `E-models`, unless they are nearer: then they are what `read` returns.
    """
    if manifest.is_rejected:
        return Published(manifest, offered=False)
    if await versions.whole(stores.ready, manifest.model, manifest.version) == manifest:
        return Published(manifest, offered=False)
    held = None if past_hold else await holds.read_hold(stores.models, manifest.model)
    if held is None:
        stored = partial(versions.read_verified, stores.models, manifest)
        signature = await versions.signature_of(stores.models, manifest.model, manifest.version)
        await versions.offer(stores.ready, manifest, read or stored, signature)
    return Published(manifest, held is None, held)


async def is_newest(stores: Stores, model: str, version: int) -> bool:
    """Tell whether a version, once whole in `E-ready`, is the one that serves."""
    return version >= max(await model_index.numbers(stores.ready, model), default=0)


async def _claim(
    stores: Stores, model: str, attempt: str, run: str | None, *, again: bool = False
) -> versions.Claim:
    """Return the number that this attempt took before it was interrupted, or take one.

    What is done `again` needs another number than when it was done before; and what would not serve under its
    number, because newer versions came to `E-ready` meanwhile, needs another one too.
    """
    for taken in await versions.claims(stores.models, model):
        if taken.attempt != attempt:
            continue
        is_done = await versions.whole(stores.ready, model, taken.version) is not None
        if not again if is_done else await is_newest(stores, model, taken.version):
            return taken
    return await versions.claim(stores, model, attempt, run)


async def _write(
    stores: Stores,
    manifest: Manifest,
    read: versions.Read,
    key: Key,
    members: bytes | None,
    *,
    run: str | None,
    written: Collection[File] = frozenset(),
    past_hold: bool = False,
) -> Published:
    model, version = manifest.model, manifest.version
    whole = await versions.whole(stores.models, model, version)
    if whole is None:
        whole, signature = (manifest, None) if key is None else sign(manifest, key, run)
        if members is not None:
            await s3.write(stores.models, members_key(model, version), members)
        await versions.write(stores.models, whole, read, written, signature)
        return await settle(stores, whole, read=read, past_hold=past_hold)
    return await settle(stores, whole, past_hold=past_hold)


async def _read_from(files: Mapping[str, Path], file: File) -> bytes:
    content = await asyncio.to_thread(files[file.path].read_bytes)
    return versions.verified(content, file, file.path)


def _file(path: str, file: Path) -> File:
    content = file.read_bytes()
    return File(path, len(content), hashlib.sha256(content).hexdigest())


def outcome_event(published: Published) -> Event:
    """Return the event that tells what became of a version."""
    manifest, held = published.manifest, published.held
    model, version, lineage = manifest.model, manifest.version, manifest.lineage
    if lineage.rejected is not None:
        return model_rejected_event(model, version, lineage.rejected, **facts_of(lineage))
    if held is not None:
        return model_rejected_event(model, version, held.reason, held=True, **facts_of(lineage))
    return ready_event(manifest)


def announce_outcome(stores: Stores, published: Published, announce: Announce) -> None:
    """Tell what became of a version; members of a group are told that one is ready as they are offered it."""
    if not stores.members or published.manifest.is_rejected or published.held is not None:
        announce(outcome_event(published))
