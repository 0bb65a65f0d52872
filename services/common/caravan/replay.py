"""Dead letters back on their way."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Collection, Mapping
from functools import partial

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from caravan.consume import Effect, Ended, Policy, consume
from caravan.contracts import dead_letter
from caravan.dead_letters import (
    DEAD_LETTER_HEADER,
    REASON_CHARACTERS,
    Place,
    facts_of,
    plain_headers,
    whole_number,
)
from caravan.errors import Permanent, Transient
from caravan.kafka import Batch, Producer, connection, consumer, raw_headers, told_ends, translated
from caravan.kafka_topics import admin, ensure_topics
from caravan.settings import KafkaSettings
from caravan.unreadable import UNREADABLE

log = structlog.get_logger()

GROUP = "replay"
WAIT_MILLISECONDS = 2000
"""Longest fetch of the first dead letters, in milliseconds."""
SILENT_SECONDS = 60.0
"""Seconds without an expected dead letter after which Kafka counts as away."""
LEFT = f"{DEAD_LETTER_HEADER}left"
"""Header with the reason why a dead letter could not be sent again."""
SHOWN = 5
_ANY_BYTES = 2**30


class DeadLettersLeft(Permanent):
    """Some letters could not be sent again: they are at the end of their topic now, all others were sent.

    Args:
        sent: number of letters that were sent.
        reasons: a sentence for each letter that was not sent.

    """

    def __init__(self, sent: int, reasons: Collection[str]) -> None:
        shown = list(reasons)[:SHOWN]
        more = f", and {len(reasons) - SHOWN} more" if len(reasons) > SHOWN else ""
        super().__init__(f"{sent} sent again, {len(reasons)} left: {'; '.join(shown)}{more}")
        self.sent = sent
        self.left = len(reasons)


async def replay(settings: KafkaSettings, topic: str, *, group: str = GROUP) -> int:
    """Send each dead letter of a topic to the topic again, as it first came; return how many.

    Each is committed once its message is acknowledged: killed in between, it is sent twice, never lost. The
    message of a letter that could not be kept whole is read where it first came. A letter that cannot be sent
    is put at the end of its topic with the reason, and the rest goes on. What becomes a dead letter meanwhile
    waits for the next time: a message that nothing can handle would go round for ever.

    Raises:
        DeadLettersLeft: if some could not be sent; all others were.
        Transient: if Kafka is away.

    """
    letters = dead_letter(topic)
    policy = Policy(
        route=GROUP,
        sink="kafka",
        at_once=16,
        in_flight=100,
        order="partition",
        within=settings.kafka_request_seconds,
        then="stop",
    )
    sent = 0
    left: list[str] = []

    async def handle(letter: ConsumerRecord) -> Effect:
        return partial(send, await _whole(settings, topic, letter))

    async def send(record: ConsumerRecord) -> None:
        nonlocal sent
        headers = plain_headers(record)
        await producer.send(topic, record.value, key=record.key, headers=headers, traced=False)
        sent += 1

    async def leave(record: ConsumerRecord, reason: str, code: str = "refused") -> None:
        log.warning("letter left", topic=letters, offset=record.offset, reason=reason, code=code)
        why = raw_headers({LEFT: reason[:REASON_CHARACTERS]})
        headers = [(name, value) for name, value in record.headers if name != LEFT]
        try:
            await returned.send(letters, record.value, key=record.key, headers=[*headers, *why])
        except Permanent:  # it was as large as a letter may be
            await returned.send(letters, record.value, key=record.key, headers=headers)
        left.append(f"letter {record.offset}: {reason}")

    if not await _has_partition(settings, Place(letters, 0, 0)):
        return 0  # nor is a topic made of a name that was mistyped
    await ensure_topics(settings, [topic])
    any_size = settings.model_copy(update={"kafka_max_message_bytes": _ANY_BYTES})
    async with (
        Producer(settings) as producer,
        Producer(any_size) as returned,
        consumer(settings, letters, group=group, wait_milliseconds=WAIT_MILLISECONDS) as client,
    ):
        await consume(_Letters(client, await _ends(client)), handle, leave, policy)
    if left:
        raise DeadLettersLeft(sent, left)
    return sent


class _Letters:
    """The letters that are there now, as a source that ends."""

    def __init__(self, client: AIOKafkaConsumer, ends: Mapping[TopicPartition, int]) -> None:
        self._client = client
        self._ends = ends
        self._heard = asyncio.get_running_loop().time()

    def assignment(self) -> Collection[TopicPartition]:
        assigned: Collection[TopicPartition] = self._client.assignment()
        return assigned

    async def getmany(self, *, timeout_ms: int, max_records: int) -> Batch:
        unread = [p for p, end in self._ends.items() if await self._client.position(p) < end]
        if not unread:
            raise Ended
        found = await self._client.getmany(*unread, timeout_ms=timeout_ms, max_records=max_records)
        now = asyncio.get_running_loop().time()
        if found:
            self._heard = now
        elif now - self._heard > SILENT_SECONDS:
            message = f"Kafka gives no letter of {unread[0].topic}, and there are some"
            raise Transient(message)
        return {
            p: [record for record in records if record.offset < self._ends[p]] for p, records in found.items()
        }

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        await self._client.commit(offsets)


async def _ends(client: AIOKafkaConsumer) -> dict[TopicPartition, int]:
    """Return where each partition ends, with letters or without.

    Raises:
        Transient: if the broker does not say so, or another replay has the letters.

    """
    partitions = client.assignment()
    if not partitions:
        raise Transient("another replay of these letters is under way")
    try:
        async with asyncio.timeout(SILENT_SECONDS):
            return await told_ends(client, partitions)
    except TimeoutError as exc:
        raise Transient("Kafka does not say where the letters end") from exc


async def _whole(settings: KafkaSettings, topic: str, letter: ConsumerRecord) -> ConsumerRecord:
    """Return the message of a letter.

    Raises:
        Permanent: if the letter does not hold it, and its topic not any more.
        Transient: if Kafka is away.

    """
    facts = facts_of(DEAD_LETTER_HEADER, letter)
    if not (digest := facts.get("sha256")):
        return letter
    partition, offset = (whole_number(facts.get(name, "")) for name in ("partition", "offset"))
    if partition is None or offset is None:
        raise Permanent("the letter does not say where its message is")
    place = Place(topic, partition, offset)
    record = await _read(settings, place)
    if record is None or hashlib.sha256(record.value or b"").hexdigest() != digest:
        message = f"its message is gone from {place.topic}/{place.partition}/{place.offset}"
        raise Permanent(message)
    return record


async def _read(settings: KafkaSettings, place: Place) -> ConsumerRecord | None:
    """Read one message; None where it is not there any more."""
    partition = TopicPartition(place.topic, place.partition)
    reader = AIOKafkaConsumer(
        **connection(settings), auto_offset_reset="earliest", enable_auto_commit=False, group_id=None
    )
    try:
        with translated(f"Kafka does not give message {place.offset} of {place.topic}"):
            async with asyncio.timeout(2 * settings.kafka_request_seconds):
                if not await _has_partition(settings, place):
                    return None
                await reader.start()
                reader.assign([partition])
                reader.seek(partition, place.offset)
                return await _message_at(reader, place, settings.kafka_request_seconds)
    finally:
        await reader.stop()


async def _message_at(reader: AIOKafkaConsumer, place: Place, within: float) -> ConsumerRecord | None:
    partition = TopicPartition(place.topic, place.partition)
    deadline = asyncio.get_running_loop().time() + within
    while asyncio.get_running_loop().time() < deadline:
        try:
            batch = await reader.getmany(partition, timeout_ms=WAIT_MILLISECONDS, max_records=1)
        except UNREADABLE as exc:  # some of them are errors of Kafka's client, or of the system, too
            message = f"its message at {place.topic}/{place.partition}/{place.offset} is damaged"
            raise Permanent(message) from exc
        if batch:
            (record,) = batch[partition]
            return record if record.offset == place.offset else None
        end = reader.highwater(partition)
        if end is not None and end <= place.offset:
            break
    return None


async def _has_partition(settings: KafkaSettings, place: Place) -> bool:
    """Tell whether a message's partition exists; asked for one that does not, a consumer waits.

    Raises:
        Transient: if Kafka is away.

    """
    async with admin(settings) as client:
        # All of them: a broker may make a topic that it is asked for by name.
        return any(
            topic["topic"] == place.topic
            and place.partition in {one["partition"] for one in topic["partitions"]}
            for topic in await client.describe_topics()
        )
