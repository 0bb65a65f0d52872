"""What tests have instead of the outside behaves as it says."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import obstore
import pytest
from obstore.store import MemoryStore

from caravan import s3
from caravan.errors import Transient
from caravan.testing.kafka import Kafka, Sent, Topic, record
from caravan.testing.links import Link
from caravan.testing.stores import Requests
from caravan.testing.waiting import running, until


async def test_what_is_sent_comes_to_the_topic_that_somebody_reads() -> None:
    topic = Topic("trigger")
    kafka = Kafka(topic)
    await kafka.send("trigger", b"edge1", key=b"k", headers=[("batch", b"b")])
    await kafka.send("edge1", b"{}")
    assert kafka.sent == [Sent("trigger", b"edge1", [("batch", b"b")]), Sent("edge1", b"{}")]
    ((partition, (message,)),) = (await topic.getmany(timeout_ms=100, max_records=10)).items()
    assert (message.value, message.key, list(message.headers)) == (b"edge1", b"k", [("batch", b"b")])
    await topic.commit({partition: 1})
    assert topic.offset == 1
    with pytest.raises(AssertionError, match="commits only go on"):
        await topic.commit({partition: 1})


async def test_a_broker_fails_what_is_meant_so_often_as_it_is_told() -> None:
    kafka = Kafka()
    kafka.fail(Transient("away"), where=lambda sent: sent.topic == "trigger", after=1, times=2)
    outcomes = []
    for topic in ("trigger", "edge1", "trigger", "trigger", "trigger"):
        try:
            await kafka.send(topic, b"")
        except Transient:
            outcomes.append("away")
        else:
            outcomes.append("sent")
    assert outcomes == ["sent", "sent", "away", "away", "sent"]
    assert (kafka.failed, len(kafka.to("trigger"))) == (2, 2)
    kafka.loses_answers = 1
    with pytest.raises(Transient):
        await kafka.send("edge1", b"taken all the same")
    assert kafka.to("edge1")[-1].value == b"taken all the same"


def test_a_record_has_what_a_consumer_gets() -> None:
    message = record(b"value", key=b"k", headers=[("a", None)], topic="t", offset=7, timestamp=5)
    assert (message.topic, message.offset, message.timestamp) == ("t", 7, 5)
    assert (message.serialized_key_size, message.serialized_value_size) == (1, 5)
    assert message.headers == (("a", None),)


@pytest.mark.parametrize(("module", "function"), [(s3, "write"), (obstore, "put_async")])
async def test_requests_to_a_store_are_noted_and_fail_as_they_are_told(
    monkeypatch: pytest.MonkeyPatch, module: object, function: str
) -> None:
    store, writes = MemoryStore(), Requests(monkeypatch, module, function)
    writes.fail(Transient("killed"), after=1)
    await s3.write(store, "a", b"1")
    with pytest.raises(Transient):
        await s3.write(store, "b", b"2")
    writes.mend()
    await s3.write(store, "c", b"3")
    assert writes.keys == ["a", "c"]
    assert [entry["path"] async for entry in s3.listing(store)] == ["a", "c"]


async def test_a_link_carries_until_it_is_cut_and_again_once_it_is_mended() -> None:
    async with echo() as address:
        link = Link(address)
        async with link.listening() as here:
            reader, writer = await connect(here)
            assert await said(reader, writer) == b"hello\n"
            link.cut()
            assert await reader.read() == b""
            assert await refused(here)
            link.mend()
            assert await said(*await connect(here)) == b"hello\n"


async def test_a_loop_runs_until_the_test_ends_it_and_its_error_is_told() -> None:
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async with running(turn()):
        assert await until(lambda: turns > 3)
    seen = turns
    await asyncio.sleep(0)
    assert turns == seen

    async def breaks() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        async with running(breaks()) as (task,):
            await until(task.done)


async def test_what_does_not_come_true_is_told_with_the_last_answer() -> None:
    with pytest.raises(AssertionError, match="the last answer was 0"):
        await until(lambda: 0, seconds=0)


# --- a server at the other end ---------------------------------------------------------------------


@contextlib.asynccontextmanager
async def echo() -> AsyncIterator[str]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError), contextlib.closing(writer):
            while line := await reader.readline():
                writer.write(line)

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def connect(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = address.rpartition(":")
    return await asyncio.open_connection(host, int(port))


async def said(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    writer.write(b"hello\n")
    async with asyncio.timeout(20):
        return await reader.readline()


async def refused(address: str) -> bool:
    """Tell whether a connection is of no use."""
    try:
        reader, writer = await connect(address)
        return await said(reader, writer) == b""
    except OSError:
        return True
