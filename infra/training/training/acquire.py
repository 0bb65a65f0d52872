"""Step acquire: what images an edge has, or a group, each downloaded once and kept by its SHA-256."""

import asyncio
import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from obstore.store import ObjectStore

from caravan import s3, strict_json
from caravan.concurrency import for_each
from caravan.contracts import IMAGES, image_of
from caravan.files import write_file
from caravan.images import MAX_BYTES
from caravan.moments import taken_at
from caravan.withdrawn import Withdrawn, read_withdrawn
from training.dataset import Dataset, Member
from training.stores import EDGES_AT_ONCE, Stores, write_json

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


@dataclass
class _Source:
    """What an edge's bucket has, and as far as it is known already, of what content and moment."""

    edge: str
    store: ObjectStore
    objects: list[_Object]
    ignored: int
    withdrawn: Withdrawn
    aside: frozenset[str]
    shas: dict[str, str] = field(default_factory=dict)
    moments: dict[str, float | None] = field(default_factory=dict)

    def recall(self, cache: ImageCache) -> None:
        known = _read_index(cache.index(self.edge))
        for obj in self.objects:
            etag, sha, moment = known.get(obj.key, ("", "", None))
            if etag == obj.etag and cache.has(sha, obj.size):
                self.shas[obj.key], self.moments[obj.key] = sha, moment

    def note(self, cache: ImageCache) -> None:
        there = [obj for obj in self.objects if obj.key in self.shas]
        index = {obj.key: [obj.etag, self.shas[obj.key], self.moments[obj.key]] for obj in there}
        write_json(cache.index(self.edge), index)


async def acquire(stores: Stores, cache: ImageCache, progress: Progress) -> Dataset:
    """Bring the cache up to date with `E-data` and return what is there, without what was withdrawn.

    Of a group the images of all its members are one dataset; what was withdrawn at one, is at all of them.
    Products that other edges have for themselves are left aside.

    Raises:
        Transient: if the store, or a bucket, is away; what was downloaded so far is kept.

    """
    sources: list[_Source] = []

    async def look(source: Stores) -> None:
        found = await _listed(source)
        await asyncio.to_thread(found.recall, cache)
        sources.append(found)

    await for_each(stores.sources, look, at_once=EDGES_AT_ONCE)
    sources.sort(key=lambda source: source.edge)
    queue = [(one, obj) for one in sources for obj in one.objects if obj.key not in one.shas]
    every = sum(len(one.objects) for one in sources)
    done = every - len(queue)
    progress(done, every)

    async def download(each: tuple[_Source, _Object]) -> None:
        nonlocal done
        source, obj = each
        try:
            content = await s3.read(source.store, obj.key)
        except FileNotFoundError:
            source.ignored += 1  # Deleted since it was listed.
            return
        found = await asyncio.to_thread(_keep, cache, obj.key, content)
        source.shas[obj.key], source.moments[obj.key] = found
        done += 1
        progress(done, every)

    try:
        await for_each(queue, download, at_once=AT_ONCE)
    finally:
        for source in sources:
            source.note(cache)
    return await asyncio.to_thread(_gathered, sources, cache)


def _gathered(sources: Sequence[_Source], cache: ImageCache) -> Dataset:
    """Make one dataset of what the edges have; of what was withdrawn nothing is kept."""
    withdrawn = Withdrawn.of_all(source.withdrawn for source in sources)
    members, taken, edges = list[Member](), dict[str, float](), dict[str, str]()
    aside = list[str]()
    for source in sources:
        for obj in source.objects:
            sha = source.shas.get(obj.key)
            if sha is None or withdrawn.covers(obj.key, sha):
                continue
            if obj.name in source.aside:
                aside.append(sha)
                continue
            members.append((obj.name, sha))
            edges.setdefault(sha, source.edge)
            moment = source.moments[obj.key]
            if moment is not None and edges[sha] == source.edge:
                taken[sha] = moment
    cache.forget(withdrawn.gone({*(sha for _, sha in members), *aside}))
    objects = sum(len(source.shas) for source in sources)
    ignored = sum(source.ignored for source in sources) + objects - len(members) - len(aside)
    dataset = Dataset.of(members, ignored)
    return replace(dataset, others=len(aside), taken=taken, edges=edges if len(sources) > 1 else {})


async def _listed(stores: Stores) -> _Source:
    try:
        withdrawn, listed = await read_withdrawn(stores.data), await s3.listed(stores.data, IMAGES)
    except FileNotFoundError as exc:
        raise s3.BucketMissing(f"the bucket with the data of {stores.edge} is missing") from exc
    found = _Source(stores.edge, stores.data, [], 0, withdrawn, stores.aside)
    for entry in listed:
        place = image_of(entry["path"])
        if place is None or not 0 < entry["size"] <= MAX_BYTES:
            found.ignored += 1
        else:
            found.objects.append(_Object(entry["path"], place[0], str(entry["e_tag"]), entry["size"]))
    return found


def _keep(cache: ImageCache, key: str, content: bytes) -> tuple[str, float | None]:
    sha = hashlib.sha256(content).hexdigest()
    if not cache.has(sha, len(content)):
        write_file(cache.path(sha), content, durable=False)
    return sha, taken_at(key, content)


def _read_index(path: Path) -> dict[str, tuple[str, str, float | None]]:
    try:
        rows = strict_json.loads_object(path.read_bytes()).items()
        # An image that an earlier version noted has no known moment.
        return {key: (row[0], row[1], row[2] if len(row) > 2 else None) for key, row in rows}  # noqa: PLR2004
    except (FileNotFoundError, ValueError, TypeError, LookupError):
        return {}  # Only a shortcut: without it everything is downloaded again.
