"""The embedded Kafka on a topic that grows: it stays short, and clients see all that is kept."""

from typing import Any

import obstore
from aiokafka import AIOKafkaConsumer, TopicPartition

from caravan.kafka_topics import ensure_topics
from caravan.s3 import open_bucket
from caravan.settings import KafkaSettings
from local_stack.stack import Stack

TOPIC = "edge1-images"
PARTITION = TopicPartition(TOPIC, 0)
BATCHES = 330
KEPT = 20


async def objects(stack: Stack) -> int:
    bucket = open_bucket(stack.s3("s3-central"), "kafka")
    return sum([len(page) async for page in obstore.list(bucket, prefix=f"clusters/caravan/topics/{TOPIC}/")])


async def offsets_of(reader: AIOKafkaConsumer, end: int) -> list[int]:
    """Return the offsets from the beginning to the end of the topic, for a reader without a group.

    Each counts once: while batches are merged, and not all that were merged are removed, some come twice.
    """
    reader.seek(PARTITION, (await reader.beginning_offsets([PARTITION]))[PARTITION])
    offsets: list[int] = []
    while not offsets or offsets[-1] < end - 1:
        for records in (await reader.getmany(timeout_ms=1000)).values():
            offsets += [record.offset for record in records]
    return list(dict.fromkeys(offsets))


async def test_a_topic_of_many_batches_is_merged_and_cut_and_goes_on_after_a_restart(
    private_stack: Any, producer: Any, consumer: Any, eventually: Any
) -> None:
    settings = {"KAFKA": "embedded", "KAFKA_RETENTION_MESSAGES": str(KEPT)}
    stack = await private_stack("kafka", environment=settings)
    await ensure_topics(KafkaSettings(kafka_bootstrap_servers=stack.kafka), [TOPIC])
    writer = await producer(stack.kafka)
    await writer.send_and_wait(TOPIC, b"0")
    group = await consumer(stack.kafka, group="shopper")
    group.assign([PARTITION])  # which needs no joining
    await group.commit({PARTITION: 1})
    for number in range(1, BATCHES):
        await writer.send_and_wait(TOPIC, b"%d" % number, headers=[("number", b"%d" % number)])

    async def merged() -> bool:
        return await objects(stack) < 100

    await eventually(merged)
    reader = await consumer(stack.kafka, TOPIC)
    offsets = await offsets_of(reader, BATCHES)
    assert offsets[0] <= 1, "what the group has not read is there"
    assert offsets == list(range(offsets[0], BATCHES))
    await group.commit({PARTITION: BATCHES})

    async def cut() -> Any:
        return (await reader.beginning_offsets([PARTITION]))[PARTITION] > 1

    for number in range(BATCHES, BATCHES + KEPT):
        await writer.send_and_wait(TOPIC, b"%d" % number)
    await eventually(cut)
    await stack.stop()
    await stack.start()
    writer, reader = await producer(stack.kafka), await consumer(stack.kafka, TOPIC)
    sent = await writer.send_and_wait(TOPIC, b"the last")
    assert sent.offset == BATCHES + KEPT
    offsets = await offsets_of(reader, BATCHES + KEPT + 1)
    assert offsets == list(range(offsets[0], BATCHES + KEPT + 1))
    assert KEPT <= len(offsets) < BATCHES
