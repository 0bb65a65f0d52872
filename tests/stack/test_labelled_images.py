"""Labelled images on a Kafka topic become training data, whatever client sends them."""

import asyncio
from typing import Any

from PIL import Image

from caravan import kafka
from caravan.receipts import Account, Receipt, account
from caravan.s3 import listing, open_bucket, read
from caravan.settings import KafkaSettings
from support.files import as_file
from support.kafka_clients import Message, noise, receive, send


def dot(shade: int) -> bytes:
    return as_file(Image.new("RGB", (24, 24), (shade, 0, 0)), "PNG")


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
