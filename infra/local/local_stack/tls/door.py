"""The door with TLS in front of a plain MQTT broker: it lets in who shows a certificate, and forwards bytes.

The embedded broker does not ask its clients for certificates; with Mosquitto, which does, no door is needed.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from caravan import telemetry
from caravan.settings import authority
from local_stack.doors import either, listen_until
from local_stack.errors import StackError
from local_stack.tls.refusals import NO_BROKER, TOO_MANY, Refusal, refusal_of
from local_stack.tls.stream import CHUNK, TlsStream

log = structlog.get_logger()

DOOR = "mqtt-tls"
HANDSHAKE_SECONDS = 10.0
BROKER_SECONDS = 5.0
GOODBYE_SECONDS = 2.0
MOST_CONNECTIONS = 2000
BACKLOG = 256


@dataclass(frozen=True, slots=True)
class Address:
    """Where something listens."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read `host:port` (`[::1]:8883` for IPv6).

        Raises:
            StackError: if it is not that.

        """
        host, _, port = text.rpartition(":")
        if not host or not port.isdecimal() or int(port) > 65535:  # noqa: PLR2004  the highest port
            raise StackError(f"{text!r} is not host:port")
        return cls(host.strip("[]"), int(port))

    def __str__(self) -> str:
        return authority(self.host, self.port)


def server_context(ca: Path, certificate: Path, key: Path) -> ssl.SSLContext:
    """Return a context that asks every client for a certificate of this authority, over TLS 1.2 or later.

    Raises:
        StackError: naming the file that is missing or wrong.

    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    for path in (ca, certificate, key):
        if not path.is_file():
            raise StackError(f"{path} does not exist: make certs makes it")
    try:
        context.load_verify_locations(ca)
    except (ssl.SSLError, OSError) as exc:
        raise StackError(f"{ca} is not a certificate of an authority: {exc}") from exc
    try:
        context.load_cert_chain(certificate, key)
    except (ssl.SSLError, OSError) as exc:
        raise StackError(f"{certificate} and {key} are not a certificate and its key: {exc}") from exc
    return context


@dataclass
class Door:
    """Forwards between clients with certificates and a broker.

    A connection holds at most CHUNK bytes in each direction: who does not read is not read from. `refused`
    counts who was not let in, by reason; so does the metric `caravan_refusals_total{door="mqtt-tls"}`.
    """

    context: ssl.SSLContext
    broker: Address
    most: int = MOST_CONNECTIONS
    handshake_seconds: float = HANDSHAKE_SECONDS
    refused: Counter[str] = field(default_factory=Counter)
    _open: set[asyncio.Task[None]] = field(default_factory=set)

    async def serve(self, listen: Address, stop: asyncio.Event, started: asyncio.Event | None = None) -> None:
        """Listen until told to stop; then say goodbye to everyone.

        Raises:
            StackError: if the address cannot be listened on.

        """
        log.info("door opens", door=DOOR, listens=str(listen), broker=str(self.broker))
        await listen_until(stop, listen, self._accept, self._open, started=started, backlog=BACKLOG)
        log.info("door closed", door=DOOR, refused=dict(self.refused))

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = str(writer.get_extra_info("peername"))
        if len(self._open) >= self.most:
            self._refuse(TOO_MANY, peer)
            writer.transport.abort()
            return
        task = asyncio.current_task()
        if task is None:
            raise AssertionError  # a coroutine of a server runs in a task
        self._open.add(task)
        try:
            await self._serve_one(TlsStream(self.context, reader, writer), peer)
        finally:
            self._open.discard(task)
            writer.close()

    async def _serve_one(self, client: TlsStream, peer: str) -> None:
        try:
            async with asyncio.timeout(self.handshake_seconds):
                await client.handshake()
        except (OSError, EOFError) as exc:
            self._refuse(refusal_of(exc), peer)
            return
        async with AsyncExitStack() as ends:
            ends.push_async_callback(_in_time, client)
            try:
                async with asyncio.timeout(BROKER_SECONDS):
                    reader, writer = await asyncio.open_connection(
                        self.broker.host, self.broker.port, limit=CHUNK
                    )
            except (OSError, TimeoutError):
                self._refuse(NO_BROKER, peer)
                return
            ends.callback(writer.close)
            await either(_up(client, writer), _down(reader, client))

    def _refuse(self, refusal: Refusal, peer: str) -> None:
        self.refused[refusal.reason] += 1
        telemetry.REFUSALS.labels(DOOR, refusal.reason).inc()
        log.warning(
            "client refused",
            door=DOOR,
            reason=refusal.reason,
            detail=refusal.detail,
            peer=peer,
            so_far=self.refused[refusal.reason],
        )


async def _up(client: TlsStream, writer: asyncio.StreamWriter) -> None:
    while data := await client.read():
        writer.write(data)
        await writer.drain()


async def _down(reader: asyncio.StreamReader, client: TlsStream) -> None:
    while data := await reader.read(CHUNK):
        await client.write(data)


async def _in_time(client: TlsStream) -> None:
    """Say goodbye; whoever does not read it is hung up on."""
    with suppress(TimeoutError):
        async with asyncio.timeout(GOODBYE_SECONDS):
            await client.close()
