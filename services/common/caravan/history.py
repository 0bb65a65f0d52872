"""Kafka without a consumer group: who reads for itself, from a time on, and commits nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager

from aiokafka import ConsumerRecord, TopicPartition

from caravan import kafka
from caravan.errors import Transient
from caravan.settings import KafkaSettings


class History:
    """Where a reader is on its topics, and how much of them is from before its start.

    Args:
        on_news: called once all is read that was there at the start.
        clock: seconds since 1970.

    """

    def __init__(self, on_news: Callable[[], None], clock: Callable[[], float] = time.time) -> None:
        self._on_news = on_news
        self._clock = clock
        self._next: dict[TopicPartition, int] = {}
        self._ends: Mapping[TopicPartition, int] = {}
        self._latest = 0.0
        self.is_read = False

    def starts(self, starts: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]) -> None:
        """Take the offsets to start at and the present ends; messages read before are not read again."""
        self._next = {**starts, **{p: offset for p, offset in self._next.items() if p in starts}}
        self._ends = ends
        self._notice()

    def next(self, partition: TopicPartition) -> int:
        """Return the next offset to read."""
        return self._next[partition]

    def read_up_to(self, partition: TopicPartition, offset: int) -> None:
        """Note the next offset to read."""
        self._next[partition] = offset
        self._notice()

    def written(self, record: ConsumerRecord) -> float:
        """Return when a record was written, in seconds since 1970: see `kafka.written`."""
        return kafka.written(record, self._clock())

    def times(self, record: ConsumerRecord) -> tuple[float, float]:
        """Return when a record came to Kafka, and when its camera was heard of, in seconds since 1970.

        For what comes now both are this machine's time, for the clocks of the edges, which write the times of
        records, may differ. For what was there at the start it is the latest time up to the record, and its
        own; none of them later than now.
        """
        now = self._clock()
        written = kafka.written(record, now)
        if record.offset >= self._ends.get(TopicPartition(record.topic, record.partition), 0):
            return now, now
        self._latest = max(self._latest, written)
        return self._latest, written

    async def ping(self) -> None:
        """Check that what was there at the start is read.

        Raises:
            Transient: if not.

        """
        if not self.is_read:
            raise Transient("the topic is still being read")

    def _notice(self) -> None:
        if not self.is_read and all(self._next[p] >= end for p, end in self._ends.items()):
            self.is_read = True
            self._on_news()


@asynccontextmanager
async def reader(
    settings: KafkaSettings, topics: Collection[str], since: float, most: int, history: History
) -> AsyncIterator[kafka.Consumer]:
    """Read topics from a time on, but at most so many messages of each partition that are there already.

    Args:
        settings: Kafka's settings.
        topics: which.
        since: seconds since 1970.
        most: messages.
        history: offsets of an earlier reader of this process, which this one continues.

    Raises:
        Transient: if the broker is away.

    """
    # One that stands at the end may have to wait as long as it said before it can be sent elsewhere.
    scout = kafka.Consumer(settings, *topics, group_id=None)
    client = kafka.Consumer(settings, *topics, group_id=None, fetch_max_wait_ms=kafka.LONG_WAIT_MILLISECONDS)
    with kafka.translated(f"Kafka consumer of {', '.join(topics)}"):
        try:
            async with asyncio.timeout(kafka.JOIN_SECONDS):
                await scout.start()
                partitions = list(scout.assignment())
                begins = await scout.beginning_offsets(partitions)
                ends = await kafka.ends(scout, begins)
                found = await scout.offsets_for_times(dict.fromkeys(partitions, int(since * 1000)))
                await scout.stop()
                await client.start()
            starts: dict[TopicPartition, int] = {}
            for partition in partitions:
                first = found.get(partition)
                # Nothing as young as that: brokers answer nothing, or an offset without a time.
                offset = first.offset if first is not None and first.timestamp >= 0 else ends[partition]
                starts[partition] = max(offset, ends[partition] - most, begins[partition])
            history.starts(starts, ends)
            for partition in partitions:
                client.seek(partition, history.next(partition))
            async with kafka.lag_told(client, group=""):
                yield client
        finally:
            await scout.stop()
            await client.stop()
