"""feeder: labelled images from Kafka, with the object store in memory and Kafka played."""

import asyncio
import hashlib
import io
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
from aiokafka import ConsumerRecord, TopicPartition
from obstore.store import MemoryStore, ObjectStore
from PIL import Image

from caravan import s3
from caravan.errors import BadInput, Permanent, Transient
from caravan.receipts import Account, Receipt, account
from feeder import labels
from feeder.app import data_buckets
from feeder.checks import Labelled
from feeder.gathering import Gathering
from feeder.routes import feed, kafka_intake
from feeder.settings import FeederSettings

LIMITS = labels.ImageLimits(max_bytes=5000, max_pixels=10_000)


def photo(seed: int, kind: str = "JPEG", size: tuple[int, int] = (40, 30)) -> bytes:
    target = io.BytesIO()
    Image.new("RGB", size, (seed % 256, seed // 256 % 256, 99)).save(target, kind)
    return target.getvalue()


def message(
    value: bytes | None, key: bytes | None = None, offset: int = 0, partition: int = 0, **headers: Any
) -> ConsumerRecord:
    pairs = tuple((name, text.encode() if isinstance(text, str) else text) for name, text in headers.items())
    return ConsumerRecord("training-images", partition, offset, 0, 0, key, value, None, 0, 0, pairs)


# --- one message --------------------------------------------------------------------------------


def read(record: ConsumerRecord, *edges: str) -> tuple[str, Labelled]:
    return labels.read(record, edges or ("edge1", "edge2"), LIMITS)


DIGEST = hashlib.sha256(photo(1)).hexdigest()[:32]


@pytest.mark.parametrize(
    ("key", "headers", "place"),
    [
        (None, {"class": "tea"}, f"images/tea/{DIGEST}.jpg"),
        (None, {"label": "tea"}, f"images/tea/{DIGEST}.jpg"),
        (None, {"product": "Thé vert"}, f"images/Thé vert/{DIGEST}.jpg"),
        (None, {"class": "tea", "name": "a.jpg"}, "images/tea/a.jpg"),
        (None, {"class": "tea", "name": "a"}, "images/tea/a.jpg"),
        (None, {"class": "tea", "name": "a.PNG"}, "images/tea/a.PNG"),
        (b"tea/a.jpg", {}, "images/tea/a.jpg"),
        (b"tea/a", {}, "images/tea/a.jpg"),
        (b"tea/", {}, f"images/tea/{DIGEST}.jpg"),
        (b"coffee/a.jpg", {"class": "tea"}, "images/tea/a.jpg"),
        (b"a.jpg", {"class": "tea"}, "images/tea/a.jpg"),
        (b"till-1", {"class": "tea"}, f"images/tea/{DIGEST}.jpg"),
        (b"\xff\xfe", {"class": "tea"}, f"images/tea/{DIGEST}.jpg"),
    ],
)
def test_class_and_name_come_from_the_headers_else_the_key_else_the_content(
    key: bytes | None, headers: dict[str, Any], place: str
) -> None:
    edge, image = read(message(photo(1), key, edgeId="edge2", **headers))
    assert (edge, image.key, image.read()) == ("edge2", place, photo(1))
    assert image.media_type == "image/jpeg"


def test_where_one_edge_alone_is_configured_it_need_not_be_named() -> None:
    assert read(message(photo(1), b"tea/a"), "edge7")[0] == "edge7"


@pytest.mark.parametrize(
    ("value", "key", "headers", "reason"),
    [
        (photo(1), None, {"edge": "edge1"}, "no-class"),
        (photo(1), b"till-1", {"edge": "edge1", "class": ""}, "no-class"),
        (photo(1), b"tea/a", {}, "no-edge"),
        (photo(1), b"tea/a", {"edge": "edge9"}, "unknown-edge"),
        (photo(1), b"tea/a", {"edgeId": "../edge1"}, "unknown-edge"),
        (photo(1), b"tea/a", {"edge": b"\xff"}, "not-utf-8"),
        (photo(1), None, {"edge": "edge1", "class": "../tea"}, "bad-class"),
        (photo(1), b".hidden/a", {"edge": "edge1"}, "bad-class"),
        (photo(1), b"tea/a/b.jpg", {"edge": "edge1"}, "bad-name"),
        (photo(1), b"tea/..", {"edge": "edge1"}, "bad-name"),
        (photo(1), b"tea/a", {"edge": "edge1", "name": "a" * 300}, "bad-name"),
        (None, b"tea/a", {"edge": "edge1"}, "no-image"),
        (b"hello", b"tea/a", {"edge": "edge1"}, "not-an-image"),
        (photo(1, "PNG")[:-30], b"tea/a", {"edge": "edge1"}, "damaged-image"),
        (photo(1) + bytes(5000), b"tea/a", {"edge": "edge1"}, "too-large"),
        (photo(1, size=(200, 100)), b"tea/a", {"edge": "edge1"}, "too-many-pixels"),
    ],
)
def test_what_is_no_labelled_image_is_refused_with_a_reason(
    value: bytes | None, key: bytes | None, headers: dict[str, Any], reason: str
) -> None:
    with pytest.raises(BadInput) as refused:
        read(message(value, key, **headers))
    assert refused.value.reason == reason


# --- many messages ------------------------------------------------------------------------------


class Intake:
    """The route with a topic of one partition, which outlives it as Kafka would."""

    def __init__(self, *records: ConsumerRecord, fetch: int = 100) -> None:
        self.records = list(records)
        self.fetch = fetch
        self.committed = 0
        self.stores: dict[str, ObjectStore] = {"edge1": MemoryStore(), "edge2": MemoryStore()}
        self.sent: list[tuple[str, bytes | None, dict[str, str]]] = []
        self.aside: list[tuple[int, str]] = []
        self.away: list[Exception] = []

    async def run(self, until: Callable[[], bool], **gathering: Any) -> None:
        """Run from the committed offset until something holds; then the process is gone."""
        task = asyncio.create_task(self.intake(**gathering))
        async with asyncio.timeout(20):
            while not until() and not task.done():
                await asyncio.sleep(0.002)
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled() and (error := task.exception()):
            raise error

    async def intake(self, count: int = 100, seconds: float = 0.02, size: int = 10**6) -> None:
        self.position = self.committed
        prepared = asyncio.Event()
        prepared.set()
        settings = FeederSettings(edges=("edge1", "edge2"), retry_seconds=0.05)
        await kafka_intake(
            self,
            Gathering(count, seconds, size),
            check=self.check,
            feed=partial(
                feed, buckets=data_buckets(settings, self.stores, prepared), sender=self, retry_seconds=0.05
            ),
            put_aside=self.put_aside,
        )

    async def getmany(
        self, *, timeout_ms: int, max_records: int
    ) -> dict[TopicPartition, Sequence[ConsumerRecord]]:
        taken = self.records[self.position : self.position + min(self.fetch, max_records)]
        self.position += len(taken)
        if not taken:
            await asyncio.sleep(timeout_ms / 1000)
            return {}
        return {TopicPartition("training-images", 0): taken}

    async def commit(self, offsets: dict[TopicPartition, int]) -> None:
        (self.committed,) = offsets.values()

    async def check(self, record: ConsumerRecord) -> tuple[str, Labelled]:
        return await asyncio.to_thread(labels.read, record, tuple(self.stores), LIMITS)

    async def put_aside(self, record: ConsumerRecord, reason: str, code: str = "refused") -> None:
        self.aside.append((record.offset, code))

    async def send(
        self, topic: str, value: bytes | None, *, key: bytes | None = None, headers: Any = None
    ) -> None:
        if topic == "trigger" and self.away:
            raise self.away.pop(0)
        self.sent.append((topic, value, dict(headers or {})))

    @property
    def triggers(self) -> list[tuple[bytes | None, str]]:
        return [(value, facts["files"]) for topic, value, facts in self.sent if topic == "trigger"]

    async def images(self, edge: str = "edge1") -> list[str]:
        return sorted([entry["path"] async for entry in s3.listing(self.stores[edge], "images/")])

    async def account(self, edge: str = "edge1") -> Account:
        store = self.stores[edge]
        receipts = [await s3.read(store, entry["path"]) async for entry in s3.listing(store, "uploads/")]
        return account((Receipt.from_json(raw) for raw in receipts), await self.images(edge))


def labelled(count: int, edge: str = "edge1", start: int = 0) -> list[ConsumerRecord]:
    return [message(photo(n), b"tea/%d.jpg" % n, offset=n, edgeId=edge) for n in range(start, start + count)]


async def test_a_batch_is_fed_when_it_is_full_and_the_rest_when_it_is_old() -> None:
    intake = Intake(*labelled(7))
    await intake.run(lambda: intake.committed == 7, count=3)
    assert intake.triggers == [(b"edge1", "3"), (b"edge1", "3"), (b"edge1", "1")]
    assert await intake.images() == [f"images/tea/{n}.jpg" for n in range(7)]
    books = await intake.account()
    assert (books.captured, books.stored, books.adds_up) == (7, 7, True)
    assert sum(topic == "edge1" for topic, _, _ in intake.sent) == 7 + 3


async def test_each_edge_has_its_own_batch() -> None:
    intake = Intake(*labelled(3), *labelled(2, "edge2", start=3))
    await intake.run(lambda: intake.committed == 5)
    assert sorted(intake.triggers) == [(b"edge1", "3"), (b"edge2", "2")]
    assert len(await intake.images("edge1")) == 3
    assert len(await intake.images("edge2")) == 2


async def test_a_batch_closes_early_when_its_bytes_are_enough() -> None:
    size = len(photo(0))
    intake = Intake(*labelled(4), fetch=4)
    await intake.run(lambda: len(intake.triggers) == 2, count=100, seconds=60, size=2 * size)
    assert intake.triggers == [(b"edge1", "2"), (b"edge1", "2")]


async def test_what_waits_is_not_committed_but_what_is_fed_before_it_is() -> None:
    intake = Intake(*labelled(2), *labelled(4, "edge2", start=2))
    await intake.run(lambda: bool(intake.triggers), count=4, seconds=60)
    assert (intake.triggers, intake.committed) == ([(b"edge2", "4")], 0)

    intake = Intake(*labelled(4, "edge2"), *labelled(2, start=4))
    await intake.run(lambda: intake.committed > 0, count=4, seconds=60)
    assert (intake.triggers, intake.committed) == ([(b"edge2", "4")], 4)


async def test_what_is_no_labelled_image_is_put_aside_and_the_rest_goes_on() -> None:
    records = labelled(4)
    records[1] = message(b"no image", b"tea/x", offset=1, edgeId="edge1")
    records[2] = message(photo(2), offset=2, edgeId="edge1")
    intake = Intake(*records)
    await intake.run(lambda: intake.committed == 4)
    assert intake.aside == [(1, "not-an-image"), (2, "no-class")]
    assert await intake.images() == ["images/tea/0.jpg", "images/tea/3.jpg"]
    assert (await intake.account()).adds_up


async def test_a_message_that_breaks_our_own_code_is_put_aside_and_the_rest_goes_on() -> None:
    class Broken(Intake):
        async def check(self, record: ConsumerRecord) -> tuple[str, Labelled]:
            if record.offset == 1:
                raise ZeroDivisionError
            return await super().check(record)

    intake = Broken(*labelled(3))
    await intake.run(lambda: intake.committed == 3)
    assert intake.aside == [(1, "unexpected")]
    assert len(await intake.images()) == 2


@pytest.mark.parametrize("error", [Transient("Kafka is away"), Permanent("not allowed")])
async def test_cut_off_before_the_trigger_the_same_images_come_again_and_each_is_stored_once(
    error: Exception,
) -> None:
    intake = Intake(*labelled(5))
    intake.away = [error] * 20
    with pytest.raises(Transient):
        await intake.run(lambda: False)
    assert intake.committed == 0
    books = await intake.account()
    assert (books.captured, books.pending, books.adds_up) == (5, 5, True)

    intake.away = []
    await intake.run(lambda: intake.committed == 5)
    assert intake.triggers == [(b"edge1", "5")]
    books = await intake.account()
    assert (books.captured, books.stored, books.pending, books.adds_up) == (5, 5, 0, True)


async def test_images_gathered_otherwise_the_second_time_still_add_up() -> None:
    intake = Intake(*labelled(5))
    intake.away = [Transient("away")] * 20
    with pytest.raises(Transient):
        await intake.run(lambda: False, count=3)
    intake.away = []
    await intake.run(lambda: intake.committed == 5, count=2)
    books = await intake.account()
    assert (books.stored, books.pending, books.adds_up) == (5, 0, True)
    assert len(await intake.images()) == 5


async def test_if_the_dead_letter_cannot_be_written_nothing_is_committed() -> None:
    class Away(Intake):
        async def put_aside(self, record: ConsumerRecord, reason: str, code: str = "refused") -> None:
            raise Transient("Kafka is away")

    intake = Away(message(b"", b"tea/x", edgeId="edge1"))
    with pytest.raises(Transient):
        await intake.run(lambda: False)
    assert intake.committed == 0
