"""A Kafka client that is not the one we use, in both directions."""

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

from kafka import KafkaConsumer, KafkaProducer
from PIL import Image

from local_stack.stack import Stack
from support.files import as_file

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
    return as_file(Image.effect_noise((width, height), 80).convert("RGB"), "PNG", compress_level=0)
