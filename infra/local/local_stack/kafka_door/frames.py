"""What the door reads of Kafka's requests and answers: their heads, and what a fetch asks for and is told.

The protocol: https://kafka.apache.org/protocol.html
"""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from aiokafka.protocol import fetch, produce

PRODUCE, FETCH, HEARTBEAT = 0, 1, 12
WRITES = frozenset({PRODUCE, 19, 20, 21, 26})
"""Produce, CreateTopics, DeleteTopics, DeleteRecords, EndTxn: a reader may find something new afterwards."""
MOVES = frozenset({11, 13, 14, 42})
"""JoinGroup, LeaveGroup, SyncGroup, DeleteGroups: a member may be told something new afterwards."""

HEAD = struct.Struct(">ihhi")
ANSWER_HEAD = struct.Struct(">ii")
_WAIT = struct.Struct(">i")
_FLEXIBLE, _WITHOUT_REPLICA = 12, 15
"""Versions of a fetch from which heads end with tagged fields, and from which the wait is its first field."""
_FETCHES: Mapping[int, Any] = {
    request.API_VERSION: request for name, request in vars(fetch).items() if name.startswith("FetchRequest_v")
}
_PRODUCES: Mapping[int, Any] = {
    request.API_VERSION: request
    for name, request in vars(produce).items()
    if name.startswith("ProduceRequest_v")
}
_MALFORMED = (struct.error, IndexError, TypeError, ValueError)


@dataclass(frozen=True, slots=True)
class Head:
    """A request's head: `rest` bytes follow it."""

    rest: int
    api: int
    version: int
    correlation: int

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Read HEAD.size bytes.

        Raises:
            ValueError: if they are no request's.

        """
        size, api, version, correlation = HEAD.unpack(raw)
        rest = size - (HEAD.size - 4)
        if rest < 0:
            message = f"a request of {size} bytes"
            raise ValueError(message)
        return cls(rest, api, version, correlation)


@dataclass(frozen=True, slots=True)
class Fetch:
    """A fetch: how long it may wait, in milliseconds, and for what, equal for the same question.

    `topics` are the names of its topics, None where it names none.
    """

    wait: int
    asked: object
    topics: frozenset[str] | None
    _raw: bytes
    _place: int

    @classmethod
    def parse(cls, version: int, raw: bytes) -> Self:
        """Read what follows a fetch's head.

        Raises:
            ValueError: if it is not understood.

        """
        try:
            (name,) = struct.unpack_from(">h", raw)
            place = 2 + max(0, name)
            if version >= _FLEXIBLE:
                if raw[place]:
                    message = "tagged fields"
                    raise ValueError(message)
                place += 1
            request = _FETCHES.get(version)
            # Clients ask for their partitions in any order.
            asked, topics = (raw, None) if request is None else _asked(request.SCHEMA, raw[place:])
            place += 0 if version >= _WITHOUT_REPLICA else 4
            (wait,) = _WAIT.unpack_from(raw, place)
        except _MALFORMED as exc:
            message = f"a fetch that is not understood: {exc}"
            raise ValueError(message) from exc
        return cls(wait, asked, topics, raw, place)

    def waiting(self, wait: int) -> bytes:
        """Return it with another wait, in milliseconds."""
        return self._raw[: self._place] + _WAIT.pack(wait) + self._raw[self._place + _WAIT.size :]


def _asked(schema: Any, raw: bytes) -> tuple[object, frozenset[str] | None]:
    """Return a fetch's fields, and the names of its topics."""
    fields = schema.decode(io.BytesIO(raw))
    named = dict(zip(schema.names, fields, strict=True))
    # One of a session does not name the topics that it asked for before.
    topics = None if named.get("session_id") else frozenset(topic for topic, *_ in named["topics"])
    return _sorted(fields), topics


def topics_written(version: int, answer: bytes) -> frozenset[str] | None:
    """Return the names of the topics that a Produce is answered for; None where they cannot be told."""
    request = _PRODUCES.get(version)
    if request is None:
        return None
    schema = request.RESPONSE_TYPE.SCHEMA
    try:
        fields = dict(zip(schema.names, schema.decode(io.BytesIO(answer)), strict=True))
    except _MALFORMED:
        return None
    return frozenset(topic for topic, *_ in fields["topics"])


def is_empty(version: int, answer: bytes) -> bool:
    """Tell whether a fetch's answer surely says that there is nothing and that nothing is wrong."""
    request = _FETCHES.get(version)
    if request is None:
        return False
    try:
        fields = request.RESPONSE_TYPE.SCHEMA.decode(io.BytesIO(answer))
        # A topic is its name and partitions; of these the second field is the error, the last the records.
        return all(not one[1] and not one[-1] for _, partitions in fields[-1] for one in partitions)
    except _MALFORMED:
        return False


def _sorted(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(sorted(map(_sorted, value), key=repr))
    return tuple(map(_sorted, value)) if isinstance(value, tuple) else value
