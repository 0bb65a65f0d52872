"""shopper: no image that was answered is lost, whatever the object store does."""

import asyncio
import errno
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.store import MemoryStore

from caravan import s3
from caravan.errors import Transient, Unavailable
from caravan.testing.waiting import running, until
from shopper.ports import Capture
from shopper.storage.image_store import BufferedImageStore, key
from shopper.storage.spool import ImageSpool

AT = datetime(2026, 11, 21, 9, 5, 3, 7_999, tzinfo=UTC)
KEY = "images/tea-green/2026-11-21_09-05-03-007.jpg"
MANY = 10**6


def capture(
    image: bytes = b"image", item: str = "tea-green", facts: Mapping[str, str] | None = None
) -> Capture:
    return Capture("valid", item, image, AT, facts or {})


class Switch:
    """The store's main switch: while it is off, making buckets and every put fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.on = True
        self.hangs = False
        self.puts = 0
        self.bucket = True
        put = obstore.put_async

        async def switched_put(*args: Any, **kwargs: Any) -> Any:
            self.puts += 1
            if self.hangs:
                await asyncio.sleep(60)
            if not self.on:
                raise obstore.exceptions.GenericError("connection refused")
            if not self.bucket:
                raise FileNotFoundError
            return await put(*args, **kwargs)

        monkeypatch.setattr(obstore, "put_async", switched_put)

    async def make_buckets(self) -> None:
        if not self.on:
            raise Transient("connection refused")
        self.bucket = True


@pytest.fixture
def switch(monkeypatch: pytest.MonkeyPatch) -> Switch:
    return Switch(monkeypatch)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


async def opened(tmp_path: Path, max_bytes: int = MANY) -> ImageSpool:
    return await ImageSpool.opened(tmp_path / "spool", max_bytes)


def image_store(
    store: MemoryStore, switch: Switch, spool: ImageSpool, within: float = 2
) -> BufferedImageStore:
    return BufferedImageStore({"valid": store}, switch.make_buckets, spool, within)


@asynccontextmanager
async def draining(image_store: BufferedImageStore) -> AsyncIterator[None]:
    async with running(image_store.drain()):
        yield


def keys(store: MemoryStore) -> list[str]:
    return sorted(entry["path"] for page in obstore.list(store) for entry in page)


async def until_empty(spool: ImageSpool) -> None:
    await until(lambda: not len(spool))


async def test_an_image_is_kept_under_its_item_and_time_with_its_facts(
    tmp_path: Path, store: MemoryStore, switch: Switch
) -> None:
    await image_store(store, switch, await opened(tmp_path)).keep(capture(facts={"label": "tea-green"}))
    result = obstore.get(store, KEY)
    assert bytes(result.bytes()) == b"image"
    assert result.attributes == {"Content-Type": "image/jpeg", "label": "tea-green"}


async def test_two_images_in_one_millisecond_are_both_kept(
    tmp_path: Path, store: MemoryStore, switch: Switch
) -> None:
    kept = image_store(store, switch, await opened(tmp_path))
    await asyncio.gather(kept.keep(capture(b"one")), kept.keep(capture(b"two")))
    assert keys(store) == [KEY, KEY.replace("-007", "-008")]
    assert {bytes(obstore.get(store, name).bytes()) for name in keys(store)} == {b"one", b"two"}


async def test_a_clock_that_was_ahead_once_names_no_later_image(
    tmp_path: Path, store: MemoryStore, switch: Switch
) -> None:
    kept = image_store(store, switch, await opened(tmp_path))
    ahead = replace(capture(b"ahead"), at=capture().at.replace(year=2096))
    for image in (ahead, capture(b"one"), capture(b"two")):
        await kept.keep(image)
    assert [name for name in keys(store) if "2096" not in name] == [KEY, KEY.replace("-007", "-008")]


async def test_an_image_of_another_process_in_the_same_millisecond_is_not_overwritten(
    tmp_path: Path, store: MemoryStore, switch: Switch
) -> None:
    obstore.put(store, KEY, b"theirs")
    await image_store(store, switch, await opened(tmp_path)).keep(capture(b"ours"))
    ours, theirs = keys(store)
    assert (theirs, bytes(obstore.get(store, theirs).bytes())) == (KEY, b"theirs")
    assert bytes(obstore.get(store, ours).bytes()) == b"ours"


@pytest.mark.parametrize(
    ("item", "folder"),
    [("Green Tea", "Green Tea"), ("../up", "_up"), ("a/b\n", "a_b"), ("", "_"), ("thé", "thé")],
)
def test_a_class_of_any_name_makes_a_safe_key(item: str, folder: str) -> None:
    assert key(capture(item=item)).split("/")[1:-1] == [folder]


async def test_while_the_store_is_away_images_wait_on_disk_and_follow(
    tmp_path: Path, store: MemoryStore, switch: Switch
) -> None:
    spool = await opened(tmp_path)
    kept = image_store(store, switch, spool)
    switch.on = False
    for image in (b"one", b"two", b"three"):
        await kept.keep(capture(image, facts={"score": "0.9"}))
    assert (len(spool), keys(store)) == (3, [])
    async with draining(kept):
        switch.on = True
        await until_empty(spool)
    assert len(keys(store)) == 3
    assert obstore.get(store, KEY).attributes["score"] == "0.9"
    assert list((tmp_path / "spool").iterdir()) == []


async def test_a_store_that_hangs_holds_up_the_first_sender_alone(
    tmp_path: Path, store: MemoryStore, switch: Switch
) -> None:
    spool = await opened(tmp_path)
    kept = image_store(store, switch, spool, within=0.1)
    switch.hangs = True
    async with asyncio.timeout(20):
        for image in (b"one", b"two", b"three"):
            await kept.keep(capture(image))
    assert (len(spool), switch.puts) == (3, 1)


async def test_a_bucket_that_vanished_is_made_again_and_the_images_follow(
    tmp_path: Path, store: MemoryStore, switch: Switch
) -> None:
    spool = await opened(tmp_path)
    kept = image_store(store, switch, spool)
    async with draining(kept):
        await kept.keep(capture(b"one"))
        switch.bucket = False
        await kept.keep(capture(b"two"))
        await until_empty(spool)
    assert len(keys(store)) == 2


async def test_what_an_earlier_process_left_in_the_spool_follows(
    tmp_path: Path, store: MemoryStore, switch: Switch
) -> None:
    switch.on = False
    await image_store(store, switch, await opened(tmp_path)).keep(capture(b"line\nline"))
    (tmp_path / "spool" / "half.part").write_bytes(b"cut off")
    switch.on = True
    spool = await opened(tmp_path)
    assert len(spool) == 1
    async with draining(image_store(store, switch, spool)):
        await until_empty(spool)
    assert bytes(obstore.get(store, KEY).bytes()) == b"line\nline"
    assert list((tmp_path / "spool").iterdir()) == []


async def test_a_crash_between_store_and_spool_makes_no_second_object(
    tmp_path: Path, store: MemoryStore, switch: Switch
) -> None:
    spool = await opened(tmp_path)
    await spool.add(capture())
    await image_store(store, switch, spool).keep(capture())
    async with draining(image_store(store, switch, spool)):
        await until_empty(spool)
    assert keys(store) == [KEY]


async def test_a_full_spool_refuses_and_keeps_what_it_has(
    tmp_path: Path, store: MemoryStore, switch: Switch
) -> None:
    spool = await opened(tmp_path, max_bytes=1000)
    kept = image_store(store, switch, spool)
    switch.on = False
    await kept.keep(capture(bytes(600)))
    with pytest.raises(Unavailable, match="full") as caught:
        await kept.keep(capture(bytes(601)))
    assert caught.value.status == 507
    async with draining(kept):
        switch.on = True
        await until_empty(spool)
    await kept.keep(capture(bytes(602)))
    assert len(keys(store)) == 2


async def test_what_is_refused_counts_until_someone_removes_it(tmp_path: Path) -> None:
    spool = await opened(tmp_path, 1000)
    for _ in range(2):
        await spool.add(capture(bytes(300)))
    for _ in range(2):
        name, _ = await spool.oldest()
        await spool.refuse(name, "refused")
    for again in (spool, await opened(tmp_path, 1000)):
        with pytest.raises(Unavailable, match="full"):
            await again.add(capture(bytes(300)))
    for file in (tmp_path / "spool").iterdir():
        file.unlink()
    await spool.add(capture(bytes(300)))


async def test_a_spool_that_cannot_be_written_refuses(
    tmp_path: Path, store: MemoryStore, switch: Switch
) -> None:
    spool = await opened(tmp_path)
    (tmp_path / "spool").rmdir()
    switch.on = False
    with pytest.raises(Unavailable, match="cannot be written"):
        await image_store(store, switch, spool).keep(capture())


async def test_a_damaged_file_in_the_spool_does_not_hold_up_the_others(
    tmp_path: Path, store: MemoryStore, switch: Switch
) -> None:
    spool = await opened(tmp_path)
    await spool.add(capture(b"damaged"))
    (damaged,) = (tmp_path / "spool").iterdir()
    damaged.write_bytes(damaged.read_bytes()[:-3])
    await spool.add(capture(b"whole"))
    async with draining(image_store(store, switch, spool)):
        await until_empty(spool)
    assert bytes(obstore.get(store, KEY).bytes()) == b"whole"
    assert [path.suffix for path in (tmp_path / "spool").iterdir()] == [".damaged"]


@pytest.mark.parametrize(
    "odd",
    [
        {"at": 7.5e40},
        {"facts": ["a"]},
        {"facts": {"camera": 1}},
        {"facts": {"camera": "\N{BELL}"}},
        {"item": None},
    ],
)
async def test_a_file_of_odd_facts_in_the_spool_does_not_hold_up_the_others(
    tmp_path: Path, store: MemoryStore, switch: Switch, odd: dict[str, Any]
) -> None:
    spool = await opened(tmp_path)
    await spool.add(capture(b"odd"))
    (file,) = (tmp_path / "spool").iterdir()
    head, _, image = file.read_bytes().partition(b"\n")
    file.write_bytes(json.dumps(json.loads(head) | odd).encode() + b"\n" + image)
    await spool.add(capture(b"whole"))
    async with draining(image_store(store, switch, spool)):
        await until_empty(spool)
    assert bytes(obstore.get(store, KEY).bytes()) == b"whole"
    assert [path.suffix for path in (tmp_path / "spool").iterdir()] == [".damaged"]


async def test_an_image_for_a_bucket_that_is_none_is_refused(
    tmp_path: Path, store: MemoryStore, switch: Switch
) -> None:
    spool = await opened(tmp_path)
    await spool.add(replace(capture(b"odd"), bucket="of a later version"))
    await spool.add(capture(b"whole"))
    async with draining(image_store(store, switch, spool)):
        await until_empty(spool)
    assert keys(store) == [KEY]
    assert [path.suffix for path in (tmp_path / "spool").iterdir()] == [".refused"]


async def test_a_spool_that_cannot_be_emptied_is_tried_again(
    tmp_path: Path, store: MemoryStore, switch: Switch, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlink, fails = Path.unlink, [OSError(errno.EROFS, "read-only")]

    def first_fails(path: Path, *how: Any, **more: Any) -> None:
        if path.suffix == ".image" and fails:
            raise fails.pop()
        unlink(path, *how, **more)

    monkeypatch.setattr(Path, "unlink", first_fails)
    spool = await opened(tmp_path)
    await spool.add(capture())
    async with draining(image_store(store, switch, spool)):
        await until_empty(spool)
    assert keys(store) == [KEY]


async def test_an_image_that_the_store_refuses_for_its_own_sake_holds_up_no_other(
    tmp_path: Path, store: MemoryStore, switch: Switch, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = s3.put_new

    async def refuses(where: Any, key_: str, content: bytes, *more: Any) -> s3.Placed:
        if content == b"refused":
            raise s3.Unstorable("S3 does not take it: MetadataTooLarge")
        return await real(where, key_, content, *more)

    monkeypatch.setattr(s3, "put_new", refuses)
    spool = await opened(tmp_path)
    kept = image_store(store, switch, spool)
    await kept.keep(capture(b"refused"))
    await kept.keep(capture(b"whole"))
    assert len(keys(store)) == 1, "the circuit stays closed"
    await spool.add(capture(b"later"))
    async with draining(kept):
        await until_empty(spool)
    assert len(keys(store)) == 2
    assert [path.suffix for path in (tmp_path / "spool").iterdir()] == [".refused"]
