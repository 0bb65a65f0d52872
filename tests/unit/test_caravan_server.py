"""common: the HTTP server, asked over sockets: offers to upgrade, heads that do not come, connections."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
import uvloop
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from caravan.intake import DoorLimits
from caravan.lingering import LingeringClose
from caravan.server import MAX_READ, make_server
from caravan.testing.waiting import until

LIMITS = DoorLimits(head_seconds=5)
OFFER = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\n"


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    request = Request(scope, receive)
    said = f"{request.method} {request.url.path}?{request.url.query} {request.headers.get('upgrade', '-')} "
    await Response(said.encode() + await request.body())(scope, receive, send)


class Door:
    def __init__(self, port: int) -> None:
        self.port = port

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            yield reader, writer
        finally:
            writer.close()


@asynccontextmanager
async def served(limits: DoorLimits = LIMITS, app: Any = echo) -> AsyncIterator[Door]:
    server = make_server(app, limits, drain_seconds=1)
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield Door(server.servers[0].sockets[0].getsockname()[1])
    finally:
        server.should_exit = True
        await task


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    async with asyncio.timeout(10):
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
        return int(lines[0].split()[1]), await reader.readexactly(int(headers["content-length"]))


# --- answers ------------------------------------------------------------------------------------------


class Wire(asyncio.Transport):
    """Notes what is sent at once."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent.append(bytes(data))

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(list_of_data))

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        pass


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_an_answers_head_and_body_are_sent_at_once(method: str) -> None:
    server, wire = make_server(Response(b"whole"), LIMITS), Wire()
    server.config.load()
    protocol: Any = server.config.http_protocol_class
    reader = protocol(config=server.config, server_state=server.server_state, app_state={})
    reader.connection_made(wire)
    request = f"{method} / HTTP/1.1\r\nHost: a\r\n\r\n".encode()
    reader.get_buffer(-1)[: len(request)] = request
    reader.buffer_updated(len(request))
    (sent,) = await until(lambda: wire.sent)
    assert sent.startswith(b"HTTP/1.1 200 OK\r\n")
    assert sent.partition(b"\r\n\r\n")[2] == (b"whole" if method == "GET" else b"")
    reader.connection_lost(None)


async def test_a_head_does_not_wait_for_its_body() -> None:
    go_on = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def slowly() -> AsyncIterator[bytes]:
            await go_on.wait()
            yield b"HTTP/"  # as a head begins
            yield b"late"

        await StreamingResponse(slowly())(scope, receive, send)

    async with served(app=app) as door, door.connected() as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        go_on.set()
        assert await asyncio.wait_for(reader.read(), 10) == b"5\r\nHTTP/\r\n4\r\nlate\r\n0\r\n\r\n"


# --- offers to upgrade --------------------------------------------------------------------------------


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize(
    ("length", "body"),
    [
        ("Content-Length: 5", b"h\0l\r\n"),
        ("Transfer-Encoding: chunked", b"2\r\nh\0\r\n3\r\nl\r\n\r\n0\r\n\r\n"),
    ],
)
async def test_an_offer_of_http_2_is_ignored_and_the_body_read(
    length: str, body: bytes, *, apart: bool
) -> None:
    head = f"POST /x?y=1 HTTP/1.1\r\nHost: a\r\n{OFFER}{length}\r\n\r\n".encode()
    async with served() as door, door.connected() as (reader, writer):
        for _ in range(2):  # the connection goes on
            writer.write(head if apart else head + body)
            if apart:
                await writer.drain()
                await asyncio.sleep(0.05)
                writer.write(body)
            assert await answer(reader) == (200, b"POST /x?y=1 - h\0l\r\n")


async def test_many_requests_at_once_that_each_offer_are_each_answered() -> None:
    request = f"POST / HTTP/1.1\r\nHost: a\r\n{OFFER}Content-Length: 2\r\n\r\nok".encode()
    async with served() as door, door.connected() as (reader, writer):
        writer.write(request * 100)
        assert [await answer(reader) for _ in range(100)] == [(200, b"POST /? - ok")] * 100


async def test_a_get_that_offers_and_an_offer_of_a_web_socket_are_answered() -> None:
    socket = "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: AAAA\r\n"
    async with served() as door, door.connected() as (reader, writer):
        for offer in (OFFER, socket):
            writer.write(f"GET /a HTTP/1.1\r\nHost: a\r\n{offer}\r\n".encode())
            assert await answer(reader) == (200, b"GET /a? - ")


LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.mark.parametrize("new_loop", LOOPS.values(), ids=LOOPS)
def test_of_a_body_that_nobody_asks_for_little_is_read(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    body = bytes(range(256)) * 2**14
    parts: list[bytes] = []
    asked = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        more_comes = True
        while more_comes:
            message = await receive()
            parts.append(message["body"])
            more_comes = message["more_body"]
            await asked.wait()
        await Response(str(len(parts)).encode())(scope, receive, send)

    async def run() -> None:
        async with served(app=app) as door, door.connected() as (reader, writer):
            writer.write(f"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n".encode())
            writer.write(body)
            await asyncio.sleep(0.2)  # in which all that is read without being asked for has come
            asked.set()
            assert await answer(reader) == (200, str(len(parts)).encode())

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(run())
    assert b"".join(parts) == body
    assert max(map(len, parts)) <= MAX_READ


async def test_a_body_that_is_waited_for_is_asked_for() -> None:
    async with served() as door, door.connected() as (reader, writer):
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"ok")
        assert await answer(reader) == (200, b"POST /? - ok")


