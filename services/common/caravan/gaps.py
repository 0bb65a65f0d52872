"""Logs that are not what they were: an offset is missing that may still come, or a log has begun anew.

Where several producers send at once, the embedded broker may show a message before the one before it. A
consumer that goes on never sees that one. At Apache Kafka what is missing does not come: it is the marker of
a transaction, or compaction took it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog
from aiokafka import ConsumerRecord, TopicPartition

log = structlog.get_logger()

ANEW_SECONDS = 5.0
"""Seconds for which a log's end may lie before the last offset read: a broker may report it late."""


class Gaps:
    """Tells how far messages may be taken.

    Args:
        patience: seconds to wait for an offset.
        clock: seconds that only go on.

    """

    def __init__(self, patience: float, clock: Callable[[], float]) -> None:
        self._patience = patience
        self._clock = clock
        self._missing: dict[TopicPartition, tuple[int, float]] = {}

    def taken(
        self, partition: TopicPartition, records: Sequence[ConsumerRecord], expected: int
    ) -> tuple[Sequence[ConsumerRecord], int | None]:
        """Return the messages up to a gap, and the offset to read again from; None if nothing may come.

        Args:
            partition: the partition of the messages.
            records: they, in order.
            expected: the offset of the next message, if none is missing.

        """
        for index, record in enumerate(records):
            if record.offset > expected and self._may_come(partition, expected):
                return records[:index], expected
            expected = record.offset + 1
        return records, None

    def _may_come(self, partition: TopicPartition, offset: int) -> bool:
        missing, since = self._missing.get(partition, (None, 0.0))
        if missing != offset:
            self._missing[partition] = offset, self._clock()
            return True
        if self._clock() - since < self._patience:
            return True
        log.warning("no such message", topic=partition.topic, partition=partition.partition, offset=offset)
        del self._missing[partition]
        return False


class Shortened:
    """Tells of logs that end before their reader: the topic was removed, and made again.

    Apache Kafka says of itself that there is no such offset; the embedded broker answers with nothing.

    Args:
        clock: seconds that only go on.

    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since: dict[TopicPartition, float] = {}

    def is_so(self, partition: TopicPartition, end: int, position: int) -> bool:
        """Tell whether a log that ends at an offset has long not reached its reader's position."""
        if end >= position:
            self._since.pop(partition, None)
            return False
        if self._clock() - self._since.setdefault(partition, self._clock()) < ANEW_SECONDS:
            return False
        del self._since[partition]
        return True
