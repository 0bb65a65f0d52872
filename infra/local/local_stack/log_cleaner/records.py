"""Record batches of Kafka's message format 2: several become one.

The format: https://kafka.apache.org/documentation/#recordbatch
"""

from __future__ import annotations

from collections.abc import Sequence

from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecord, DefaultRecordBatch, DefaultRecordBatchBuilder

MAGIC = 2
NO_PRODUCER = -1
GROWTH_BYTES = 20
"""Bytes by which a message may grow when it is merged: two numbers of up to ten bytes each."""


class ApartError(Exception):
    """A batch that cannot be merged with others; `offset` is that of its first message."""

    def __init__(self, offset: int, reason: str) -> None:
        super().__init__(f"the batch at offset {offset} {reason}")
        self.offset = offset


def merge(batches: Sequence[tuple[int, bytes]], end: int) -> bytes:
    """Return one batch of the same messages: their offsets, times, keys, values and headers.

    Args:
        batches: each with the offset of its first message; what its own header says of that does not count.
        end: the offset after the last message.

    Raises:
        ApartError: for a batch that is compressed, belongs to a producer or a transaction, carries the
            broker's time, is damaged, or does not reach up to the next.

    """
    first = reached = before = batches[0][0]
    # Counted from the first message, the time and the offset of each take some bytes more.
    size = sum(len(raw) for _, raw in batches) + GROWTH_BYTES * (end - first)
    merged = DefaultRecordBatchBuilder(MAGIC, 0, 0, NO_PRODUCER, NO_PRODUCER, -1, size)
    for offset, raw in batches:
        if offset > reached:
            raise ApartError(before, f"does not reach up to {offset}")
        before = offset
        # Of a merge that was cut off, later batches hold what is in an earlier one already.
        for number, record in enumerate(_plain_records(offset, raw), offset):
            if number == reached:
                if (
                    merged.append(number - first, record.timestamp, record.key, record.value, record.headers)
                    is None
                ):
                    raise ApartError(offset, "has messages that do not fit")
                reached += 1
    if reached < end:
        raise ApartError(before, f"does not reach up to {end}")
    return bytes(merged.build())


def _plain_records(offset: int, raw: bytes) -> list[DefaultRecord]:
    try:
        batch = DefaultRecordBatch(raw)
        if batch.magic != MAGIC or batch.attributes or batch.producer_id != NO_PRODUCER:
            raise ApartError(offset, "is compressed, or not a plain one")
        if not batch.validate_crc():
            raise ApartError(offset, "is damaged")
        records = list(batch)
    except (CorruptRecordException, ValueError, IndexError) as exc:
        raise ApartError(offset, "is damaged") from exc
    if [record.offset - batch.base_offset for record in records] != list(range(len(records))):
        raise ApartError(offset, "lacks messages")
    return records
