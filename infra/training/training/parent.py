"""The version that serves now, asked about the same held-out images."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import structlog
from obstore.store import ObjectStore

from caravan.errors import Permanent
from caravan.manifest import Manifest
from training import versions
from training.dataset import Member
from training.embeddings import Array
from training.evaluate import Answer, answers_of
from training.head import Head
from training.workspace import HEAD

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
    by_path = {file.path: file for file in manifest.files}
    if manifest.lineage.metrics.get("backbone") == backbone and HEAD in by_path:
        head = Head.from_bytes(await versions.read_verified(ready, manifest, by_path[HEAD]))
        return Parent(manifest.version, head, {})
    return Parent(manifest.version, None, await _files(ready, manifest))


async def _files(ready: ObjectStore, manifest: Manifest) -> dict[str, bytes]:
    return {
        file.path: await versions.read_verified(ready, manifest, file)
        for file in manifest.files
        if not file.path.startswith("report/")
    }


def ask(parent: Parent, members: Sequence[Member], features: Array, images: Sequence[Path]) -> list[Answer]:
    """Return the parent's answers on held-out members, with their features [N, F] and files, in order.

    Raises:
        Permanent: if it does not load, or does not answer.

    """
    truths = [(sha, name) for name, sha in members]
    if parent.head is not None:
        return answers_of(parent.head.probabilities(features), parent.head.classes, truths)
    with tempfile.TemporaryDirectory(prefix="caravan-parent-") as directory:
        for path, content in parent.files.items():
            target = Path(directory, path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        return _asked(parent.version, Path(directory), truths, images)


def _asked(
    version: int, directory: Path, truths: Sequence[tuple[str, str]], images: Sequence[Path]
) -> list[Answer]:
    """Ask a SavedModel of our contract, made by anyone, one image at a time."""
    import tensorflow as tf  # noqa: PLC0415 - our own versions are asked without it

    from caravan.graphs.session import GraphSession, Limits  # noqa: PLC0415 - as above

    answers = []
    try:
        signature = GraphSession.load(directory, Limits()).signatures["serving_default"]
        for (sha, truth), image in zip(truths, images, strict=True):
            (answer,) = signature.call({"image_b64": np.array([image.read_bytes()], object)}).values()
            label, probability = answer.reshape(-1)
            answers.append(Answer(sha, truth, label.decode(), float(probability.decode())))
    except (tf.errors.OpError, OSError, KeyError, ValueError, TypeError) as exc:
        raise Permanent(f"version {version} does not answer: {exc}") from exc
    return answers
