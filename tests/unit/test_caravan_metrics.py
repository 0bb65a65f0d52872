"""What `/metrics` shows of what waits: Kafka's lag, the MQTT outbox, a store that is spared, triggers."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import obstore
import pytest
from aiokafka import ConsumerRecord, TopicPartition
from fastapi import FastAPI
from obstore.store import MemoryStore

from caravan import http, kafka
from caravan.errors import Transient
from caravan.mqtt import OUTBOX, Mqtt
from caravan.settings import MqttSettings
from caravan.testing.kafka import Topic
from delivery.routes import policy, trigger_pipeline
from feeder.checks import Labelled
from feeder.routes import IntakePorts, kafka_intake
from feeder.settings import FeederSettings
from shopper.ports import Capture
from shopper.storage.image_store import BufferedImageStore
from shopper.storage.spool import ImageSpool


class Page:
    """The page that Prometheus reads."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def value(self, series: str) -> float | None:
        text = (await self._client.get("/metrics")).text
        found = re.search(rf"^{re.escape(series)} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else None

    async def until(self, series: str, right: Callable[[float | None], bool]) -> None:
        async with asyncio.timeout(10):
            while not right(await self.value(series)):
                await asyncio.sleep(0.005)


@pytest.fixture
async def page() -> AsyncIterator[Page]:
    app = FastAPI()
    http.install(app, {})
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        yield Page(client)


# --- Kafka --------------------------------------------------------------------------------------


class Consumer:
    """A consumer as far as its lag goes: where each partition ends, and where it is."""

    def __init__(self, **partitions: tuple[int | None, int]) -> None:
        self.partitions = partitions

    def assignment(self) -> frozenset[TopicPartition]:
        return frozenset(TopicPartition(topic, 0) for topic in self.partitions)

    def highwater(self, partition: TopicPartition) -> int | None:
        return self.partitions[partition.topic][0]

    async def position(self, partition: TopicPartition) -> int:
        if partition.topic == "stuck":
            await asyncio.Event().wait()
        return self.partitions[partition.topic][1]


def lag(topic: str) -> str:
    return f'caravan_kafka_lag{{group="g",partition="0",topic="{topic}"}}'


async def test_lag_is_what_a_consumer_has_not_taken_of_each_partition_that_it_has(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka, "LAG_SECONDS", 0.01)
    client = Consumer(stuck=(9, 0), trigger=(12, 5), other=(3, 3), unknown=(None, 0))
    async with kafka.lag_told(client, "g"):
        await page.until(lag("trigger"), lambda value: value == 7)
        await page.until(lag("other"), lambda value: value == 0)
        assert await page.value(lag("unknown")) is None
        assert await page.value(lag("stuck")) is None
        client.partitions = {"trigger": (12, 12)}
        await page.until(lag("trigger"), lambda value: value == 0)
        await page.until(lag("other"), lambda value: value is None)
    assert await page.value(lag("trigger")) is None


# --- what waits -----------------------------------------------------------------------------------


async def test_events_that_wait_for_the_mqtt_broker_are_shown(page: Page) -> None:
    mqtt = Mqtt(MqttSettings())
    for _ in range(3):
        mqtt.post({"name": "detection"})
    assert await page.value("caravan_mqtt_outbox_messages") == 3
    for _ in range(OUTBOX):
        mqtt.post({"name": "detection"})
    assert await page.value("caravan_mqtt_outbox_messages") == OUTBOX


class Listener:
    """An EventListener that is away until it is not."""

    is_away = True

    async def start_run(self, _: str) -> str:
        if self.is_away:
            raise Transient("away")
        return "event"


async def test_triggers_that_wait_for_the_event_listener_are_shown(page: Page) -> None:
    async def never(*_: Any, **__: Any) -> None:
        raise AssertionError

    topic, listener = Topic("trigger", b"edge1"), Listener()
    route = trigger_pipeline(topic, listener, never, never, policy(3600), coalesce_seconds=0)
    async with topic.running(route):
        await page.until("caravan_triggers_waiting", lambda value: value == 1)
        listener.is_away = False
        await page.until("caravan_triggers_waiting", lambda value: value == 0)


async def test_images_from_kafka_that_wait_for_their_batch_are_shown(page: Page) -> None:
    image = Labelled("a.jpg", "images/tea/a.jpg", "0" * 64, 3, "image/jpeg", lambda: b"...")
    fed = asyncio.Event()

    async def check(_: ConsumerRecord) -> tuple[str, Labelled]:
        return "edge1", image

    async def feed(*_: Any) -> Any:
        fed.set()

    async def never(*_: Any, **__: Any) -> None:
        raise AssertionError

    topic = Topic("training-images", b"...", b"...")
    ports, settings = (
        IntakePorts(check, feed, never, never),
        FeederSettings(intake_count=3, intake_seconds=60),
    )
    async with topic.running(kafka_intake(topic, ports, settings)):
        await page.until("caravan_feeder_gathered_images", lambda value: value == 2)
        topic.send(b"...")
        await page.until("caravan_feeder_gathered_images", lambda value: value == 0)
    assert fed.is_set()


async def test_a_store_that_is_spared_is_shown_until_it_is_back(
    page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: Any, **__: Any) -> None:
        raise obstore.exceptions.GenericError("connection refused")

    async def make_buckets() -> None: ...

    series = 'caravan_circuit_open{dependency="s3"}'
    spool = await ImageSpool.opened(tmp_path / "spool", 10**6)
    image_store = BufferedImageStore({"valid": MemoryStore()}, make_buckets, spool, within=2)
    with monkeypatch.context() as away:
        away.setattr(obstore, "put_async", fail)
        await image_store.keep(Capture("valid", "tea", b"photo", datetime.now(UTC), {}))
    assert await page.value(series) == 1
    task = asyncio.create_task(image_store.drain())
    await page.until(series, lambda value: value == 0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
