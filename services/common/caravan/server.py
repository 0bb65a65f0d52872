"""The HTTP server of every process: uvicorn, and bounds on what a connection costs that sends no request.

uvicorn waits without end for the rest of a head, reads one of any size, and drops the body of a request that
offers HTTP/2 (`Upgrade: h2c`, as Java's client does with each first one): its parser then takes what follows
for another protocol. Here the offer is ignored, as RFC 9110 has it, and the request is served.
"""

from __future__ import annotations

import asyncio
import socket
import time
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from functools import lru_cache, partial
from http import HTTPStatus
from typing import Any

import httptools
import uvicorn
from starlette.responses import Response
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from caravan.contracts import to_json
from caravan.intake import DoorLimits, open_files
from caravan.lingering import IDLE_SECONDS, LINGERS
from caravan.problems import RETRY_AFTER_SECONDS, problem

MAX_READ = 2**16
"""Most bytes per read, and so the buffer of a connection."""
MAX_HEAD = 2**16
"""Most bytes of a request's line and headers."""
HEALTH = frozenset({b"/healthz", b"/readyz", b"/metrics", b"/v2/health/live", b"/v2/health/ready"})
"""Paths that are answered even beyond the limit of connections."""
MAX_PIPELINE = 100
"""Most pipelined requests of one connection: each takes many times its size in memory."""
SPARE = 64
"""Connections beyond the limit that are answered 503; further ones are closed without an answer."""
OFFERS = frozenset({b"upgrade", b"http2-settings"})
"""Headers, and options of the header `connection`, by which a client offers another protocol."""

_HEAD = b"HTTP/"
Written = bytes | bytearray | memoryview

busy: ASGIApp = Response(
    to_json(problem(503, "too many connections at once: try again")),
    503,
    {"Connection": "close", "Retry-After": str(RETRY_AFTER_SECONDS)},
    "application/problem+json",
)


