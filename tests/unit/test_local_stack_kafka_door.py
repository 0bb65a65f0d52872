"""The door before the embedded Kafka broker: what it forwards, what it holds back, what it answers itself."""

import asyncio
import struct
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from caravan.testing.waiting import until
from local_stack.kafka_door import door
from local_stack.kafka_door.door import KafkaDoor
from local_stack.kafka_door.frames import Fetch
from local_stack.tls.door import Address

PRODUCE, FETCH, METADATA, JOIN, HEARTBEAT = 0, 1, 3, 11, 12
HOUR = 3_600_000
NAME = struct.pack(">h", 2) + b"me"


def fetch(offset: int, *, wait: int = HOUR, partitions: tuple[int, ...] = (0,)) -> bytes:
    """What follows the head of a fetch (version 4) of topic `t`."""
    asked = b"".join(struct.pack(">iqi", number, offset, 1000) for number in partitions)
    topic = struct.pack(">h1si", 1, b"t", len(partitions)) + asked
    return NAME + struct.pack(">iiiibi", -1, wait, 1, 1000, 0, 1) + topic


def nothing(version_4_records: bytes = b"", error: int = 0) -> bytes:
    """What follows the head of its answer."""
    records = struct.pack(">i", len(version_4_records)) + version_4_records
    return (
        struct.pack(">ii", 0, 1)
        + struct.pack(">h1si", 1, b"t", 1)
        + struct.pack(">ihqqi", 0, error, 0, 0, 0)
        + records
    )


class Broker:
    """A broker that counts what it is asked, and answers at once."""

    def __init__(self) -> None:
        self.asked: Counter[int] = Counter()
        self.waits: list[int] = []
        self.answers: dict[int, bytes | None] = {FETCH: nothing(), HEARTBEAT: struct.pack(">ih", 0, 0)}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                size, api, version, correlation = struct.unpack(">ihhi", await reader.readexactly(12))
                body = await reader.readexactly(size - 8)
                self.asked[api] += 1
                if api == FETCH:
                    self.waits.append(Fetch.parse(version, body).wait)
                answer = self.answers.get(api, b"")
                if answer is not None:
                    writer.write(struct.pack(">ii", len(answer) + 4, correlation) + answer)
        except asyncio.IncompleteReadError:
            writer.close()


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer, self._number = reader, writer, 0

    def send(self, api: int, body: bytes = NAME, version: int = 4) -> None:
        self._number += 1
        self._writer.write(struct.pack(">ihhi", len(body) + 8, api, version, self._number) + body)

    async def answer(self) -> tuple[int, bytes]:
        async with asyncio.timeout(10):
            size, number = struct.unpack(">ii", await self._reader.readexactly(8))
            return number, await self._reader.readexactly(size - 4)

    async def ask(self, api: int, body: bytes = NAME, version: int = 4) -> bytes:
        self.send(api, body, version)
        number, answer = await self.answer()
        assert number == self._number
        return answer

    def hang_up(self) -> None:
        self._writer.close()


class Place:
    def __init__(self, broker: Broker, port: int) -> None:
        self.broker, self.port = broker, port

    async def client(self) -> Client:
        return Client(*await asyncio.open_connection("127.0.0.1", self.port))


@asynccontextmanager
async def opened() -> AsyncIterator[Place]:
    broker, stop, started = Broker(), asyncio.Event(), asyncio.Event()
    behind = await asyncio.start_server(broker.serve, "127.0.0.1", 0)
    spare = await asyncio.start_server(broker.serve, "127.0.0.1", 0)
    port = spare.sockets[0].getsockname()[1]
    spare.close()
    await spare.wait_closed()
    door = KafkaDoor(Address("127.0.0.1", behind.sockets[0].getsockname()[1]))
    serving = asyncio.create_task(door.serve(Address("127.0.0.1", port), stop, started))
    await started.wait()
    try:
        yield Place(broker, port)
    finally:
        stop.set()
        await serving
        behind.close()


async def test_a_fetch_that_found_nothing_is_asked_again_once_something_is_written() -> None:
    async with opened() as place:
        reader, writer = await place.client(), await place.client()
        await reader.ask(FETCH, fetch(7))
        reader.send(FETCH, fetch(7))
        waiting = asyncio.create_task(reader.answer())
        await writer.ask(METADATA)
        assert place.broker.asked[FETCH] == 1
        place.broker.answers[FETCH] = nothing(b"news")
        await writer.ask(PRODUCE)
        _, answer = await waiting
    assert answer == nothing(b"news")
    assert place.broker.asked[FETCH] == 2


async def test_told_to_stop_it_ends_connections_without_a_word() -> None:
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    async with opened() as place:
        client = await place.client()
        await client.ask(METADATA)
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await client.answer()
    assert told == []


def written(topic: bytes) -> bytes:
    """What follows the head of a Produce's answer (version 4)."""
    return struct.pack(f">ih{len(topic)}siihqqi", 1, len(topic), topic, 1, 0, 0, 0, 0, 0)


async def test_what_is_written_to_a_topic_is_news_for_its_readers_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(door, "LATE_SECONDS", 0.01)
    async with opened() as place:
        reader, writer = await place.client(), await place.client()
        await reader.ask(FETCH, fetch(7))
        reader.send(FETCH, fetch(7))
        waiting = asyncio.create_task(reader.answer())
        place.broker.answers[PRODUCE] = written(b"other")
        await writer.ask(PRODUCE)
        await asyncio.sleep(0.1)
        assert place.broker.asked[FETCH] == 1
        place.broker.answers |= {PRODUCE: written(b"t"), FETCH: nothing(b"news")}
        await writer.ask(PRODUCE)
        _, answer = await waiting
    assert answer == nothing(b"news")


