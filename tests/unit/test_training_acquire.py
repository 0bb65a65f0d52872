"""Images are downloaded once and counted by what they are."""

import hashlib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from obstore.store import MemoryStore

from caravan import s3
from caravan.errors import Transient
from caravan.images import MAX_BYTES
from caravan.testing.stores import Requests
from caravan.withdrawn import tombstone_key
from training.acquire import ImageCache, acquire
from training.dataset import Dataset
from training.stores import Stores


@pytest.fixture
def cache(tmp_path: Path) -> ImageCache:
    return ImageCache(tmp_path)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Requests:
    """What is downloaded."""
    return Requests(monkeypatch, s3, "read")


def edge1(store: MemoryStore) -> Stores:
    return Stores(store, MemoryStore(), MemoryStore(), "edge1")


async def fill(store: MemoryStore, **images: bytes) -> None:
    for name, content in images.items():
        await s3.write(store, f"images/{name.replace('__', '/')}.jpg", content)


async def test_copies_within_a_class_count_once(cache: ImageCache) -> None:
    store = MemoryStore()
    await fill(store, a__1=b"one", a__2=b"one", a__3=b"two", b__1=b"three")
    seen: list[tuple[int, int]] = []
    dataset = await acquire(edge1(store), cache, lambda done, of: seen.append((done, of)))
    assert [name for name, _ in dataset.members] == ["a", "a", "b"]
    assert seen[-1] == (4, 4)
    for _, sha in dataset.members:
        assert cache.path(sha).exists()


async def test_when_a_photo_was_taken_is_noted_once(cache: ImageCache, reads: Requests) -> None:
    store = MemoryStore()
    await s3.write(store, "images/a/2024-01-24_09-53-44-111.jpg", b"one")
    await s3.write(store, "images/a/b.jpg", b"two")
    one = hashlib.sha256(b"one").hexdigest()
    for _ in range(2):
        dataset = await acquire(edge1(store), cache, lambda *_: None)
        assert dataset.taken == {one: datetime(2024, 1, 24, 9, 53, 44, tzinfo=UTC).timestamp()}
        assert Dataset.from_json(dataset.to_json()).taken == dataset.taken
    assert len(reads.keys) == 2


async def test_a_bucket_that_is_missing_may_come(cache: ImageCache, monkeypatch: pytest.MonkeyPatch) -> None:
    async def missing(*_: object) -> None:
        raise FileNotFoundError("there is no bucket edge1-data")

    monkeypatch.setattr(s3, "listed", missing)
    with pytest.raises(Transient, match="edge1 is missing"):
        await acquire(edge1(MemoryStore()), cache, lambda *_: None)


async def test_what_was_withdrawn_is_not_learnt_from_and_not_kept(cache: ImageCache) -> None:
    store = MemoryStore()
    await fill(store, a__1=b"one", a__2=b"two", b__2=b"two", a__3=b"three")
    one, two = (hashlib.sha256(content).hexdigest() for content in (b"one", b"two"))
    await acquire(edge1(store), cache, lambda *_: None)
    await s3.write(store, tombstone_key(one), b"")
    await s3.write(store, tombstone_key(two, "a"), b"")

    for _ in range(2):
        dataset = await acquire(edge1(store), cache, lambda *_: None)
        assert [name for name, _ in dataset.members] == ["a", "b"]
        await s3.delete(store, ["images/a/1.jpg"])
    assert not cache.path(one).exists()
    assert cache.path(two).exists()
    await s3.write(store, tombstone_key(two, "b"), b"")
    await acquire(edge1(store), cache, lambda *_: None)
    assert not cache.path(two).exists()


async def test_what_is_there_is_not_downloaded_again_and_what_changed_is(
    cache: ImageCache, reads: Requests
) -> None:
    store = MemoryStore()
    await fill(store, a__1=b"one", b__1=b"two")
    first = await acquire(edge1(store), cache, lambda *_: None)
    reads.keys.clear()
    assert await acquire(edge1(store), cache, lambda *_: None) == first
    assert reads.keys == []
    await fill(store, a__1=b"changed", b__2=b"new")
    changed = await acquire(edge1(store), cache, lambda *_: None)
    assert sorted(reads.keys) == ["images/a/1.jpg", "images/b/2.jpg"]
    assert changed.digest != first.digest


async def test_a_cached_image_that_was_cut_off_is_downloaded_again(
    cache: ImageCache, reads: Requests
) -> None:
    store = MemoryStore()
    await fill(store, a__1=b"a whole image", b__1=b"two")
    first = await acquire(edge1(store), cache, lambda *_: None)
    cache.path(first.members[0][1]).write_bytes(b"a wh")
    reads.keys.clear()
    assert await acquire(edge1(store), cache, lambda *_: None) == first
    assert reads.keys == ["images/a/1.jpg"]
    assert cache.path(first.members[0][1]).read_bytes() == b"a whole image"


async def test_what_is_no_image_of_a_class_is_ignored_and_counted(cache: ImageCache) -> None:
    store = MemoryStore()
    await fill(store, a__1=b"one", b__1=b"two", a__deep__3=b"three", loose=b"four", a__empty=b"")
    await s3.write(store, "images/a/huge.jpg", b"x" * (MAX_BYTES + 1))
    await s3.write(store, "uploads/a/1.json", b"{}")
    dataset = await acquire(edge1(store), cache, lambda *_: None)
    assert len(dataset.members) == 2
    assert dataset.ignored == 4


async def test_an_image_deleted_meanwhile_is_ignored(cache: ImageCache, reads: Requests) -> None:
    store = MemoryStore()
    await fill(store, a__1=b"one", a__2=b"gone", b__1=b"two")
    reads.fail(FileNotFoundError("gone"), where=lambda key: key == "images/a/2.jpg")
    dataset = await acquire(edge1(store), cache, lambda *_: None)
    assert len(dataset.members) == 2
    assert dataset.ignored == 1