# --- what does not come -------------------------------------------------------------------------------


@pytest.mark.parametrize("last", ["Connection: close\r\n", "Connection: Upgrade, HTTP2-Settings, close\r\n"])
async def test_an_offer_with_the_last_request_of_a_connection_is_ignored(last: str) -> None:
    head = f"POST / HTTP/1.1\r\nHost: a\r\n{OFFER}{last}Content-Length: 2\r\n\r\n".encode()
    async with served() as door, door.connected() as (reader, writer):
        writer.write(head + b"ok")
        assert await answer(reader) == (200, b"POST /? - ok")
        assert await reader.read() == b""


@pytest.mark.parametrize("sent", [b"", b"\r\n", b"POST / HTTP/1.1\r\nHost: a\r\nX-"])
async def test_a_head_that_does_not_come_closes_the_connection(sent: bytes) -> None:
    async with served(replace(LIMITS, head_seconds=0.1)) as door, door.connected() as (reader, writer):
        writer.write(sent)
        async with asyncio.timeout(10):
            said = await reader.read()
    assert said.startswith(b"HTTP/1.1 408" if sent else b"")


async def test_a_head_that_comes_in_drops_has_no_more_time() -> None:
    async with served(replace(LIMITS, head_seconds=0.3)) as door, door.connected() as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nX: ")
        reading = asyncio.create_task(reader.read())
        async with asyncio.timeout(10):
            while not reading.done():
                writer.write(b"x")
                await asyncio.sleep(0.02)
        assert (await reading).startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize(
    ("sent", "status"),
    [(b"GET / HTTP/1.1\r\nX: " + b"x" * 2**22, 431), (b"GET / HTTP/7\r\n" + b"x" * 2**22, 400)],
)
async def test_what_is_no_request_gets_a_whole_answer_though_it_goes_on(sent: bytes, status: int) -> None:
    async with served() as door, door.connected() as (reader, writer):
        writer.write(sent)
        async with asyncio.timeout(10):
            await writer.drain()  # all of it is read
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d" % status)
    assert b"application/problem+json" in head
    assert json.loads(body)["status"] == status


async def test_an_address_that_is_not_ascii_is_told_how_to_be_written() -> None:
    async with served() as door, door.connected() as (reader, writer):
        writer.write("GET /zip?classes=grün HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        status, body = await answer(reader)
    assert (status, "%C3%BC" in json.loads(body)["detail"]) == (400, True)


async def test_who_does_not_read_the_answer_is_let_go() -> None:
    ended = asyncio.Event()

    async def endless(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(1000):  # far more than the system's buffers hold
            await send({"type": "http.response.body", "body": bytes(2**16), "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
        ended.set()

    async with served(replace(LIMITS, idle_seconds=0.2), endless) as door, door.connected() as (_, writer):
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        async with asyncio.timeout(10):
            await ended.wait()


async def test_requests_that_wait_on_one_connection_are_bounded() -> None:
    async with served() as door, door.connected() as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 500)
        async with asyncio.timeout(10):
            said = await reader.read()
    assert said.startswith((b"HTTP/1.1 200", b"HTTP/1.1 400"))
    assert said.count(b"HTTP/1.1 200") <= 101


# --- many connections ---------------------------------------------------------------------------------


async def test_idle_connections_give_way_to_new_ones() -> None:
    async with served(replace(LIMITS, connections=3)) as door:
        idle = [await asyncio.open_connection("127.0.0.1", door.port) for _ in range(6)]
        async with door.connected() as (reader, writer):
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await answer(reader))[0] == 200
        for _, writer in idle:
            writer.close()


async def test_beyond_the_limit_requests_are_told_to_come_again_and_health_is_answered() -> None:
    release = asyncio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/slow":
            await release.wait()
        await Response(b"ok")(scope, receive, send)

    async with served(replace(LIMITS, connections=2), slow) as door:
        busy = [await asyncio.open_connection("127.0.0.1", door.port) for _ in range(2)]
        for _, writer in busy:
            writer.write(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        async with door.connected() as (reader, writer):
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
            assert await answer(reader) == (200, b"ok")
            writer.write(b"GET /other HTTP/1.1\r\nHost: a\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503")
        assert b"retry-after: 5" in head.lower()
        release.set()
        for reader, writer in busy:
            assert await answer(reader) == (200, b"ok")
            writer.close()


async def test_who_was_answered_and_goes_on_sending_gives_way_to_who_comes_new() -> None:
    async def refusing(scope: Scope, receive: Receive, send: Send) -> None:
        await Response(b"no", 413)(scope, receive, send)

    async with served(replace(LIMITS, connections=2), LingeringClose(refusing)) as door:
        sending = [await asyncio.open_connection("127.0.0.1", door.port) for _ in range(2)]
        for reader, writer in sending:
            writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n")
            assert await answer(reader) == (413, b"no")
        async with door.connected() as (reader, writer):
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert await answer(reader) == (413, b"no")  # and not a 503
        async with asyncio.timeout(10):
            assert await sending[0][0].read() == b""  # the oldest is closed
        for _, writer in sending:
            writer.close()


# --- what uvicorn does ten times a second -------------------------------------------------------------


async def test_an_answer_tells_the_time_at_which_it_was_given() -> None:
    async with served() as door, door.connected() as (reader, writer):
        before = datetime.now(UTC).replace(microsecond=0)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
    date = next(line for line in head.decode().splitlines() if line.startswith("date: "))
    assert before <= parsedate_to_datetime(date.removeprefix("date: ")) <= datetime.now(UTC)
