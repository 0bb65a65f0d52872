"""Messages that cannot be handled, or not yet: dead letters with their reason, and parked messages."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol

import structlog
from aiokafka import ConsumerRecord

from caravan import telemetry
from caravan.contracts import dead_letter, first_topic
from caravan.errors import Permanent
from caravan.kafka import Producer

log = structlog.get_logger()

SMALL_BYTES = 16 * 1024
"""Most bytes of key and headers kept of a message whose value is too large."""
REASON_CHARACTERS = 500
DEAD_LETTER_HEADER = "dead-letter-"
"""Prefix of our own headers on a dead letter."""
PARKED = "caravan-parked-"
"""Prefix of our own headers on a parked message."""
MOST_DIGITS = 18
"""Most digits of an offset, so that it fits into 64 bits."""


class Place(NamedTuple):
    """Where a message is, or was first."""

    topic: str
    partition: int
    offset: int


class SendDeadLetter(Protocol):
    """Keeps a message that cannot be handled: `send_dead_letter` with its first two arguments given."""

    async def __call__(self, record: ConsumerRecord, reason: str, code: str = "refused") -> None:
        """Return once the broker has it."""
        ...


async def send_dead_letter(
    producer: Producer, route: str, record: ConsumerRecord, reason: str, code: str = "refused"
) -> None:
    """Send a message that cannot be handled to its dead-letter topic, as it came, with the reason.

    If Kafka does not take all of that, the letter has no value: its size and SHA-256 are kept, and where it
    is, so that it can be found in its own topic for as long as that keeps it.

    Args:
        producer: to send it with.
        route: which could not handle it.
        record: the message.
        reason: a sentence for who looks at it.
        code: the reason in a word or three, one of few, for counting.

    """
    first = first_place(record)
    topic = dead_letter(first.topic)
    came = plain_headers(record)
    facts = {
        "route": route,
        "reason": reason[:REASON_CHARACTERS],
        "code": code,
        "partition": str(first.partition),
        "offset": str(first.offset),
    }
    try:
        await producer.send(
            topic, record.value, key=record.key, headers=[*came, *_prefixed(DEAD_LETTER_HEADER, facts)]
        )
    except Permanent:
        value = record.value or b""
        digest = await asyncio.to_thread(hashlib.sha256, value)
        facts |= {"size": str(len(value)), "sha256": digest.hexdigest()}
        around = len(record.key or b"") + sum(len(name) + len(text or b"") for name, text in came)
        key, came = (record.key, came) if around <= SMALL_BYTES else (None, [])
        await producer.send(topic, None, key=key, headers=[*came, *_prefixed(DEAD_LETTER_HEADER, facts)])
        telemetry.DEAD_LETTERS_WITHOUT_VALUE.labels(route).inc()
    telemetry.DEAD_LETTERS.labels(route, code).inc()
    log.warning("dead letter", topic=first.topic, offset=first.offset, reason=reason)


async def park(producer: Producer, topic: str, record: ConsumerRecord) -> None:
    """Send a message to a topic where it is read again later, so that it can be committed here.

    Raises:
        Transient: if Kafka is away.
        Permanent: if it is too large with what is added, which says since when it waits and from where it is.

    """
    first, now = first_place(record), int(time.time())
    facts = {
        "since": str(min(_parked_since(record) or now, now)),  # a clock may have been ahead
        "topic": first.topic,
        "partition": str(first.partition),
        "offset": str(first.offset),
    }
    headers = [*plain_headers(record), *_prefixed(PARKED, facts)]
    await producer.send(topic, record.value, key=record.key, headers=headers)
    telemetry.PARKED.labels(topic).inc()
    log.warning("message parked", topic=topic, partition=first.partition, offset=first.offset)


def parked_for(record: ConsumerRecord) -> float:
    """Return the seconds since a message was first parked; 0 if it never was."""
    since = _parked_since(record)
    return max(0.0, time.time() - since) if since else 0.0


def _parked_since(record: ConsumerRecord) -> int:
    return whole_number(facts_of(PARKED, record).get("since", "")) or 0


def first_place(record: ConsumerRecord) -> Place:
    """Return where a message was before it was parked.

    The topic is told by the one that it comes from: anyone may send a header.
    """
    topic, facts = first_topic(record.topic), facts_of(PARKED, record)
    if not facts:
        return Place(topic, record.partition, record.offset)
    return Place(topic, *(whole_number(facts.get(name, "")) or 0 for name in ("partition", "offset")))


def plain_headers(record: ConsumerRecord) -> list[tuple[str, bytes | None]]:
    """Return a message's headers without those that made a dead letter of it, or parked it."""
    return [
        (name, value) for name, value in record.headers if not name.startswith((DEAD_LETTER_HEADER, PARKED))
    ]


def facts_of(prefix: str, record: ConsumerRecord) -> dict[str, str]:
    """Return the headers whose names begin so, without that beginning, as text."""
    return {
        name.removeprefix(prefix): (value or b"").decode(errors="replace")
        for name, value in record.headers
        if name.startswith(prefix)
    }


def _prefixed(prefix: str, facts: Mapping[str, str]) -> Iterable[tuple[str, bytes]]:
    return ((prefix + name, text.encode(errors="replace")) for name, text in facts.items())


def whole_number(text: str) -> int | None:
    """Return the number that a header says, such as an offset; None if it says none that Kafka could have."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= MOST_DIGITS else None
