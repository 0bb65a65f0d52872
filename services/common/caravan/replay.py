"""Dead letters back on their way."""

from __future__ import annotations

import asyncio
import hashlib

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from caravan.contracts import dead_letter
from caravan.errors import Transient
from caravan.kafka import (
    LETTER,
    Batch,
    Producer,
    commit,
    connection,
    consumer,
    ensure_topics,
    header,
    plain_headers,
)
from caravan.settings import KafkaSettings

log = structlog.get_logger()

GROUP = "replay"
QUIET_SECONDS = 3.0
"""A topic that gives nothing for so long is taken to be read to its end."""


async def replay(settings: KafkaSettings, topic: str) -> int:
    """Send each dead letter of a topic to the topic again, as it first came; return how many.

    A letter is committed after its message is acknowledged: killed in between, it is sent twice, never lost.
    The message of a letter that could not be kept whole is read where it first came; if the topic does not
    have it any more, that is logged, and the rest goes on. What becomes a dead letter again meanwhile waits
    for the next time: a message that nothing can handle would go round for ever.

    Raises:
        Transient: if Kafka is away.

    """
    sent = 0
    await ensure_topics(settings, [topic, dead_letter(topic)])
    async with Producer(settings) as producer, consumer(settings, dead_letter(topic), group=GROUP) as letters:
        ends: dict[TopicPartition, int] = {}
        while batch := await _before(ends, letters):
            for letter in (letter for letters_ in batch.values() for letter in letters_):
                record = await _whole(settings, topic, letter)
                if record is None:
                    log.warning("gone from its topic, not sent", topic=topic, **_where(letter))
                    continue
                await producer.send(topic, record.value, key=record.key, headers=plain_headers(record))
                sent += 1
            await commit(letters, batch)
    return sent


async def _before(ends: dict[TopicPartition, int], letters: AIOKafkaConsumer) -> Batch:
    """Return the next letters before the ends; nothing once all are read, or nothing comes.

    Where a partition ends is what the broker says with its first letters: asked for by itself, the embedded
    one leaves out the last batch.
    """
    unread = [p for p in letters.assignment() if p not in ends or await letters.position(p) < ends[p]]
    if not unread:
        return {}
    found = await letters.getmany(*unread, timeout_ms=int(QUIET_SECONDS * 1000), max_records=100)
    for partition in found:
        ends.setdefault(partition, letters.highwater(partition))
    before = {p: [record for record in records if record.offset < ends[p]] for p, records in found.items()}
    return {partition: records for partition, records in before.items() if records}


async def _whole(settings: KafkaSettings, topic: str, letter: ConsumerRecord) -> ConsumerRecord | None:
    digest = header(letter, f"{LETTER}sha256")
    if not digest:
        return letter
    where = _where(letter)
    record = await _read(settings, TopicPartition(topic, where["partition"]), where["offset"])
    if record is None or hashlib.sha256(record.value or b"").hexdigest() != digest:
        return None
    return record


def _where(letter: ConsumerRecord) -> dict[str, int]:
    return {name: int(header(letter, LETTER + name)) for name in ("partition", "offset")}


async def _read(settings: KafkaSettings, partition: TopicPartition, offset: int) -> ConsumerRecord | None:
    """Read one message; None where it is not there any more."""
    reader = AIOKafkaConsumer(
        **connection(settings), auto_offset_reset="earliest", enable_auto_commit=False, group_id=None
    )
    try:
        async with asyncio.timeout(2 * settings.kafka_request_seconds):
            await reader.start()
            reader.assign([partition])
            reader.seek(partition, offset)
            batch = await reader.getmany(timeout_ms=int(settings.kafka_request_seconds * 1000), max_records=1)
    except (KafkaError, TimeoutError, OSError) as exc:
        message = f"Kafka does not give message {offset} of {partition.topic}: {exc!r}"
        raise Transient(message) from exc
    finally:
        await reader.stop()
    return next((record for records in batch.values() for record in records if record.offset == offset), None)
