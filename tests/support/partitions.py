"""A topic in memory, which outlives its consumers as Kafka would."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import ConsumerRecord, TopicPartition


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
            if not isinstance(value, ConsumerRecord):
                sent = ConsumerRecord(self.name, partition, 0, 0, 0, None, value, None, 0, 0, ())
            else:
                sent = value
            log.append(dataclasses.replace(sent, topic=self.name, partition=partition, offset=len(log)))

    @property
    def offset(self) -> int:
        """What is committed of the only partition."""
        (partition,) = self.records
        return self.committed.get(partition, 0)

    async def run(self, loop: Coroutine[Any, Any, Any], until: Callable[[], bool]) -> None:
        """Run a loop from the committed offsets until something holds; an error of it is raised."""
        async with asyncio.timeout(20), self.running(loop) as task:
            while not until() and not task.done():
                await asyncio.sleep(0.002)

    @asynccontextmanager
    async def running(self, loop: Coroutine[Any, Any, Any]) -> AsyncIterator[asyncio.Task[Any]]:
        """Run a loop from the committed offsets; an error of it is raised at the end."""
        self._next = {partition: self.committed.get(partition, 0) for partition in self.records}
        task = asyncio.create_task(loop)
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.wait([task])
        if not task.cancelled() and (error := task.exception()):
            raise error

    # --- as a consumer ------------------------------------------------------------------------------

    def assignment(self) -> set[TopicPartition]:
        return set(self.records)

    async def getmany(
        self, *, timeout_ms: int, max_records: int
    ) -> dict[TopicPartition, list[ConsumerRecord]]:
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
        for partition, offset in offsets.items():
            assert offset > self.committed.get(partition, 0), "commits only go on"
            self.committed[partition] = offset

    # --- beside it ----------------------------------------------------------------------------------

    async def send_dead_letter(self, record: ConsumerRecord, reason: str, code: str = "refused") -> None:
        if self.refuses is not None:
            raise self.refuses
        self.aside.append((record.value, reason, code))
