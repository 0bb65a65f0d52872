"""A message that the client cannot read is passed over, and no other is lost."""

from collections.abc import Collection

import pytest
from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import CorruptRecordException
from cramjam import DecompressionError
from prometheus_client import REGISTRY

from caravan.testing import kafka
from caravan.unreadable import Fetched, Past

ONE, TWO = TopicPartition("edge1", 0), TopicPartition("edge1", 1)


class Client:
    """Has messages in two partitions, and raises as aiokafka does: what it read before is read again."""

    def __init__(
        self,
        messages: dict[TopicPartition, int],
        unreadable: set[tuple[TopicPartition, int]],
        error: Exception,
    ) -> None:
        self._error = error
        self._messages = messages
        self._unreadable = unreadable
        self._positions = dict.fromkeys(messages, 0)

    async def fetch(
        self, partitions: Collection[TopicPartition], timeout_ms: int, max_records: int | None
    ) -> Fetched:
        assert timeout_ms > 0
        found: Fetched = {}
        for partition in partitions or self._messages:
            first = self._positions[partition]
            offsets = range(first, min(self._messages[partition], first + (max_records or 500)))
            for offset in offsets:
                if (partition, offset) in self._unreadable:
                    raise self._error
            if offsets:
                self._positions[partition] = offsets.stop
                found[partition] = [record(partition, offset) for offset in offsets]
        return found

    def assignment(self) -> Collection[TopicPartition]:
        return self._messages

    async def position(self, partition: TopicPartition) -> int:
        return self._positions[partition]

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self._positions[partition] = offset


def record(partition: TopicPartition, offset: int) -> ConsumerRecord:
    return kafka.record(b"", topic=partition.topic, partition=partition.partition, offset=offset)


@pytest.mark.parametrize(
    "error",
    [UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no name"), CorruptRecordException(), DecompressionError()],
)
async def test_every_message_but_those_that_cannot_be_read_comes_once_and_in_order(error: Exception) -> None:
    unreadable = {(ONE, 3), (ONE, 4), (TWO, 0), (TWO, 39)}
    past = Past(Client({ONE: 90, TWO: 40}, unreadable, error))
    before = REGISTRY.get_sample_value("caravan_unreadable_messages_total", {"topic": "edge1"}) or 0.0

    came: dict[TopicPartition, list[int]] = {ONE: [], TWO: []}
    for _ in range(200):
        for partition, records in (await past.fetch((), 100, 10)).items():
            came[partition] += [each.offset for each in records]

    assert came == {
        partition: [offset for offset in range(count) if (partition, offset) not in unreadable]
        for partition, count in ((ONE, 90), (TWO, 40))
    }
    assert REGISTRY.get_sample_value("caravan_unreadable_messages_total", {"topic": "edge1"}) == before + 4
