"""The door: forwards between clients and the broker, and answers itself what cannot have changed.

Tansu looks at its store several times a second for a fetch that waits, and writes to it at each heartbeat.
But whatever is written comes through here. So a fetch that was asked before, and found nothing, waits here
until something is written to its topics, its client asks something else, or its wait is over; then it is told
what it was told before. So is a heartbeat, as long as nobody joined or left a group. Every so often the
broker is asked in spite of that.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

import structlog

from local_stack.doors import either, listen_until
from local_stack.kafka_door.frames import (
    ANSWER_HEAD,
    FETCH,
    HEAD,
    HEARTBEAT,
    MOVES,
    PRODUCE,
    WRITES,
    Fetch,
    Head,
    is_empty,
    topics_written,
)
from local_stack.tls.door import Address
from local_stack.tls.stream import CHUNK

log = structlog.get_logger()

Topics = AbstractSet[str] | None
"""Names of topics; None for any."""
MOST_BYTES = 2**20
"""Most bytes of a request that is looked into, and of an answer that is kept."""
LOOK_MILLISECONDS = 500
"""The broker gives up a fetch that takes longer, without a word: so long it has to list a log."""
LATE_SECONDS = 0.5
"""After a write readers look once more: it may have come without an answer, or be seen after a later one."""
SHORT_SECONDS, GROWTH = 0.5, 4
"""A fetch waits here for so long at least, and for a quarter of the time for which nothing came."""
NET_SECONDS = 30.0
"""The broker is asked after so long, whatever is known."""
CONNECT_SECONDS = 5.0


@dataclass(slots=True)
class _Known:
    """A question, when it was first and last asked, and its answer if that says that nothing is new."""

    question: object
    version: int
    seen: int
    first: float
    last: float
    answer: bytes | None = None

    def holds(self, question: object, seen: int) -> bool:
        """Tell whether nothing has changed since it was asked."""
        return self.question == question and self.seen == seen


@dataclass(slots=True)
class _Connection:
    """What is known of a client: what it asked, by API, and its questions on their way."""

    known: dict[int, _Known] = field(default_factory=dict)
    asked: deque[Head] = field(default_factory=deque)
    """The requests that have no answer yet, in their order, which that of the answers is."""


class KafkaDoor:
    """Forwards to a broker.

    Args:
        broker: where it listens.

    """

    def __init__(self, broker: Address) -> None:
        self._broker = broker
        self._moved = 0
        self._written = Counter[str]()
        """How often readers of a topic were told; those of all, and all in all, in the next line."""
        self._told_all = self._told = 0
        self._waiting: dict[asyncio.Event, Topics] = {}
        self._late: asyncio.TimerHandle | None = None
        self._late_topics: Topics = frozenset()
        """Topics of the writes that were answered since the last late look was planned."""
        self._unanswered = 0
        """Writes that are on their way."""
        self._open: set[asyncio.Task[None]] = set()

    async def serve(self, listen: Address, stop: asyncio.Event, started: asyncio.Event | None = None) -> None:
        """Listen until told to stop.

        Raises:
            StackError: if the address cannot be listened on.

        """
        try:
            await listen_until(stop, listen, self._accept, self._open, started=started)
        finally:
            if self._late is not None:
                self._late.cancel()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None:
            raise AssertionError  # a coroutine of a server runs in a task
        self._open.add(task)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                from_broker, to_broker = await asyncio.open_connection(
                    self._broker.host, self._broker.port, limit=CHUNK
                )
        except (OSError, TimeoutError):
            pass  # it is not there yet: the client is hung up on, as it would be by the broker's own port
        else:
            try:
                connection = _Connection()
                await either(
                    self._ask(reader, to_broker, writer, connection),
                    self._answer(from_broker, writer, connection),
                )
            finally:
                for head in connection.asked:
                    self._end_unanswered(head)
                to_broker.close()
        finally:
            self._open.discard(task)
            writer.close()

    # --- questions ----------------------------------------------------------------------------------

    async def _ask(
        self,
        reader: asyncio.StreamReader,
        broker: asyncio.StreamWriter,
        client: asyncio.StreamWriter,
        connection: _Connection,
    ) -> None:
        coming = asyncio.create_task(reader.readexactly(HEAD.size))
        try:
            while True:
                raw = await coming
                try:
                    head = Head.parse(raw)
                except ValueError:
                    return  # who does not speak Kafka is hung up on
                if head.api in (FETCH, HEARTBEAT) and head.rest <= MOST_BYTES:
                    body = await reader.readexactly(head.rest)
                    coming = asyncio.create_task(reader.readexactly(HEAD.size))
                    hold = self._fetch if head.api == FETCH else self._heartbeat
                    question, answer = await hold(head, body, connection, coming)
                    if answer is None:
                        connection.asked.append(head)
                        broker.write(raw + question)
                        await broker.drain()
                    else:
                        client.write(ANSWER_HEAD.pack(len(answer) + 4, head.correlation) + answer)
                        await client.drain()
                    continue
                connection.asked.append(head)
                self._unanswered += head.api in WRITES
                broker.write(raw)
                await _copy(reader, broker, head.rest)
                if head.api in MOVES:
                    self._moved += 1
                if head.api in WRITES:
                    self._look_late()
                coming = asyncio.create_task(reader.readexactly(HEAD.size))
        finally:
            coming.cancel()

    async def _fetch(
        self, head: Head, body: bytes, connection: _Connection, coming: asyncio.Task[bytes]
    ) -> tuple[bytes, bytes | None]:
        """Return a fetch as it is to be asked, and its answer if that is known, once there is reason to."""
        try:
            fetch = Fetch.parse(head.version, body)
        except ValueError:
            return body, None
        question = fetch.waiting(min(fetch.wait, LOOK_MILLISECONDS))
        now = asyncio.get_running_loop().time()
        known = connection.known.get(FETCH)
        if known is not None and known.holds(fetch.asked, self._seen(fetch.topics)) and not connection.asked:
            longest = max(SHORT_SECONDS, (now - known.first) / GROWTH)
            await self._wait_for_news(fetch.topics, coming, min(fetch.wait / 1000, longest))
            seen = self._seen(fetch.topics)
            if known.seen == seen and known.answer is not None and now < known.last + NET_SECONDS:
                return question, known.answer
            now = asyncio.get_running_loop().time()
            known.seen, known.last, known.answer = seen, now, None
        else:
            seen = self._seen(fetch.topics)
            connection.known[FETCH] = _Known(fetch.asked, head.version, seen, now, now)
        return question, None

    def _seen(self, topics: Topics) -> int:
        """Return a number that grows with whatever is told of topics."""
        if topics is None:
            return self._told
        return self._told_all + sum(self._written[topic] for topic in topics)

    async def _wait_for_news(self, topics: Topics, coming: asyncio.Task[bytes], seconds: float) -> None:
        news = asyncio.Event()
        self._waiting[news] = topics
        come = asyncio.create_task(news.wait())
        try:
            await asyncio.wait({come, coming}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            come.cancel()
            del self._waiting[news]

    async def _heartbeat(
        self, head: Head, body: bytes, connection: _Connection, _: asyncio.Task[bytes]
    ) -> tuple[bytes, bytes | None]:
        """Return a heartbeat as it is to be asked, and its answer if that is known."""
        now = asyncio.get_running_loop().time()
        known = connection.known.get(HEARTBEAT)
        if (
            known is not None
            and known.holds(body, self._moved)
            and now < known.last + NET_SECONDS
            and not connection.asked
        ):
            return body, known.answer
        connection.known[HEARTBEAT] = _Known(body, head.version, self._moved, now, now)
        return body, None

    # --- answers ------------------------------------------------------------------------------------

    async def _answer(
        self, broker: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: _Connection
    ) -> None:
        while True:
            raw = await broker.readexactly(ANSWER_HEAD.size)
            size, correlation = ANSWER_HEAD.unpack(raw)
            rest = size - (ANSWER_HEAD.size - 4)
            head = self._asked(connection, correlation)
            answer = None
            if head is not None and head.api in (FETCH, HEARTBEAT, PRODUCE) and rest <= MOST_BYTES:
                answer = await broker.readexactly(rest)
                writer.write(raw + answer)
                await writer.drain()
            else:
                writer.write(raw)
                await _copy(broker, writer, rest)
            if head is None:
                continue
            connection.asked.popleft()
            if head.api in WRITES:
                self._unanswered -= 1
                self._tell_answered(None if answer is None else topics_written(head.version, answer))
            elif answer is not None:
                _keep(connection.known.get(head.api), head.api, answer)
            if head.api in MOVES:
                self._moved += 1

    def _asked(self, connection: _Connection, correlation: int) -> Head | None:
        """Return what an answer is for. What was asked before that has none: a write may ask for none."""
        if all(head.correlation != correlation for head in connection.asked):
            return None
        while connection.asked[0].correlation != correlation:
            self._end_unanswered(connection.asked.popleft())
        return connection.asked[0]

    def _end_unanswered(self, head: Head) -> None:
        """Let what may have been written be looked for, now and once more."""
        if head.api in WRITES:
            self._unanswered -= 1
            self._look_late()
            self._tell_answered(None)

    def _look_late(self) -> None:
        if self._late is None:
            self._late_topics = frozenset()
            self._late = asyncio.get_running_loop().call_later(LATE_SECONDS, self._tell_late)

    def _tell_answered(self, topics: Topics) -> None:
        self._tell(topics)
        late = self._late_topics
        self._late_topics = None if topics is None or late is None else late | topics

    def _tell_late(self) -> None:
        self._late = None
        self._tell(None if self._unanswered else self._late_topics)

    def _tell(self, topics: Topics) -> None:
        """Let the fetches of these topics go."""
        self._told += 1
        if topics is None:
            self._told_all += 1
        else:
            self._written.update(topics)
        for news, of in self._waiting.items():
            if topics is None or of is None or topics & of:
                news.set()


def _keep(known: _Known | None, api: int, answer: bytes) -> None:
    """Keep an answer that says that nothing is new; a heartbeat's says so with zeros alone."""
    if known is not None:
        says_nothing = is_empty(known.version, answer) if api == FETCH else not any(answer)
        known.answer = answer if says_nothing else None


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, count: int) -> None:
    while count > 0:
        data = await reader.read(min(count, CHUNK))
        if not data:
            raise EOFError
        writer.write(data)
        count -= len(data)
        await writer.drain()
