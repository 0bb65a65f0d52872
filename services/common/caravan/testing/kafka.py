"""Kafka in memory: a topic, which outlives its consumers, and a broker that keeps what a producer sends."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiokafka import ConsumerRecord, TopicPartition

from caravan.errors import Transient
from caravan.testing.faults import Faults
from caravan.testing.waiting import running, until

RawHeaders = Iterable[tuple[str, bytes | None]]


def record(
    value: bytes | None,
    *,
    key: bytes | None = None,
    headers: RawHeaders = (),
    topic: str = "topic",
    partition: int = 0,
    offset: int = 0,
    timestamp: int = 0,
) -> ConsumerRecord:
    """Return a message as a consumer gets it; `timestamp` is in milliseconds since 1970."""
    sizes = len(key or b""), len(value or b"")
    return ConsumerRecord(topic, partition, offset, timestamp, 0, key, value, None, *sizes, tuple(headers))


@dataclass(frozen=True, slots=True)
class Sent:
    """A message that a producer sent, its headers as they were given."""

    topic: str
    value: bytes | None
    headers: Any = field(default_factory=dict)
    key: bytes | None = field(default=None, compare=False)


class Kafka(Faults[Sent]):
    """A broker as a producer sees it.

    Args:
        topics: those that somebody reads: what is sent there is put there.

    Attributes:
        sent: what it has, in order.
        loses_answers: how many messages more it takes without an answer coming back.

    """

    def __init__(self, *topics: Topic) -> None:
        super().__init__()
        self.topics = {topic.name: topic for topic in topics}
        self.sent: list[Sent] = []
        self.loses_answers = 0

    async def send(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        headers: Any = None,
        traced: bool = True,
    ) -> None:
        """Take a message, as `caravan.kafka.Producer.send` does."""
        del traced
        await asyncio.sleep(0)
        message = Sent(topic, value, headers or {}, key)
        self.strike(message)
        self.sent.append(message)
        if topic in self.topics:
            self.topics[topic].send(record(value, key=key, headers=headers or ()))
        if self.loses_answers:
            self.loses_answers -= 1
            raise Transient("the connection broke before the answer")

    def to(self, topic: str) -> list[Sent]:
        """Return what was sent to a topic."""
        return [message for message in self.sent if message.topic == topic]


class Topic:
    """What a consumer of a group sees of a topic, and dead letters and parked messages beside it.

    Attributes:
        records: by partition, in order; the offset of each is its place.
        committed: by partition, the offset to read next.
        aside: value, reason and code of each dead letter.

    """

    def __init__(self, name: str, *values: bytes | ConsumerRecord | None, fetch: int = 1000) -> None:
        self.name = name
        self.fetch = fetch
        self.records: dict[TopicPartition, list[ConsumerRecord]] = {}
        self.committed: dict[TopicPartition, int] = {}
        self.aside: list[tuple[bytes | None, str, str]] = []
        self.refuses: Exception | None = None
        """What `send_dead_letter` and `park` fail with."""
        self._next: dict[TopicPartition, int] = {}
        self.send(*values)

    def send(self, *values: bytes | ConsumerRecord | None, partition: int = 0) -> None:
        """Append messages; a record gets the place that it comes to."""
        where = TopicPartition(self.name, partition)
        log = self.records.setdefault(where, [])
        for value in values:
            sent = value if isinstance(value, ConsumerRecord) else record(value)
            log.append(dataclasses.replace(sent, topic=self.name, partition=partition, offset=len(log)))

    @property
    def offset(self) -> int:
        """What is committed of the only partition."""
        (partition,) = self.records
        return self.committed.get(partition, 0)

    async def run(self, loop: Coroutine[Any, Any, Any], holds: Callable[[], bool]) -> None:
        """Run a loop from the committed offsets until something holds; an error of it is raised."""
        async with self.running(loop) as task:
            await until(lambda: holds() or task.done())

    @asynccontextmanager
    async def running(self, loop: Coroutine[Any, Any, Any]) -> AsyncIterator[asyncio.Task[Any]]:
        """Run a loop from the committed offsets; an error of it is raised at the end."""
        self._next = {partition: self.committed.get(partition, 0) for partition in self.records}
        async with running(loop) as (task,):
            yield task

    # --- as a consumer ------------------------------------------------------------------------------

    def assignment(self) -> set[TopicPartition]:
        """Return all partitions."""
        return set(self.records)

    async def getmany(
        self, *, timeout_ms: int, max_records: int
    ) -> dict[TopicPartition, list[ConsumerRecord]]:
        """Return what comes next of each partition."""
        found: dict[TopicPartition, list[ConsumerRecord]] = {}
        deadline = asyncio.get_running_loop().time() + timeout_ms / 1000
        while not found and asyncio.get_running_loop().time() < deadline:
            room = min(max_records, self.fetch)
            for partition, log in self.records.items():
                start = self._next.get(partition, 0)
                if taken := log[start : start + room]:
                    found[partition] = taken
                    self._next[partition] = start + len(taken)
                    room -= len(taken)
                if not room:
                    break
            await asyncio.sleep(0 if found else 0.005)
        return found

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Note what to read next.

        Raises:
            AssertionError: if it was committed before.

        """
        for partition, offset in offsets.items():
            if offset <= self.committed.get(partition, 0):
                raise AssertionError("commits only go on")
            self.committed[partition] = offset

    # --- beside it ----------------------------------------------------------------------------------

    async def send_dead_letter(self, record: ConsumerRecord, reason: str, code: str = "refused") -> None:
        """Take a dead letter."""
        if self.refuses is not None:
            raise self.refuses
        self.aside.append((record.value, reason, code))
