"""What consumes Kafka, with a real broker: what fails holds back nothing else; dead letters sent again."""

import asyncio
import hashlib
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import pytest_asyncio
import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from PIL import Image

import delivery.app
import feeder.app
from caravan import dead_letters, kafka, kafka_topics
from caravan.contracts import data_bucket
from caravan.replay import GROUP, replay
from caravan.runtime import Service
from caravan.s3 import listing, open_bucket
from caravan.settings import KafkaSettings
from delivery.settings import DeliverySettings
from feeder.settings import FeederSettings
from local_stack.stack import Stack
from support.files import as_file
from support.refusing import hanging_listener, refusing_bucket


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def broker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """A broker, and the store that it keeps its log in; each test has topics of its own."""
    async with Stack(
        tmp_path_factory.mktemp("broker"), parts=("s3-central", "kafka"), lasting=False
    ) as stack:
        yield stack


@asynccontextmanager
async def running(service: Service) -> AsyncIterator[None]:
    """Run a service's loops."""
    async with asyncio.timeout(120), asyncio.TaskGroup() as group:
        tasks = [group.create_task(_run(loop), name=name) for name, loop in service.loops.items()]
        yield
        for task in tasks:
            task.cancel()


async def _run(loop: Callable[[], Awaitable[None]]) -> None:
    await loop()


async def committed(address: str, topic: str, group: str) -> int:
    reader = AIOKafkaConsumer(bootstrap_servers=address, group_id=group, enable_auto_commit=False)
    await reader.start()
    try:
        return await reader.committed(TopicPartition(topic, 0)) or 0
    finally:
        await reader.stop()


# --- what fails holds back nothing else -----------------------------------------------------------


def photo(shade: int) -> bytes:
    return as_file(Image.new("RGB", (24, 24), (shade, 0, 0)), "PNG")


async def test_while_one_edges_bucket_refuses_the_other_is_fed_and_offsets_go_on(
    broker: Stack, producer: Any, eventually: Any
) -> None:
    address = broker.s3("s3-central")
    refused = {data_bucket("edge1")}
    writer = await producer(broker.kafka)
    async with refusing_bucket(address.endpoint, refused) as endpoint:
        settings = FeederSettings(
            edges=("edge1", "edge2"),
            intake_seconds=0.2,
            retry_seconds=1,
            kafka_bootstrap_servers=broker.kafka,
            s3_central_endpoint=endpoint,
            s3_central_access_key=address.access_key,
            s3_central_secret_key=address.secret_key,
        )
        # Had the writer made the topic first, it would have as many partitions as the broker likes.
        await kafka_topics.ensure_topics(settings, feeder.app.INTAKE_TOPICS)
        async with feeder.app.wire(settings) as service, running(service):
            for number, edge in enumerate(["edge1", "edge2", "edge1", "edge2"]):
                headers = [("edgeId", edge.encode()), ("class", b"tea")]
                await writer.send_and_wait("training-images", photo(number), headers=headers)

            async def images(edge: str) -> int:
                store = open_bucket(address, data_bucket(edge))
                try:
                    return len([entry async for entry in listing(store, "images/")])
                except FileNotFoundError:  # not made yet
                    return 0

            async def the_other_is_fed() -> bool:
                done = await committed(broker.kafka, "training-images", settings.kafka_group)
                return await images("edge2") == 2 and done == 4

            await eventually(the_other_is_fed)
            assert await images("edge1") == 0
            async with httpx.AsyncClient(
                transport=httpx.ASGITransport(service.app), base_url="http://feeder"
            ) as client:
                assert (await client.get("/readyz")).status_code == 200, "one edge is no outage"
            refused.clear()

            async def all_are_fed() -> bool:
                return await images("edge1") == 2

            await eventually(all_are_fed)


