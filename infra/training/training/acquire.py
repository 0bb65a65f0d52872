"""Step acquire: what images an edge has, each downloaded once and kept by its SHA-256."""

import asyncio
import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from obstore.store import ObjectStore

from caravan import s3, strict_json
from caravan.contracts import IMAGES, image_of
from caravan.images import MAX_BYTES
from caravan.moments import taken_at
from caravan.withdrawn import Withdrawn, read_withdrawn
from training.dataset import Dataset
from training.stores import write_file, write_json

AT_ONCE = 16
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ImageCache:
    """Images on disk, `images/<2 hex>/<SHA-256>`, and of what SHA-256 and moment an object was at an ETag."""

    directory: Path

    def path(self, sha256: str) -> Path:
        """Where an image is, or would be."""
        return self.directory / "images" / sha256[:2] / sha256

    def has(self, sha256: str, size: int) -> bool:
        """Tell whether an image of so many bytes is there; one cut off by a power failure is not."""
        path = self.path(sha256)
        return path.exists() and path.stat().st_size == size

    def forget(self, withdrawn: Collection[str]) -> None:
        """Remove images that must not be kept, by their SHA-256."""
        for sha256 in withdrawn:
            self.path(sha256).unlink(missing_ok=True)

    def index(self, edge: str) -> Path:
        """Where the ETags of an edge's objects are noted."""
        return self.directory / "etags" / f"{edge}.json"


@dataclass(frozen=True)
class _Object:
    key: str
    name: str
    etag: str
    size: int


async def acquire(store: ObjectStore, cache: ImageCache, edge: str, progress: Progress) -> Dataset:
    """Bring the cache up to date with `E-data` and return what is there, without what was withdrawn.

    Raises:
        Transient: if the store, or the bucket, is away; what was downloaded so far is kept.

    """
    objects: list[_Object] = []
    ignored = 0
    withdrawn, listed = await _listed(store, edge)
    for entry in listed:
        place = image_of(entry["path"])
        if place is None or not 0 < entry["size"] <= MAX_BYTES:
            ignored += 1
        else:
            objects.append(_Object(entry["path"], place[0], str(entry["e_tag"]), entry["size"]))
    known = await asyncio.to_thread(_read_index, cache.index(edge))
    shas: dict[str, str] = {}
    moments: dict[str, float | None] = {}
    for obj in objects:
        etag, sha, moment = known.get(obj.key, ("", "", None))
        if etag == obj.etag and cache.has(sha, obj.size):
            shas[obj.key], moments[obj.key] = sha, moment
    queue = iter([obj for obj in objects if obj.key not in shas])
    progress(len(shas), len(objects))

    async def download() -> None:
        nonlocal ignored
        for obj in queue:
            try:
                content = await s3.read(store, obj.key)
            except FileNotFoundError:
                ignored += 1  # Deleted since it was listed.
                continue
            shas[obj.key], moments[obj.key] = await asyncio.to_thread(_keep, cache, obj.key, content)
            progress(len(shas), len(objects))

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(download())
    except ExceptionGroup as group_error:
        raise group_error.exceptions[0] from group_error
    finally:
        index = {obj.key: [obj.etag, shas[obj.key], moments[obj.key]] for obj in objects if obj.key in shas}
        write_json(cache.index(edge), index)
    taken = [obj for obj in objects if obj.key in shas and not withdrawn.covers(obj.key, shas[obj.key])]
    await asyncio.to_thread(cache.forget, withdrawn.gone({shas[obj.key] for obj in taken}))
    ignored += len(index) - len(taken)
    dataset = Dataset.of(((obj.name, shas[obj.key]) for obj in taken), ignored)
    known_moments = {shas[obj.key]: at for obj in taken if (at := moments[obj.key]) is not None}
    return replace(dataset, taken=known_moments)


async def _listed(store: ObjectStore, edge: str) -> tuple[Withdrawn, Sequence[Mapping[str, Any]]]:
    try:
        return await read_withdrawn(store), await s3.listed(store, IMAGES)
    except FileNotFoundError as exc:
        raise s3.BucketMissing(f"the bucket with the data of {edge} is missing") from exc


def _keep(cache: ImageCache, key: str, content: bytes) -> tuple[str, float | None]:
    sha = hashlib.sha256(content).hexdigest()
    if not cache.has(sha, len(content)):
        write_file(cache.path(sha), content, durable=False)
    return sha, taken_at(key, content)


def _read_index(path: Path) -> dict[str, tuple[str, str, float | None]]:
    try:
        rows = strict_json.loads_object(path.read_bytes()).items()
        # Of what an earlier version noted nobody knows the moment.
        return {key: (row[0], row[1], row[2] if len(row) > 2 else None) for key, row in rows}  # noqa: PLR2004
    except (FileNotFoundError, ValueError, TypeError, LookupError):
        return {}  # Only a shortcut: without it everything is downloaded again.
