"""Dead letters as they are shown: those that were not sent again yet, with their reason and a look at them.

The offsets that `caravan.replay` commits as group `replay` say which have been sent again.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aiokafka import ConsumerRecord, TopicPartition

from caravan import times
from caravan.contracts import dead_letter
from caravan.dead_letters import DEAD_LETTER_HEADER, plain_headers, whole_number
from caravan.kafka import written

SUFFIX = dead_letter("")
KEPT = 20
"""Newest dead letters shown per topic; the others are counted."""
LOOK_CHARACTERS = 300
MOST_HEADERS = 10
MAGIC = {b"\xff\xd8\xff": "JPEG image", b"\x89PNG": "PNG image", b"RIFF": "WebP image", b"PK\x03\x04": "ZIP"}


@dataclass(slots=True)
class Topic:
    """One topic's dead letters; `name` is where they would be sent again."""

    name: str
    next: dict[int, int] = field(default_factory=dict)
    """The offset after the last letter seen, by partition."""
    sent: dict[int, int] = field(default_factory=dict)
    """The offset before which all letters were replayed or are gone, by partition."""
    letters: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=KEPT))
    replaying: bool = False
    result: dict[str, Any] | None = None

    @property
    def count(self) -> int:
        """How many letters wait."""
        return sum(max(0, offset - self.sent.get(partition, 0)) for partition, offset in self.next.items())

    def as_json(self) -> dict[str, Any]:
        """Return what is shown of it, the newest letter first."""
        return {
            "topic": self.name,
            "count": self.count,
            "replaying": self.replaying,
            "result": self.result,
            "letters": list(reversed(self.letters)),
        }


class DeadLetters:
    """The dead letters of all topics."""

    def __init__(self) -> None:
        self.topics: dict[str, Topic] = {}

    def as_json(self) -> list[dict[str, Any]]:
        """Return the topics that have letters, or had some sent again from here."""
        shown = (t for t in self.topics.values() if t.count or t.replaying or t.result)
        return [topic.as_json() for topic in sorted(shown, key=lambda topic: topic.name)]

    def topic_of(self, partition: TopicPartition) -> Topic:
        """Return the topic that the letters of this partition belong to."""
        name = partition.topic.removesuffix(SUFFIX)
        return self.topics.setdefault(name, Topic(name))

    def take(self, partition: TopicPartition, record: ConsumerRecord) -> None:
        """Take a letter in."""
        topic = self.topic_of(partition)
        topic.letters.append(look_at(record))
        topic.next[partition.partition] = record.offset + 1

    def sent_again(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Let go of the letters before these offsets."""
        for partition, offset in offsets.items():
            topic = self.topic_of(partition)
            topic.next.setdefault(partition.partition, offset)
            if topic.sent.get(partition.partition) == offset:
                continue
            topic.sent[partition.partition] = offset
            topic.letters = deque(
                (
                    letter
                    for letter in topic.letters
                    if letter["partition"] != partition.partition or letter["offset"] >= offset
                ),
                maxlen=KEPT,
            )


def look_at(record: ConsumerRecord) -> dict[str, Any]:
    """Return what is shown of a letter: why, from where, and the beginning of its value as text."""
    facts = {
        name.removeprefix(DEAD_LETTER_HEADER): (value or b"").decode(errors="replace")
        for name, value in record.headers
        if name.startswith(DEAD_LETTER_HEADER)
    }
    value = record.value or b""
    kind, text = _look(value)
    size = whole_number(facts.get("size", ""))
    return {
        "partition": record.partition,
        "offset": record.offset,
        "at": times.iso(written(record, time.time())),
        "route": facts.get("route", ""),
        "code": facts.get("code", ""),
        "reason": facts.get("reason", ""),
        "key": _short((record.key or b"").decode(errors="replace")),
        "headers": {
            _short(name): _short((content or b"").decode(errors="replace"))
            for name, content in plain_headers(record)[:MOST_HEADERS]
        },
        "size": len(value) if size is None else size,
        "whole": "sha256" not in facts,
        "kind": kind,
        "look": text,
    }


def result(sent: int | None, fault: str) -> dict[str, Any]:
    """Return how sending letters again has ended."""
    return {"sent": sent, "fault": fault, "at": times.now()}


def _look(value: bytes) -> tuple[str, str]:
    for magic, kind in MAGIC.items():
        if value.startswith(magic):
            return kind, ""
    try:
        text = value[: 4 * LOOK_CHARACTERS].decode(
            errors="strict" if len(value) < LOOK_CHARACTERS else "ignore"
        )
    except UnicodeDecodeError:
        return "bytes", value[:32].hex(" ")
    if text and sum(character.isprintable() or character.isspace() for character in text) < 0.9 * len(text):
        return "bytes", value[:32].hex(" ")
    return "text", _short(text)


def _short(text: str) -> str:
    return text if len(text) <= LOOK_CHARACTERS else text[: LOOK_CHARACTERS - 1] + "…"
