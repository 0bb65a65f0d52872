"""An edge's events, out of Kafka, as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiokafka.errors import KafkaError

from caravan import kafka, strict_json
from caravan.contracts import Event, events_topic
from caravan.errors import Transient
from caravan.settings import KafkaSettings

START_SECONDS = 30.0


@asynccontextmanager
async def followed(settings: KafkaSettings, edge: str) -> AsyncIterator[AsyncIterator[Event]]:
    """Read an edge's events from the first one on; without a group, so nobody's offsets are touched.

    Raises:
        Transient: if the broker is away.

    """
    await kafka.ensure_topics(settings, [events_topic(edge)])
    client = kafka.Consumer(settings, events_topic(edge), group_id=None)
    try:
        await _start(client)
        yield _events(client)
    finally:
        await client.stop()


async def _start(client: kafka.Consumer) -> None:
    try:
        async with asyncio.timeout(START_SECONDS):
            await client.start()
    except (KafkaError, TimeoutError, OSError) as exc:
        raise Transient(f"Kafka's events cannot be read: {exc!r}") from exc


async def _events(client: kafka.Consumer) -> AsyncIterator[Event]:
    while True:
        try:
            record = await client.getone()
        except (KafkaError, OSError) as exc:
            raise Transient(f"Kafka's events cannot be read: {exc!r}") from exc
        try:
            event = strict_json.loads(record.value)
        except (TypeError, ValueError):
            continue  # somebody else's message
        if isinstance(event, dict) and "name" in event:
            yield event