async def test_a_write_without_an_answer_is_news_for_all() -> None:
    async with opened() as place:
        reader, writer = await place.client(), await place.client()
        await reader.ask(FETCH, fetch(7))
        reader.send(FETCH, fetch(7))
        waiting = asyncio.create_task(reader.answer())
        place.broker.answers |= {PRODUCE: None, FETCH: nothing(b"news")}
        writer.send(PRODUCE)
        _, answer = await waiting
    assert answer == nothing(b"news")


async def test_what_a_writer_that_hung_up_may_have_written_is_news_for_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(door, "LATE_SECONDS", 0.01)
    async with opened() as place:
        reader, writer = await place.client(), await place.client()
        place.broker.answers[PRODUCE] = None
        writer.send(PRODUCE)
        await until(lambda: place.broker.asked[PRODUCE] == 1)
        await asyncio.sleep(0.1)  # readers have looked late, and in vain
        await reader.ask(FETCH, fetch(7))
        reader.send(FETCH, fetch(7))
        waiting = asyncio.create_task(reader.answer())
        await (await place.client()).ask(METADATA)
        place.broker.answers[FETCH] = nothing(b"news")
        writer.hang_up()
        _, answer = await waiting
    assert answer == nothing(b"news")


async def test_writes_that_ask_for_no_answer_are_forgotten_with_the_next_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(door, "LATE_SECONDS", HOUR)
    async with opened() as place:
        client = await place.client()
        place.broker.answers[PRODUCE] = None
        for _ in range(3):
            client.send(PRODUCE)
        await client.ask(METADATA)
        for _ in range(2):  # the second waits at the door: nothing else is on its way
            await client.ask(FETCH, fetch(7, wait=10))
    assert place.broker.asked[FETCH] == 1


async def test_a_fetch_whose_wait_is_over_is_told_what_it_was_told_before() -> None:
    async with opened() as place:
        reader = await place.client()
        first = await reader.ask(FETCH, fetch(7, wait=10))
        assert await reader.ask(FETCH, fetch(7, wait=10)) == first == nothing()
    assert place.broker.asked[FETCH] == 1


async def test_the_same_partitions_in_another_order_are_the_same_question() -> None:
    async with opened() as place:
        reader = await place.client()
        await reader.ask(FETCH, fetch(7, wait=10, partitions=(0, 1)))
        await reader.ask(FETCH, fetch(7, wait=10, partitions=(1, 0)))
    assert place.broker.asked[FETCH] == 1


async def test_another_offset_is_another_question() -> None:
    async with opened() as place:
        reader = await place.client()
        await reader.ask(FETCH, fetch(7))
        await reader.ask(FETCH, fetch(8))
    assert place.broker.asked[FETCH] == 2


@pytest.mark.parametrize("answer", [nothing(error=3), nothing(b"records"), b"something else"])
async def test_an_answer_that_says_more_than_nothing_is_not_given_twice(answer: bytes) -> None:
    async with opened() as place:
        place.broker.answers[FETCH] = answer
        reader = await place.client()
        for _ in range(2):
            assert await reader.ask(FETCH, fetch(7, wait=10)) == answer
    assert place.broker.asked[FETCH] == 2


async def test_what_a_client_asks_behind_a_fetch_does_not_wait_for_it() -> None:
    async with opened() as place:
        reader = await place.client()
        await reader.ask(FETCH, fetch(7))
        reader.send(FETCH, fetch(7))
        reader.send(METADATA)
        assert [(await reader.answer())[0] for _ in range(2)] == [2, 3]


async def test_the_broker_is_given_no_longer_than_it_looks_well() -> None:
    async with opened() as place:
        await (await place.client()).ask(FETCH, fetch(7, wait=HOUR))
        await (await place.client()).ask(FETCH, fetch(7, wait=20))
    assert place.broker.waits == [500, 20]


async def test_a_heartbeat_is_asked_again_once_a_member_comes_or_goes() -> None:
    async with opened() as place:
        member, other = await place.client(), await place.client()
        first = await member.ask(HEARTBEAT, version=1)
        assert await member.ask(HEARTBEAT, version=1) == first
        assert place.broker.asked[HEARTBEAT] == 1
        await other.ask(JOIN)
        await member.ask(HEARTBEAT, version=1)
    assert place.broker.asked[HEARTBEAT] == 2


async def test_a_heartbeat_that_was_refused_is_asked_again() -> None:
    async with opened() as place:
        place.broker.answers[HEARTBEAT] = struct.pack(">ih", 0, 27)
        member = await place.client()
        for _ in range(2):
            await member.ask(HEARTBEAT, version=1)
    assert place.broker.asked[HEARTBEAT] == 2


async def test_a_large_message_passes_whole() -> None:
    async with opened() as place:
        place.broker.answers[PRODUCE] = bytes(3_000_000)
        assert await (await place.client()).ask(PRODUCE, NAME + bytes(2_000_000)) == bytes(3_000_000)


async def test_a_client_that_hangs_up_while_it_waits_is_let_go() -> None:
    async with opened() as place:
        reader = await place.client()
        await reader.ask(FETCH, fetch(7))
        reader.send(FETCH, fetch(7))
        reader.hang_up()
        assert await (await place.client()).ask(METADATA) == b""
