"""A Kafka topic, for who can only run a command beside the broker.

python -m support.topic read TOPIC     prints the messages that are there, one JSON string a line
python -m support.topic send TOPIC     sends standard input as one message
"""

from __future__ import annotations

import asyncio
import json
import sys

from aiokafka import AIOKafkaProducer

from caravan import kafka
from caravan.settings import KafkaSettings

KAFKA = "127.0.0.1:9092"


async def read(topic: str) -> None:
    consumer = kafka.Consumer(KafkaSettings(kafka_bootstrap_servers=KAFKA), topic, group_id=None)
    await consumer.start()
    try:
        ends = await kafka.ends(consumer, consumer.assignment())
        await consumer.seek_to_beginning()
        for partition, end in ends.items():
            while await consumer.position(partition) < end:
                for record in (await consumer.getmany(partition, timeout_ms=1000)).get(partition, ()):
                    print(json.dumps(record.value.decode()))  # noqa: T201  it is a command
    finally:
        await consumer.stop()


async def send(topic: str) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=KAFKA, acks="all", max_request_size=20 * 2**20)
    await producer.start()
    try:
        await producer.send_and_wait(topic, await asyncio.to_thread(sys.stdin.buffer.read))
    finally:
        await producer.stop()


if __name__ == "__main__":
    asyncio.run({"read": read, "send": send}[sys.argv[1]](sys.argv[2]))
