"""An edge's events, out of Kafka, as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from caravan import kafka, kafka_topics, strict_json
from caravan.contracts import Event, events_topic
from caravan.settings import KafkaSettings

START_SECONDS = 30.0
UNREAD = "Kafka's events cannot be read"


@asynccontextmanager
async def followed(settings: KafkaSettings, edge: str) -> AsyncIterator[AsyncIterator[Event]]:
    """Read an edge's events from the first one on; without a group, so nobody's offsets are touched.

    Raises:
        Transient: if the broker is away.

    """
    await kafka_topics.ensure_topics(settings, [events_topic(edge)])
    client = kafka.Consumer(settings, events_topic(edge), group_id=None)
    try:
        with kafka.translated(UNREAD):
            async with asyncio.timeout(START_SECONDS):
                await client.start()
        yield _events(client)
    finally:
        await client.stop()


async def _events(client: kafka.Consumer) -> AsyncIterator[Event]:
    while True:
        with kafka.translated(UNREAD):
            record = await client.getone()
        try:
            event = strict_json.loads(record.value)
        except (TypeError, ValueError):
            continue  # somebody else's message
        if isinstance(event, dict) and "name" in event:
            yield event
