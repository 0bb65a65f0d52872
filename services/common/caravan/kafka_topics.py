"""Kafka's topics: a client that lists and makes them, and the services' own, made if they are missing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from functools import cache

import structlog
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TopicAlreadyExistsError, for_code

from caravan.contracts import dead_letter
from caravan.errors import Transient
from caravan.kafka import CONNECT_SECONDS, ROOM_BYTES, connection, translated
from caravan.settings import KafkaSettings

log = structlog.get_logger()


@asynccontextmanager
async def admin(settings: KafkaSettings) -> AsyncIterator[AIOKafkaAdminClient]:
    """Connect a client that lists and makes topics, for the length of the context, which has a deadline.

    Raises:
        Transient: if the broker is away, or does not do in time what the context asks of it.

    """
    client = AIOKafkaAdminClient(**connection(settings))
    # Of several servers, the first one asked may be the one that does not answer.
    seconds = 2 * settings.kafka_request_seconds + CONNECT_SECONDS
    with translated(f"Kafka at {settings.kafka_bootstrap_servers}"):
        try:
            async with asyncio.timeout(seconds):
                await client.start()
                yield client
        finally:
            await client.close()


async def ensure_topics(settings: KafkaSettings, topics: Collection[str]) -> None:
    """Make the topics that are not there yet, unless `KAFKA_CREATE_TOPICS` says that others do.

    They take the largest message and its dead letter, whatever the broker's own default is, and are stored
    uncompressed: a consumer unpacks a batch whole, however small it came. (The embedded broker keeps what it
    gets.) Dead letters stay until someone sends them again.

    A topic that is there keeps its partitions: with more of them its keys had other places, and no order
    until all before is read. That there are fewer than are set is told, once.

    Raises:
        Transient: if the broker is away or will not.

    """
    if not settings.kafka_create_topics:
        return
    async with admin(settings) as client:
        there = set(await client.list_topics())
        await _tell_of_fewer(client, {name: settings.partitions(name) for name in there & set(topics)})
        missing = sorted(set(topics) - there)
        if not missing:
            return
        answer = await client.create_topics([_new_topic(name, settings) for name in missing])
        for name, code, *_ in answer.topic_errors:
            if code and for_code(code) is not TopicAlreadyExistsError:
                message = f"Kafka did not make topic {name}: {for_code(code).__name__}"
                raise Transient(message)


def _new_topic(name: str, settings: KafkaSettings) -> NewTopic:
    config = {
        "max.message.bytes": str(settings.kafka_max_message_bytes + ROOM_BYTES),
        "compression.type": "uncompressed",
    }
    if name.endswith(dead_letter("")):
        config["retention.ms"] = "-1"
    return NewTopic(name, settings.partitions(name), settings.kafka_replication, topic_configs=config)


async def _tell_of_fewer(client: AIOKafkaAdminClient, wanted: Mapping[str, int]) -> None:
    """Tell of topics that have fewer partitions than is wanted."""
    names = [name for name, count in wanted.items() if count > 1]
    for topic in await client.describe_topics(names) if names else ():
        _warn_of_fewer(topic["topic"], len(topic["partitions"]), wanted[topic["topic"]])


@cache
def _warn_of_fewer(topic: str, partitions: int, wanted: int) -> None:
    """Warn of a topic once, however often it is asked for."""
    if 0 < partitions < wanted:
        log.warning("a topic keeps fewer partitions than are set", topic=topic, has=partitions, set=wanted)
