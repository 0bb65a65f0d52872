"""feeder: labelled images from Kafka, with the object store in memory and Kafka played."""

import asyncio
import hashlib
from collections.abc import Callable
from functools import partial
from typing import Any

import obstore
import pytest
from aiokafka import ConsumerRecord, TopicPartition
from obstore.store import MemoryStore, ObjectStore
from PIL import Image

from caravan import images, s3
from caravan.dead_letters import park
from caravan.errors import BadInput, Permanent, Transient
from caravan.receipts import Account, Receipt, account
from caravan.testing.kafka import Kafka, Sent, Topic, record
from feeder import labels
from feeder.app import data_buckets
from feeder.checks import Batch, Labelled
from feeder.gathering import as_batch
from feeder.routes import Fed, IntakePorts, feed, kafka_intake, parked_intake
from feeder.settings import FeederSettings
from support.files import as_file

BOUNDS = images.ImageBounds(max_bytes=5000, max_pixels=10_000)


async def verified(content: bytes) -> images.ImageInfo:
    return images.verify(content, BOUNDS)


def photo(seed: int, kind: str = "JPEG", size: tuple[int, int] = (40, 30)) -> bytes:
    return as_file(Image.new("RGB", size, (seed % 256, seed // 256 % 256, 99)), kind)


def message(
    value: bytes | None, key: bytes | None = None, offset: int = 0, partition: int = 0, **headers: Any
) -> ConsumerRecord:
    pairs = tuple((name, text.encode() if isinstance(text, str) else text) for name, text in headers.items())
    return record(value, key=key, headers=pairs, topic="training-images", partition=partition, offset=offset)


# --- one message --------------------------------------------------------------------------------


def read(record: ConsumerRecord, *edges: str) -> tuple[str, Labelled]:
    return asyncio.run(labels.read(record, edges or ("edge1", "edge2"), verified))


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


class Intake(Topic):
    """The route with its topic, and that of what is parked; each edge has a store in memory."""

    def __init__(self, *records: ConsumerRecord, fetch: int = 100) -> None:
        super().__init__("training-images", *records, fetch=fetch)
        self.parked = Topic("training-images-retry")
        self.stores: dict[str, ObjectStore] = {"edge1": MemoryStore(), "edge2": MemoryStore()}
        self.kafka = Kafka(self.parked)
        self.refusing: dict[str, Exception] = {}
        self.hanging: set[str] = set()
        self.tried: list[str] = []

    async def until(self, committed: int, **settings: Any) -> None:
        await self.fed(lambda: self.offset == committed, **settings)

    async def fed(self, until: Callable[[], bool], **settings: Any) -> None:
        """Run from the committed offset until something holds; then the process is gone."""
        settings = {"intake_seconds": 0.02, "retry_seconds": 0.05} | settings
        how = FeederSettings(edges=("edge1", "edge2"), **settings)
        await self.run(kafka_intake(self, self.ports(how), how), until)

    async def again(self, until: Callable[[], bool], **settings: Any) -> None:
        """Run the route of what is parked."""
        how = FeederSettings(edges=("edge1", "edge2"), **({"retry_seconds": 0.05} | settings))
        await self.parked.run(parked_intake(self.parked, self.ports(how), how), until)

    def ports(self, settings: FeederSettings) -> IntakePorts:
        missing = {edge: asyncio.Event() for edge in self.stores}
        buckets = data_buckets(settings, self.stores, missing)
        store = partial(feed, buckets=buckets, producer=self.kafka, retry_seconds=settings.retry_seconds)

        async def feed_unless_it_refuses(edge: str, batch: Batch) -> Fed:
            self.tried.append(edge)
            if edge in self.hanging:
                await asyncio.Event().wait()
            if edge in self.refusing:
                raise self.refusing[edge]
            return await store(edge, batch)

        return IntakePorts(self.check, feed_unless_it_refuses, self.send_dead_letter, self.park)

    async def check(self, message: ConsumerRecord) -> tuple[str, Labelled]:
        return await labels.read(message, tuple(self.stores), verified)

    async def park(self, message: ConsumerRecord) -> None:
        if self.refuses is not None:
            raise self.refuses
        await park(self.kafka, self.parked.name, message)  # type: ignore[arg-type]

    @property
    def triggers(self) -> list[tuple[bytes | None, str]]:
        return [(message.value, message.headers["files"]) for message in self.kafka.to("trigger")]

    async def images(self, edge: str = "edge1") -> list[str]:
        return sorted([entry["path"] async for entry in s3.listing(self.stores[edge], "images/")])

    async def account(self, edge: str = "edge1") -> Account:
        store = self.stores[edge]
        receipts = [await s3.read(store, entry["path"]) async for entry in s3.listing(store, "uploads/")]
        return account((Receipt.from_json(raw) for raw in receipts), await self.images(edge))


def is_trigger(message: Sent) -> bool:
    return message.topic == "trigger"


def labelled(count: int, edge: str = "edge1", start: int = 0) -> list[ConsumerRecord]:
    return [message(photo(n), b"tea/%d.jpg" % n, offset=n, edgeId=edge) for n in range(start, start + count)]


async def test_a_batch_is_fed_when_it_is_full_and_the_rest_when_it_is_old() -> None:
    intake = Intake(*labelled(7))
    await intake.until(7, intake_count=3)
    assert intake.triggers == [(b"edge1", "3"), (b"edge1", "3"), (b"edge1", "1")]
    assert await intake.images() == [f"images/tea/{n}.jpg" for n in range(7)]
    books = await intake.account()
    assert (books.captured, books.stored, books.adds_up) == (7, 7, True)
    assert len(intake.kafka.to("edge1")) == 7 + 3


async def test_each_edge_has_its_own_batch() -> None:
    intake = Intake(*labelled(3), *labelled(2, "edge2", start=3))
    await intake.until(5)
    assert sorted(intake.triggers) == [(b"edge1", "3"), (b"edge2", "2")]
    assert len(await intake.images("edge1")) == 3
    assert len(await intake.images("edge2")) == 2


async def test_a_batch_closes_early_when_its_bytes_are_enough() -> None:
    intake = Intake(*labelled(4), fetch=4)
    size = 4 * 2 * len(photo(0))
    await intake.fed(lambda: len(intake.triggers) == 2, intake_seconds=60, intake_bytes=size)
    assert intake.triggers == [(b"edge1", "2"), (b"edge1", "2")]


async def test_what_waits_is_not_committed_but_what_is_fed_before_it_is() -> None:
    intake = Intake(*labelled(2), *labelled(4, "edge2", start=2))
    await intake.fed(lambda: bool(intake.triggers), intake_count=4, intake_seconds=60)
    assert (intake.triggers, intake.offset) == ([(b"edge2", "4")], 0)

    intake = Intake(*labelled(4, "edge2"), *labelled(2, start=4))
    await intake.fed(lambda: intake.offset > 0, intake_count=4, intake_seconds=60)
    assert (intake.triggers, intake.offset) == ([(b"edge2", "4")], 4)


async def test_what_is_no_labelled_image_becomes_a_dead_letter_and_the_rest_goes_on() -> None:
    records = labelled(4)
    records[1] = message(b"no image", b"tea/x", edgeId="edge1")
    records[2] = message(photo(2), edgeId="edge1")
    intake = Intake(*records)
    await intake.until(4)
    assert sorted(code for _, _, code in intake.aside) == ["no-class", "not-an-image"]
    assert await intake.images() == ["images/tea/0.jpg", "images/tea/3.jpg"]
    assert (await intake.account()).adds_up


async def test_a_message_that_breaks_our_own_code_becomes_a_dead_letter_and_the_rest_goes_on() -> None:
    class Broken(Intake):
        async def check(self, record: ConsumerRecord) -> tuple[str, Labelled]:
            if record.offset == 1:
                raise ZeroDivisionError
            return await super().check(record)

    intake = Broken(*labelled(3))
    await intake.until(3)
    assert [(value, code) for value, _, code in intake.aside] == [(photo(1), "unexpected")]
    assert len(await intake.images()) == 2


@pytest.mark.parametrize("error", [Transient("Kafka is away"), Permanent("not allowed")])
async def test_cut_off_before_the_trigger_the_same_images_come_again_and_each_is_stored_once(
    error: Exception,
) -> None:
    intake = Intake(*labelled(5))
    intake.kafka.fail(error, where=is_trigger)
    intake.refuses = Transient("Kafka is away")
    with pytest.raises(Transient):
        await intake.fed(lambda: False, intake_count=5, intake_seconds=60)
    assert intake.offset == 0
    books = await intake.account()
    assert (books.captured, books.pending, books.adds_up) == (5, 5, True)

    intake.kafka.mend()
    intake.refuses = None
    await intake.until(5, intake_count=5, intake_seconds=60)
    assert intake.triggers == [(b"edge1", "5")]
    books = await intake.account()
    assert (books.captured, books.stored, books.pending, books.adds_up) == (5, 5, 0, True)


async def test_images_gathered_otherwise_the_second_time_still_add_up() -> None:
    intake = Intake(*labelled(5))
    intake.kafka.fail(Transient("away"), where=is_trigger)
    intake.refuses = Transient("Kafka is away")
    with pytest.raises(Transient):
        await intake.fed(lambda: False, intake_count=3)
    intake.kafka.mend()
    intake.refuses = None
    await intake.until(5, intake_count=2)
    books = await intake.account()
    assert (books.stored, books.pending, books.adds_up) == (5, 0, True)
    assert len(await intake.images()) == 5


async def test_if_the_dead_letter_cannot_be_written_nothing_is_committed() -> None:
    intake = Intake(message(b"", b"tea/x", edgeId="edge1"))
    intake.refuses = Transient("Kafka is away")
    with pytest.raises(Transient):
        await intake.fed(lambda: False)
    assert intake.offset == 0


# --- a bucket that refuses ------------------------------------------------------------------------


@pytest.mark.parametrize("error", [Transient("no answer"), Permanent("check the access key")])
async def test_while_one_edges_bucket_refuses_the_other_is_fed_and_all_is_committed(
    error: Exception,
) -> None:
    intake = Intake(*labelled(3), *labelled(2, "edge2", start=3), *labelled(2, start=5))
    intake.refusing["edge1"] = error
    await intake.until(7)
    assert intake.triggers == [(b"edge2", "2")]
    assert intake.aside == []

    intake.refusing.clear()
    await intake.again(lambda: intake.parked.offset == 5)
    assert len(await intake.images()) == 5
    books = await intake.account()
    assert (books.captured, books.stored, books.adds_up) == (5, 5, True)


async def test_while_one_edges_bucket_hangs_and_its_images_go_on_coming_the_other_is_fed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("feeder.routes.PATIENCE_SECONDS", 0.05)
    intake = Intake(*labelled(200), *labelled(2, "edge2", start=200))
    intake.hanging = {"edge1"}
    where = TopicPartition(intake.parked.name, 0)
    parked = intake.parked.records.setdefault(where, [])
    await intake.fed(lambda: bool(intake.triggers) and len(parked) >= 180, intake_count=10)
    assert intake.triggers == [(b"edge2", "2")]
    assert intake.tried.count("edge1") == 1
    # One batch is on its way and one waits, of ten images or what came in time.
    assert 180 <= len(parked) <= 198


async def test_an_image_that_goes_on_being_refused_is_parked_again_then_a_dead_letter() -> None:
    intake = Intake(*labelled(1), *labelled(1, "edge2", start=1))
    intake.refusing["edge1"] = Transient("edge1-data refuses")
    await intake.until(2)
    parked = intake.parked.records[TopicPartition(intake.parked.name, 0)]
    await intake.again(lambda: len(parked) >= 3)
    assert intake.aside == []
    facts = dict(parked[2].headers)
    assert facts["caravan-parked-since"] == dict(parked[0].headers)["caravan-parked-since"]
    assert (facts["caravan-parked-topic"], facts["caravan-parked-offset"]) == (b"training-images", b"0")

    await intake.again(lambda: bool(intake.aside), intake_max_age_seconds=0.06)
    assert {(value, reason, code) for value, reason, code in intake.aside} == {
        (photo(0), "edge1-data refuses", "away")
    }


async def test_a_parked_image_that_fails_holds_back_no_other() -> None:
    intake = Intake(*labelled(1), *labelled(3, "edge2", start=1))
    intake.refusing = {"edge1": Transient("edge1-data refuses"), "edge2": Transient("edge2-data refuses")}
    await intake.until(4)
    del intake.refusing["edge2"]
    await intake.again(lambda: len(intake.triggers) == 3)
    assert len(await intake.images("edge2")) == 3


async def test_an_edge_whose_buckets_are_not_made_yet_waits_alone() -> None:
    settings = FeederSettings(edges=("edge1", "edge2"), retry_seconds=0.01)
    missing = {"edge1": asyncio.Event(), "edge2": asyncio.Event()}
    missing["edge1"].set()
    buckets = data_buckets(settings, dict.fromkeys(missing, MemoryStore()), missing)
    with pytest.raises(Transient, match="not made yet"):
        await buckets.begin("edge1", as_batch([]))
    assert (await buckets.begin("edge2", as_batch([]))).state == "pending"


async def test_a_bucket_that_hangs_leaves_the_memory_that_the_others_need(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put = obstore.put_async
    hanging = MemoryStore()

    async def put_unless_it_hangs(store: ObjectStore, key: str, *content: Any, **more: Any) -> Any:
        if store is hanging and key.startswith("images/"):
            await asyncio.Event().wait()
        return await put(store, key, *content, **more)

    monkeypatch.setattr(obstore, "put_async", put_unless_it_hangs)
    settings = FeederSettings(edges=("edge1", "edge2"), store_buffer_bytes=100)
    stores: dict[str, ObjectStore] = {"edge1": hanging, "edge2": MemoryStore()}
    buckets = data_buckets(settings, stores, {edge: asyncio.Event() for edge in stores})
    images = [
        Labelled(key, key, hashlib.sha256(b"ten bytes.").hexdigest(), 10, "image/png", lambda: b"ten bytes.")
        for key in (f"images/tea/{number}.png" for number in range(20))
    ]
    stuck = asyncio.create_task(buckets.store("edge1", as_batch(images), lambda: None))
    await asyncio.sleep(0)
    try:
        async with asyncio.timeout(10):
            placed = await buckets.store("edge2", as_batch(images), lambda: None)
    finally:
        stuck.cancel()
    assert {image.outcome for image in placed} == {"stored"}
