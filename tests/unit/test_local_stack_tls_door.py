"""The door with TLS in front of a plain broker: who may come in, and what becomes of the bytes."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from local_stack.errors import StackError
from local_stack.tls.certificates import ensure
from local_stack.tls.clients import client_context
from local_stack.tls.door import Address, Door, server_context

LARGE = 4 * 2**20


@dataclass
class Running:
    """A door in front of a broker that answers with what it gets."""

    door: Door
    port: int
    stop: asyncio.Event
    served: asyncio.Task[None]

    async def knock(self, tls: ssl.SSLContext | None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port, ssl=tls)

    async def says(self, tls: ssl.SSLContext, words: bytes) -> bytes:
        """What comes back; b"" if the door hangs up."""
        async with asyncio.timeout(10):
            reader, writer = await self.knock(tls)
            try:
                writer.write(words)
                await writer.drain()
                return await reader.readexactly(len(words))
            except asyncio.IncompleteReadError as exc:
                return exc.partial
            finally:
                writer.close()

    async def refused(self, reason: str, times: int = 1) -> None:
        async with asyncio.timeout(10):
            while self.door.refused[reason] < times:
                await asyncio.sleep(0.01)
        assert set(self.door.refused) == {reason}


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certs")
    ensure(folder)
    return folder


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("foreign")
    ensure(folder)
    return folder


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(2**16):
        writer.write(data)
        await writer.drain()
    writer.close()


@asynccontextmanager
async def opened(
    certs: Path, broker: Callable[..., object] = echo, most: int = 10, seconds: float = 5.0
) -> AsyncIterator[Running]:
    behind = await asyncio.start_server(broker, "127.0.0.1", 0)  # type: ignore[arg-type]
    probe = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = probe.sockets[0].getsockname()[1]
    probe.close()
    await probe.wait_closed()
    context = server_context(certs / "ca.pem", certs / "server.pem", certs / "server.key")
    address = Address("127.0.0.1", behind.sockets[0].getsockname()[1])
    door = Door(context, address, most, handshake_seconds=seconds)
    stop, started = asyncio.Event(), asyncio.Event()
    served = asyncio.create_task(door.serve(Address("127.0.0.1", port), stop, started))
    await started.wait()
    try:
        yield Running(door, port, stop, served)
    finally:
        stop.set()
        async with asyncio.timeout(10):
            await served
        behind.close()


async def test_bytes_go_through_both_ways_whole(certs: Path) -> None:
    async with opened(certs) as running:
        words = bytes(range(256)) * (LARGE // 256)

        async def talk() -> bool:
            reader, writer = await running.knock(client_context(certs))
            writer.write(words)
            back = await reader.readexactly(len(words))
            writer.close()
            return back == words

        async with asyncio.timeout(60):
            assert await asyncio.gather(*(talk() for _ in range(3))) == [True] * 3
        assert not running.door.refused


async def test_who_shows_no_certificate_is_refused_and_the_door_stays_open(certs: Path) -> None:
    async with opened(certs) as running:
        tls = ssl.create_default_context(cafile=certs / "ca.pem")
        with pytest.raises(ssl.SSLError, match="CERTIFICATE_REQUIRED"):  # told by an alert, not by silence
            await running.says(tls, b"hello")
        await running.refused("no-certificate")
        assert await running.says(client_context(certs), b"hello") == b"hello"


async def test_a_certificate_of_another_authority_is_refused(certs: Path, foreign: Path) -> None:
    async with opened(certs) as running:
        tls = ssl.create_default_context(cafile=certs / "ca.pem")
        tls.load_cert_chain(foreign / "client.pem", foreign / "client.key")
        with pytest.raises(ssl.SSLError, match="UNKNOWN_CA"):
            await running.says(tls, b"hello")
        await running.refused("unknown-issuer")


async def test_a_servers_certificate_opens_nothing_to_a_client(certs: Path) -> None:
    async with opened(certs) as running:
        tls = ssl.create_default_context(cafile=certs / "ca.pem")
        tls.load_cert_chain(certs / "server.pem", certs / "server.key")
        with pytest.raises(ssl.SSLError):
            await running.says(tls, b"hello")
        await running.refused("wrong-purpose")


async def test_a_client_that_trusts_another_authority_is_counted_as_such(certs: Path, foreign: Path) -> None:
    async with opened(certs) as running:

        def knock() -> None:  # not asyncio's TLS, which hangs up before it has said why
            with socket.create_connection(("127.0.0.1", running.port), timeout=10) as plain:
                client_context(foreign).wrap_socket(plain, server_hostname="127.0.0.1")

        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.to_thread(knock)
        await running.refused("not-trusted")


async def test_plain_mqtt_is_refused(certs: Path) -> None:
    async with opened(certs) as running:
        reader, writer = await running.knock(None)
        writer.write(b"\x10\x10\x00\x04MQTT\x04\x02\x00\x3c\x00\x04till")
        await reader.read()
        writer.close()
        await running.refused("not-tls")


async def test_a_client_that_says_nothing_is_sent_away_in_time(certs: Path) -> None:
    async with opened(certs, seconds=0.2) as running:
        reader, writer = await running.knock(None)
        async with asyncio.timeout(10):
            assert await reader.read() == b""
        writer.close()
        await running.refused("too-slow")


async def test_tls_older_than_1_2_is_refused(certs: Path) -> None:
    async with opened(certs) as running:
        tls = client_context(certs)
        tls.minimum_version = ssl.TLSVersion.TLSv1
        tls.maximum_version = ssl.TLSVersion.TLSv1_1
        tls.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await running.knock(tls)
        await running.refused("old-tls")


async def test_more_connections_than_allowed_are_turned_away_and_room_is_made_again(certs: Path) -> None:
    async with opened(certs, most=2) as running:
        first = await running.knock(client_context(certs))
        await running.knock(client_context(certs))
        with pytest.raises((OSError, EOFError)):
            await running.says(client_context(certs), b"hello")
        await running.refused("too-many")
        first[1].close()
        async with asyncio.timeout(10):
            while True:
                try:
                    assert await running.says(client_context(certs), b"hello") == b"hello"
                    break
                except OSError:
                    await asyncio.sleep(0.02)


async def test_a_broker_that_does_not_read_is_not_sent_more_than_buffers_hold(certs: Path) -> None:
    released = asyncio.Event()

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await released.wait()
        writer.close()

    async with opened(certs, deaf) as running:
        _, writer = await running.knock(client_context(certs))
        sent = 0
        try:
            while sent < 64 * 2**20:
                writer.write(bytes(2**16))
                async with asyncio.timeout(1):
                    await writer.drain()
                sent += 2**16
        except TimeoutError:
            pass
        released.set()
        writer.transport.abort()
        assert sent < 64 * 2**20  # the system's own socket buffers take some


async def test_a_broker_that_is_away_costs_its_client_the_connection_and_no_more(certs: Path) -> None:
    async with opened(certs) as running:
        running.door.broker = Address("127.0.0.1", 1)
        assert await running.says(client_context(certs), b"hello") == b""
        await running.refused("no-broker")


async def test_told_to_stop_it_says_goodbye_to_everyone(certs: Path) -> None:
    async with opened(certs) as running:
        reader, writer = await running.knock(client_context(certs))
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        running.stop.set()
        async with asyncio.timeout(10):
            assert await reader.read() == b""
            await running.served
        writer.close()
        with pytest.raises(OSError, match="Connect call failed"):
            await running.knock(client_context(certs))


@pytest.mark.parametrize("missing", ["ca.pem", "server.pem", "server.key"])
def test_a_file_that_is_missing_is_named(certs: Path, missing: str) -> None:
    files = [certs / name for name in ("ca.pem", "server.pem", "server.key")]
    files = [path.with_name("absent") if path.name == missing else path for path in files]
    with pytest.raises(StackError, match="absent does not exist: make certs"):
        server_context(*files)


@pytest.mark.parametrize("text", ["8883", ":8883", "host:", "host:99999", "host:x"])
def test_an_address_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(StackError):
        Address.parse(text)


def test_an_address_of_ipv6_is_read() -> None:
    assert Address.parse("[::1]:8883") == Address("::1", 8883)
