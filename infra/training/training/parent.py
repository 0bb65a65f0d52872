"""The version that serves now, asked about the same held-out images."""

import asyncio
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog
from obstore.store import ObjectStore

from caravan.contracts import HEAD, SAVED_MODEL, TWIN
from caravan.errors import Permanent
from caravan.manifest import Manifest
from caravan.members import FACT, Role, members_key, read_members
from training import versions
from training.dataset import Member
from training.embeddings import FEATURES, Wanted
from training.evaluate import Answer, answers_of
from training.head import Array, Head
from training.holdout import HeldOut
from training.stores import Stores
from training.trial import Job
from training.trials import tried

log = structlog.get_logger()


@dataclass(frozen=True)
class Parent:
    """A version, and its head if the embeddings of this backbone fit it; else its files."""

    version: int
    head: Head | None
    files: Mapping[str, bytes]


async def newest(ready: ObjectStore, model: str, backbone: str) -> Parent | None:
    """Fetch the newest complete version of `E-ready`, every byte verified; None if there is none.

    Raises:
        Transient: if the store is away.
        Permanent: if the version is not what its manifest says.

    """
    manifest = await versions.newest_complete(ready, model)
    if manifest is None:
        return None
    found = await _head(ready, manifest, backbone)
    return Parent(manifest.version, found, await _files(ready, manifest) if found is None else {})


async def head(ready: ObjectStore, model: str, backbone: str) -> Head | None:
    """Fetch the head of the newest complete version of `E-ready`; None if it has none that fits here.

    Raises:
        Transient: if the store is away.
        Permanent: if the head is not what the version's manifest says.

    """
    manifest = await versions.newest_complete(ready, model)
    return None if manifest is None else await _head(ready, manifest, backbone)


async def _head(ready: ObjectStore, manifest: Manifest, backbone: str) -> Head | None:
    file = next((file for file in manifest.files if file.path == HEAD), None)
    if file is None or manifest.lineage.metrics.get("backbone") != backbone:
        return None
    raw = await versions.read_verified(ready, manifest, file)
    try:
        return Head.from_bytes(raw)
    except Permanent as exc:
        log.info("the head is of another form: the model itself is asked", error=str(exc))
        return None


async def _files(ready: ObjectStore, manifest: Manifest) -> dict[str, bytes]:
    return {
        file.path: await versions.read_verified(ready, manifest, file)
        for file in manifest.files
        if file.path != TWIN and not file.path.startswith("report/")
    }


async def seen(stores: Stores, model: str) -> dict[Member, Role] | None:
    """Return the images that the version that serves was made of; None if it does not say so.

    One that was sent was made of none of them.

    Raises:
        Transient: if the store is away.

    """
    manifest = await versions.newest_complete(stores.ready, model)
    digest = None if manifest is None else manifest.lineage.metrics.get(FACT)
    if manifest is None or (digest is None and manifest.lineage.data_digest is None):
        return {}
    if not isinstance(digest, str):
        return None
    lines = read_members(stores.models, members_key(model, manifest.version), digest)
    try:
        return {(item, sha): role async for role, item, sha in lines}
    except (FileNotFoundError, Permanent) as exc:
        log.warning("nobody knows of what the parent was made", version=manifest.version, error=str(exc))
        return None


async def learnt(stores: Stores, model: str) -> frozenset[str] | None:
    """Return the SHA-256 of what the version that serves learnt from; None if it does not say so."""
    members = await seen(stores, model)
    if members is None:
        return None
    return frozenset(sha for (_, sha), role in members.items() if role == "learnt")


async def ask(parent: Parent, out: HeldOut, seconds: float) -> list[Answer]:
    """Return the parent's answers on held-out images, in order.

    A version of another backbone may be anyone's, so it is asked in a trial, with `seconds` to load. One of
    this backbone is asked as where it serves: what is blurrier than all that it learnt from is sharpened.

    Raises:
        Permanent: if it does not load, or does not answer.

    """
    if parent.head is not None:
        features = await asyncio.to_thread(_as_served, parent.head, out)
        return answers_of(parent.head.probabilities(features), parent.head.names, out.truths)
    with tempfile.TemporaryDirectory(prefix="caravan-parent-") as folder:
        directory = Path(folder, "model")
        await asyncio.to_thread(_write, directory, parent.files)
        images = tuple(str(path.absolute()) for path in out.files)
        found = await tried(Job(str(directory), SAVED_MODEL, contract=True, images=images), seconds)
    if found.fault is not None or len(found.answers) != len(images):
        raise Permanent(f"version {parent.version} does not answer: {found.fault or 'it left images out'}")
    return [
        Answer(sha, truth, label, probability)
        for (sha, truth), (label, probability) in zip(out.truths, found.answers, strict=True)
    ]


def _as_served(head: Head, out: HeldOut) -> Array:
    """Return the features, [N, F], by which a head answers where it serves."""
    blurred = [at for at, sharpness in enumerate(out.sharpness) if sharpness < head.blurriest[0]]
    if not blurred:
        return out.features
    from training.embedder import Embedder  # noqa: PLC0415 - where it is needed, which is seldom

    wanted = [Wanted(out.judged[at].sha256, out.files[at], (0,)) for at in blurred]
    features = out.features.copy()
    for at, found in zip(blurred, Embedder(head.blurriest)(wanted), strict=True):
        if not isinstance(found, str):
            features[at] = found[0, :FEATURES]
    return features


def _write(directory: Path, files: Mapping[str, bytes]) -> None:
    for path, content in files.items():
        target = directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