class Server(uvicorn.Server):
    """uvicorn without its signal handling: it would raise SIGTERM again before our loops have cleaned up.

    It waits to be told to stop, where uvicorn looks ten times a second, and writes the date when it is asked.
    Where it cannot listen it raises OSError, where uvicorn logs the system's words and ends the process.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        self._stop = asyncio.Event()
        super().__init__(config)

    @property
    def should_exit(self) -> bool:
        """Whether it was told to stop."""
        return self._stop.is_set()

    @should_exit.setter
    def should_exit(self, value: bool) -> None:
        if value:
            self._stop.set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, on sockets that do so already or on the address; raise OSError where that cannot be."""
        loop, config = asyncio.get_running_loop(), self.config
        reader: Any = config.http_protocol_class
        make = partial(
            reader,
            config=config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        if sockets is None:
            self.servers = [await loop.create_server(make, config.host, config.port, backlog=config.backlog)]
        else:
            self.servers = [
                await loop.create_server(make, sock=listener, backlog=config.backlog) for listener in sockets
            ]
        self.started = True

    async def main_loop(self) -> None:
        """Serve until told to stop."""
        await self._stop.wait()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield


class _Config(uvicorn.Config):
    def __init__(self, app: ASGIApp, limits: DoorLimits, **options: Any) -> None:
        reader: Any = partial(_Reader, memoryview(bytearray(MAX_READ)))  # no asyncio.Protocol
        super().__init__(app, http=reader, **options)
        self.limits = limits


def make_server(
    app: ASGIApp, limits: DoorLimits, *, host: str = "127.0.0.1", port: int = 0, drain_seconds: int = 10
) -> Server:
    """Return a server; `limits` that the process has too few open files for are lowered."""
    return Server(
        _Config(
            app,
            limits.within(open_files()),
            host=host,
            port=port,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=drain_seconds,
        )
    )


class _Reader(asyncio.BufferedProtocol):
    """Reads little at once, for a connection that would be given all that has come.

    It is no connection itself: uvloop asks none for a buffer that is an `asyncio.Protocol`, too.
    """

    def __init__(self, buffer: memoryview, **options: Any) -> None:
        self._buffer = buffer
        self._connection = _Connection(**options)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - all read into the same
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._connection.data_received(self._buffer[:nbytes])

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's
        self._connection.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection.connection_lost(exc)

    def eof_received(self) -> None:
        self._connection.eof_received()

    def pause_writing(self) -> None:
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._connection.resume_writing()


class _Joining(asyncio.Transport):
    """Sends an answer's head together with what follows at once: apart, a small answer costs a sixth more."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._head: Written = b""

    def write(self, data: Written) -> None:
        if self._head:
            head, self._head = self._head, b""
            self._transport.writelines([head, data])
        elif data[: len(_HEAD)] == _HEAD:
            self._head = data
            self._loop.call_soon(self._send_head)
        else:
            self._transport.write(data)

    def _send_head(self) -> None:
        head, self._head = self._head, b""
        if head and not self._transport.is_closing():
            self._transport.write(head)

    def write_eof(self) -> None:
        self._send_head()
        self._transport.write_eof()

    def close(self) -> None:
        self._send_head()
        self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()


@lru_cache(1)
def _date(second: int) -> bytes:
    return formatdate(second, usegmt=True).encode()


class _Parser(httptools.HttpRequestParser):
    """httptools' parser, which reads on where a client offers another protocol."""

    def __init__(self, connection: _Connection) -> None:
        super().__init__(connection)
        self._connection = connection

    def feed_data(self, data: bytes | bytearray | memoryview | array[int]) -> None:
        parser, rest = self, data
        while True:
            try:
                parser.read(rest)
            except httptools.HttpParserInvalidURLError:
                self._connection.refuse_address()
                raise
            except httptools.HttpParserUpgrade as offer:
                head = self._connection.head_without_offer()
                # One that has read `Connection: close` reads nothing after that head.
                parser = self._connection.renew_parser()
                parser.read(head)
                rest = memoryview(rest)[offer.args[0] :]
            else:
                return

    def read(self, data: bytes | bytearray | memoryview | array[int]) -> None:
        """Read as httptools does. Raises HttpParserUpgrade at an offer."""
        super().feed_data(data)


class _Connection(HttpToolsProtocol):
    config: _Config

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.renew_parser()
        self.made = self.loop.time()
        self._head_due: asyncio.TimerHandle | None = None
        self._head_size = 0
        self._reading_due: asyncio.TimerHandle | None = None
        self._offered = False
        self._is_beyond = False
        self._closing_due: asyncio.TimerHandle | None = None

    @property
    def is_idle(self) -> bool:
        """Whether no request of it is being served."""
        return self.cycle is None or self.cycle.response_complete

    @property
    def may_go(self) -> bool:
        """Whether it is of no use any more, or not yet: idle, or answered while its body still comes."""
        closing = self.transport.is_closing()
        return not closing and (self.is_idle or self.cycle.scope["state"].get(LINGERS, False))

    # --- what a client may cost ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's
        super().connection_made(_Joining(transport, self.loop))
        self._await_head()
        beyond = len(self.connections) - self.config.limits.connections
        if beyond > 0:
            useless = [one for one in self.connections if isinstance(one, _Connection) and one.may_go]
            oldest = min(useless, key=lambda one: one.made)
            self._is_beyond = oldest is self
            if not self._is_beyond:
                oldest.transport.close()
            elif beyond > SPARE:
                transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_came()
        self.resume_writing()
        if self._closing_due is not None:
            self._closing_due.cancel()
        super().connection_lost(exc)

    def data_received(self, data: memoryview) -> None:  # type: ignore[override] # its parser takes both
        if self._closing_due is not None:
            return
        if self._head_due is None and self.is_idle:
            self._await_head()
        self._head_size += len(data)
        super().data_received(data)  # type: ignore[arg-type]
        if self._head_due is not None and self._head_size > MAX_HEAD:
            self._end(431, f"the request's line and headers are larger than {MAX_HEAD} bytes")
        if not self.is_idle and self.cycle.more_body and self.cycle.body:
            self.flow.pause_reading()  # until the application asks for more

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._reading_due is None:
            self._reading_due = self.loop.call_later(self.config.limits.idle_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._reading_due is not None:
            self._reading_due.cancel()
            self._reading_due = None

    def _await_head(self) -> None:
        seconds = self.config.limits.head_seconds
        detail = f"the request's line and headers were not whole after {seconds:g} s"
        self._head_size = 0
        self._head_due = self.loop.call_later(seconds, self._end, 408, detail)

    def _head_came(self) -> None:
        if self._head_due is not None:
            self._head_due.cancel()
            self._head_due = None

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's words say less
        self._end(400, "the request is not HTTP/1.1 as it is understood here")

    def refuse_address(self) -> None:
        """Answer a request whose line has an address with characters that none has."""
        self._end(400, "the address has other characters than ASCII: write them as %C3%BC, say")

    def _end(self, status: int, detail: str) -> None:
        """Answer what is no request that can be served, and close the connection.

        Closed at once, it would be reset by what still comes, and the answer might be lost: that is thrown
        away for a while.
        """
        self._head_came()
        if self.transport.is_closing() or self._closing_due is not None:
            return
        if not self._head_size:
            self.transport.close()
            return
        content = to_json(problem(status, detail))
        head = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: application/problem+json\r\n"
            f"content-length: {len(content)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + content)
        if self.is_idle:
            self.transport.write_eof()
            self._closing_due = self.loop.call_later(IDLE_SECONDS, self.transport.close)
        else:
            self.transport.close()

    # --- the head -----------------------------------------------------------------------------------

    def renew_parser(self) -> _Parser:
        """Read on with a new parser, and return it."""
        self.parser = _Parser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        return self.parser

    def on_headers_complete(self) -> None:
        self._head_came()
        # With CONNECT there is no offer that could be ignored.
        self._offered = self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"
        if self._offered:
            return
        self.server_state.default_headers = [(b"date", _date(int(time.time())))]
        beyond = self._is_beyond and len(self.connections) > self.config.limits.connections
        self.app = busy if beyond and self.url.partition(b"?")[0] not in HEALTH else self.config.loaded_app
        super().on_headers_complete()
        if len(self.pipeline) > MAX_PIPELINE:
            message = "too many requests wait on one connection"
            raise httptools.HttpParserError(message)  # answered with 400, and the end of the connection

    def on_message_complete(self) -> None:
        if not self._offered:
            super().on_message_complete()

    def head_without_offer(self) -> bytes:
        """Return the head that was just read as a client would have sent it that offers nothing."""
        version = self.parser.get_http_version().encode()
        lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, version)]
        for name, value in self.headers:
            if name == b"connection":
                options = [option.strip() for option in value.split(b",")]
                kept = b", ".join(option for option in options if option.lower() not in OFFERS)
                lines += [b"connection: " + kept] if kept else []
            elif name not in OFFERS:
                lines.append(b"%s: %s" % (name, value))
        return b"\r\n".join([*lines, b"", b""])