async def test_while_the_listener_hangs_for_one_edge_the_runs_of_the_others_start(
    broker: Stack, producer: Any, eventually: Any
) -> None:
    asked: list[str] = []
    writer = await producer(broker.kafka)
    async with hanging_listener("edge1", asked) as listener:
        settings = DeliverySettings(
            kafka_bootstrap_servers=broker.kafka,
            kafka_group="delivery-of-a-test",
            eventlistener_url=listener,
            coalesce_seconds=0,
        )
        async with delivery.app.wire(settings) as service, running(service):
            await writer.send_and_wait("trigger", b"edge1")
            await eventually(lambda: "edge1" in asked)
            for edge in (b"edge7", b"edge8"):
                await writer.send_and_wait("trigger", edge)
            await eventually(lambda: {"edge7", "edge8"} <= set(asked), seconds=9)


# --- partitions -----------------------------------------------------------------------------------


async def test_a_topic_keeps_its_partitions_and_it_is_told_once_that_more_are_set(broker: Stack) -> None:
    settings = KafkaSettings(kafka_bootstrap_servers=broker.kafka)
    await kafka_topics.ensure_topics(settings, ["few", "narrow"])
    more = KafkaSettings(kafka_bootstrap_servers=broker.kafka, kafka_partitions="3,narrow=1")
    with structlog.testing.capture_logs() as lines:
        for _ in range(2):
            await kafka_topics.ensure_topics(more, ["few", "narrow", "new"])
    assert [(each["topic"], each["has"], each["set"]) for each in lines] == [("few", 1, 3)]
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.kafka)
    await admin.start()
    try:
        found = await admin.describe_topics(["few", "narrow", "new"])
    finally:
        await admin.close()
    assert {each["topic"]: len(each["partitions"]) for each in found} == {"few": 1, "narrow": 1, "new": 3}


# --- dead letters ---------------------------------------------------------------------------------


async def test_a_dead_letter_is_sent_again_as_it_first_came_and_only_once(
    broker: Stack, consumer: Any
) -> None:
    settings = KafkaSettings(kafka_bootstrap_servers=broker.kafka)
    await kafka_topics.ensure_topics(settings, ["once", "once-dead-letter"])
    async with kafka.Producer(settings) as producer, asyncio.timeout(120):
        await producer.send("once", b"edge9", key=b"k", headers={"batch": "b"})
        source = await consumer(broker.kafka, "once")
        await dead_letters.send_dead_letter(
            producer, "trigger-pipeline", await source.getone(), "no such edge"
        )

        letters = await consumer(broker.kafka, "once-dead-letter")
        letter = await letters.getone()
        assert letter.value == b"edge9"
        assert dict(letter.headers)["dead-letter-reason"] == b"no such edge"

        assert await replay(settings, "once", group="once") == 1
        again = await source.getone()
        assert (again.value, again.key, again.headers) == (b"edge9", b"k", (("batch", b"b"),))
        assert await committed(broker.kafka, "once-dead-letter", "once") == 1


async def test_a_message_too_large_to_be_kept_becomes_a_dead_letter_without_its_value_and_found_again(
    broker: Stack, consumer: Any, producer: Any
) -> None:
    small = KafkaSettings(kafka_bootstrap_servers=broker.kafka, kafka_max_message_bytes=1)
    settings = KafkaSettings(kafka_bootstrap_servers=broker.kafka)
    value = b"image" * 20_000
    await kafka_topics.ensure_topics(settings, ["large", "large-dead-letter"])
    async with kafka.Producer(small) as bounded, asyncio.timeout(120):
        headers = [("camera", b"\xff"), ("nothing", None)]
        await (await producer(broker.kafka)).send_and_wait("large", value, key=b"k", headers=headers)
        source = await consumer(broker.kafka, "large")
        await dead_letters.send_dead_letter(bounded, "detect-kafka", await source.getone(), "not an image")

        letter = await (await consumer(broker.kafka, "large-dead-letter")).getone()
        facts = dict(letter.headers)
        assert (letter.key, letter.value, facts["camera"]) == (b"k", None, b"\xff")
        assert facts["dead-letter-reason"] == b"not an image"
        assert facts["dead-letter-offset"] == b"0"
        assert facts["dead-letter-size"] == b"100000"
        assert facts["dead-letter-sha256"].decode() == hashlib.sha256(value).hexdigest()

        assert await replay(settings, "large", group="large") == 1
        again = await source.getone()
        assert (again.key, again.value, again.headers) == (b"k", value, tuple(headers))


