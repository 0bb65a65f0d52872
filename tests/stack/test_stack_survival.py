"""What the embedded parts acknowledged is there after a stop, and after every process was killed."""

import asyncio
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from local_stack.stack import Stack
from support.stacks import kill_everything

MESSAGES = [f"message {number}".encode() for number in range(50)]
READ = 30
"""How many of them the group has dealt with before the restart."""


@pytest.mark.parametrize("way", ["stop", "kill"])
async def test_messages_offsets_and_objects_survive(
    way: str, private_stack: Any, producer: Any, consumer: Any, s3: Any
) -> None:
    stack = await private_stack("kafka", "s3-central", edges=("edge1",))
    await fill(stack, producer, consumer, s3)

    if way == "kill":
        await kill_everything(stack)
    else:
        await stack.stop()
    await stack.start()

    client = await s3(stack.url("s3-central"))
    stored = await client.get_object(Bucket="edge1-data", Key="images/tea/1.jpg")
    assert await stored["Body"].read() == b"\xff\xd8" * 50_000
    for bucket in ("kafka", "edge1-data", "edge1-models", "edge1-ready"):
        await client.head_bucket(Bucket=bucket)

    everything = await read(await consumer(stack.kafka, "trigger"), len(MESSAGES))
    assert everything == MESSAGES
    rest = await read(await consumer(stack.kafka, "trigger", group="delivery"), len(MESSAGES) - READ)
    assert rest == MESSAGES[READ:]

    writer = await producer(stack.kafka)
    await writer.send_and_wait("trigger", b"after", partition=0)
    assert (await read(await consumer(stack.kafka, "trigger"), len(MESSAGES) + 1))[-1] == b"after"


async def fill(stack: Stack, producer: Any, consumer: Any, s3: Any) -> None:
    client = await s3(stack.url("s3-central"))
    await client.put_object(Bucket="edge1-data", Key="images/tea/1.jpg", Body=b"\xff\xd8" * 50_000)
    writer = await producer(stack.kafka)
    for message in MESSAGES:
        await writer.send_and_wait("trigger", message, partition=0)
    reader = await consumer(stack.kafka, "trigger", group="delivery")
    assert len(await read(reader, READ)) == READ
    await reader.commit({TopicPartition("trigger", 0): READ})
    await reader.stop()
    await writer.stop()


async def read(reader: AIOKafkaConsumer, count: int) -> list[bytes]:
    values: list[bytes] = []
    async with asyncio.timeout(60):
        while len(values) < count:
            record = await reader.getone()
            values.append(record.value or b"")
    return values
