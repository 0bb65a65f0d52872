"""Images on Kafka topics, sent and read by an ordinary client: to be answered, and to be learnt from."""

import asyncio
import io
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest
from kafka import KafkaConsumer, KafkaProducer
from PIL import Image

from caravan import kafka
from caravan.receipts import Account, Receipt, account
from caravan.s3 import listing, open_bucket, read
from caravan.settings import KafkaSettings
from local_stack.photos import render
from local_stack.stack import Stack
from support.platform import EDGE, Platform

LARGEST = 20 * 2**20


class Message(NamedTuple):
    """What is sent."""

    value: bytes
    key: bytes | None = None
    headers: Sequence[tuple[str, bytes]] = ()


async def send(stack: Stack, topic: str, *messages: Message, compression: str | None = None) -> None:
    def run() -> None:
        with KafkaProducer(
            bootstrap_servers=stack.kafka, max_request_size=LARGEST, compression_type=compression
        ) as producer:
            futures = [
                producer.send(topic, value=m.value, key=m.key, headers=list(m.headers)) for m in messages
            ]
            for future in futures:
                future.get(timeout=60)

    await asyncio.to_thread(run)


async def receive(stack: Stack, topic: str, count: int) -> list[Any]:
    def run() -> list[Any]:
        with KafkaConsumer(
            topic, bootstrap_servers=stack.kafka, auto_offset_reset="earliest", consumer_timeout_ms=90_000
        ) as consumer:
            return [message for _, message in zip(range(count), consumer, strict=False)]

    return await asyncio.to_thread(run)


def noise(width: int, height: int) -> bytes:
    """A PNG that does not shrink: three bytes a pixel."""
    target = io.BytesIO()
    Image.effect_noise((width, height), 80).convert("RGB").save(target, "PNG", compress_level=0)
    return target.getvalue()


def dot(shade: int) -> bytes:
    target = io.BytesIO()
    Image.new("RGB", (24, 24), (shade, 0, 0)).save(target, "PNG")
    return target.getvalue()


@pytest.mark.asyncio(loop_scope="session")
async def test_an_image_on_the_edges_topic_is_answered_with_its_key_and_headers(platform: Platform) -> None:
    stack = platform.stack
    kept = len(await platform.edge("valid"))
    lemon = render("tea-lemon", 5_000_001)
    headers = [("trace", b"\xff\x00"), ("camera", b"till-7"), ("trace", b"again")]
    large = noise(2300, 2200)
    assert 15_000_000 < len(large) < LARGEST
    await send(
        stack,
        f"{EDGE}-images",
        Message(lemon, b"till", headers),
        Message(b"no image", b"till"),
        Message(large, b"till"),
        Message(lemon, b"till", [("model", b"nobody")]),
        compression="gzip",
    )
    answers = await receive(stack, f"{EDGE}-detections", 4)
    known, *refused = [json.loads(answer.value) for answer in answers]
    assert (known["known"], known["pricetag"]) == ("true", "Lemon Tea: 4.99")
    assert (answers[0].key, list(answers[0].headers)) == (b"till", headers)
    assert [problem["status"] for problem in refused] == [422, 413, 404]
    codes = [b"not-an-image", b"too-large", b"unknown-model"]
    assert [dict(answer.headers)["error"] for answer in answers[1:]] == codes
    assert {answer.key for answer in answers} == {b"till"}

    letters = await receive(stack, f"{EDGE}-images-dead-letter", 3)
    assert [dict(letter.headers)["dead-letter-code"] for letter in letters] == codes
    assert [letter.value for letter in letters] == [b"no image", large, lemon]
    assert len(await platform.edge("valid")) == kept + 1


async def test_labelled_images_become_training_data_and_one_trigger(private_stack: Any) -> None:
    stack = await private_stack(
        "feeder", edges=("edge1", "edge2"), environment={"INTAKE_COUNT": "4", "INTAKE_SECONDS": "60"}
    )
    large = noise(2300, 2200)
    edge = ("edgeId", b"edge2")
    await send(
        stack,
        "training-images",
        Message(dot(1), None, [("class", b"tea"), ("name", b"one.png"), edge]),
        Message(dot(2), b"tea/two.png", [edge]),
        Message(dot(3), b"till-7", [edge]),
        Message(dot(4), b"tea/four.png", [("edgeId", b"edge9")]),
        Message(large, b"tea/large", [edge]),
        Message(dot(5), b"tea/two.png", [edge]),
    )
    (trigger,) = await receive(stack, "trigger", 1)
    assert (trigger.value, dict(trigger.headers)["stored"]) == (b"edge2", b"4")
    letters = await receive(stack, "training-images-dead-letter", 2)
    assert [dict(letter.headers)["dead-letter-code"] for letter in letters] == [b"no-class", b"unknown-edge"]

    store = open_bucket(stack.s3("s3-central"), "edge2-data")

    async def books() -> Account:
        keys = [entry["path"] async for entry in listing(store)]
        receipts = [Receipt.from_json(await read(store, key)) for key in keys if key.startswith("uploads/")]
        return account(receipts, keys)

    keys = {entry["path"] async for entry in listing(store, "images/")}
    assert {"images/tea/one.png", "images/tea/two.png", "images/tea/large.png"} < keys
    assert len(keys) == 4
    assert await read(store, "images/tea/large.png") == large
    async with asyncio.timeout(60):
        while not (total := await books()).stored:
            await asyncio.sleep(0.1)
    assert (total.captured, total.stored, total.pending, total.adds_up) == (4, 4, 0, True)

    # Of several servers the first may be dead.
    settings = KafkaSettings(kafka_bootstrap_servers=f"127.0.0.1:1, {stack.kafka}")
    for _ in range(4):
        async with kafka.Producer(settings) as producer:
            await producer.ping()