async def test_letters_that_cannot_be_sent_hold_back_no_other_and_are_left_with_the_reason(
    broker: Stack, consumer: Any, producer: Any
) -> None:
    settings = KafkaSettings(kafka_bootstrap_servers=broker.kafka)
    writer = await producer(broker.kafka)
    await kafka_topics.ensure_topics(settings, ["some", "some-dead-letter"])

    async def letter(value: bytes | None, **facts: str) -> None:
        headers = [(f"dead-letter-{name}", text.encode()) for name, text in facts.items()]
        await writer.send_and_wait("some-dead-letter", value, key=b"k", headers=headers)

    await letter(b"first")
    await letter(None, sha256="0" * 64, partition="0", offset="999")
    await letter(None, sha256="0" * 64, partition="7", offset="0")
    await letter(None, sha256="0" * 64, offset="nowhere")
    await letter(bytes(100_000))
    await letter(b"last")
    status, said = await command(broker, "replay", "some", KAFKA_MAX_MESSAGE_BYTES="10")
    assert status == 1, said
    assert b"2 sent again, 4 left: " in said
    assert b"its message is gone from some/0/999" in said
    again = await consumer(broker.kafka, "some")
    assert [(await again.getone()).value for _ in range(2)] == [b"first", b"last"]

    # They wait for the next time, those before them do not.
    letters = await consumer(broker.kafka, "some-dead-letter")
    left = [await letters.getone() for _ in range(10)][6:]
    assert sorted(len(one.value or b"") for one in left) == [0, 0, 0, 100_000]
    assert all(dict(one.headers)["dead-letter-left"] for one in left)
    assert await committed(broker.kafka, "some-dead-letter", GROUP) == 6


async def test_a_topic_that_has_no_letters_is_not_made_by_asking_for_them(broker: Stack) -> None:
    assert await replay(KafkaSettings(kafka_bootstrap_servers=broker.kafka), "mistyped") == 0
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.kafka)
    await admin.start()
    try:
        assert not {"mistyped", "mistyped-dead-letter"} & set(await admin.list_topics())
    finally:
        await admin.close()


async def test_letters_are_found_however_long_it_takes_to_join(
    broker: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = KafkaSettings(kafka_bootstrap_servers=broker.kafka)
    await kafka_topics.ensure_topics(settings, ["late", "late-dead-letter"])
    async with kafka.Producer(settings) as producer:
        await producer.send("late-dead-letter", None)
    getmany = AIOKafkaConsumer.getmany
    empty = 2

    async def slow(self: AIOKafkaConsumer, *partitions: Any, **bounds: Any) -> Mapping[Any, Any]:
        nonlocal empty
        empty -= 1
        return {} if empty >= 0 else await getmany(self, *partitions, **bounds)

    monkeypatch.setattr(AIOKafkaConsumer, "getmany", slow)
    assert await replay(settings, "late", group="late") == 1


async def command(broker: Stack, *words: str, **environment: str) -> tuple[int | None, bytes]:
    """Run an operator's command; returns its status and what it said."""
    env = os.environ | {"KAFKA_BOOTSTRAP_SERVERS": broker.kafka} | environment
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "caravan", *words, env=env, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(90):
        _, said = await process.communicate()
    return process.returncode, said


@pytest.mark.parametrize("command", [["account"], ["replay", "trigger"]])
async def test_an_operators_command_says_in_one_line_what_is_away(command: list[str]) -> None:
    away = {"S3_CENTRAL_ENDPOINT": "http://127.0.0.1:1", "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "caravan", *command, env=os.environ | away, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(60):
        _, said = await process.communicate()
    assert process.returncode == 1
    assert b"Traceback" not in said
    assert b"127.0.0.1:1" in said
