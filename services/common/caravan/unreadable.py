"""Getting past a Kafka message that aiokafka cannot read.

The names of its headers are no UTF-8, its batch is damaged, or nothing unpacks it. aiokafka raises where the
message comes up, each time, and loses what it had read before it, of all partitions. So these go back to
where they were, and messages are asked for one by one, until the one that it is comes first: it is passed
over, logged and counted, and stays on its topic. So is what its sender sent behind it in one batch, which
aiokafka reads from its beginning.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Collection, Sequence
from contextlib import suppress
from gzip import BadGzipFile
from typing import Protocol

import structlog
from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import CorruptRecordException, IllegalStateError
from cramjam import DecompressionError
from prometheus_client import Counter

log = structlog.get_logger()

MOST_SINGLE = 10_000
"""Messages fetched one by one before batches are tried again: the partition may be another's by then."""
UNREADABLE = (
    UnicodeDecodeError,
    CorruptRecordException,
    DecompressionError,
    BadGzipFile,
    EOFError,
    zlib.error,
)
"""aiokafka's errors about a message's content, not about the broker."""
PASSED_OVER = Counter(
    "caravan_unreadable_messages_total", "Messages passed over, as the client cannot read them", ["topic"]
)

Fetched = dict[TopicPartition, Sequence[ConsumerRecord]]


class Fetching(Protocol):
    """A consumer, as far as it is needed here."""

    async def fetch(
        self, partitions: Collection[TopicPartition], timeout_ms: int, max_records: int | None
    ) -> Fetched:
        """Return what has come; raise one of UNREADABLE if a message cannot be read."""
        ...

    def assignment(self) -> Collection[TopicPartition]:
        """Return the partitions that are ours."""
        ...

    async def position(self, partition: TopicPartition) -> int:
        """Return the offset of the message that comes next."""
        ...

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Go on from an offset."""
        ...


class Past:
    """Reads by a consumer, and gets past what it cannot read."""

    def __init__(self, client: Fetching) -> None:
        self._client = client
        self._single = 0

    async def fetch(
        self, partitions: Collection[TopicPartition], timeout_ms: int, max_records: int | None
    ) -> Fetched:
        """Return what has come, as `getmany` does."""
        if not self._single:
            before = await self._positions(partitions, timeout_ms)
            try:
                return await self._client.fetch(partitions, timeout_ms, max_records)
            except UNREADABLE:
                for partition in before.keys() & set(self._client.assignment()):
                    self._client.seek(partition, before[partition])
                self._single = MOST_SINGLE
        found: Fetched = {}
        asked = list(partitions or self._client.assignment())
        for partition in asked:
            try:
                found |= await self._client.fetch([partition], max(1, timeout_ms // len(asked)), 1)
            except UNREADABLE:
                await self._pass_over(partition)
                break
        else:
            self._single -= 1
        return found

    async def _positions(
        self, partitions: Collection[TopicPartition], timeout_ms: int
    ) -> dict[TopicPartition, int]:
        found: dict[TopicPartition, int] = {}
        # One that has none yet has nothing to lose.
        with suppress(IllegalStateError, TimeoutError):
            async with asyncio.timeout(timeout_ms / 1000):
                for partition in partitions or self._client.assignment():
                    found[partition] = await self._client.position(partition)
        return found

    async def _pass_over(self, partition: TopicPartition) -> None:
        offset = await self._client.position(partition)
        self._client.seek(partition, offset + 1)
        self._single = 0
        topic, number = partition
        PASSED_OVER.labels(topic).inc()
        place = {"topic": topic, "partition": number, "offset": offset}
        log.error("a message that cannot be read is passed over", **place)
