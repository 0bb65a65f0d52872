"""The event loop of a process: a name with several addresses, one of them dead."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import pytest
import trustme
from typer.testing import CliRunner

import caravan_cli.__main__
import training.commands
from caravan.concurrency import run
from caravan.event_loop import Loop


def resolver(hosts: Sequence[str]) -> Callable[..., Awaitable[list[Any]]]:
    """Return a look-up that finds these addresses for any name."""
    real = Loop.getaddrinfo

    async def look_up(loop: Loop, host: str, *args: Any, **options: Any) -> list[Any]:
        named = hosts if host.endswith(".example") else (host,)
        return [found for one in named for found in await real(loop, one, *args, **options)]

    return look_up


@pytest.fixture
def dead() -> Iterator[tuple[str, int]]:
    """An address at which nothing answers, not even with a refusal: who listens there takes no more."""
    with ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.2", 0))
        full.listen(0)
        for _ in range(2):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)  # noqa: FBT003 - no keyword is taken
            waiting.connect_ex(full.getsockname())
        yield full.getsockname()


def test_a_name_is_reached_at_the_address_that_lives(
    dead: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    port = dead[1]
    monkeypatch.setattr(Loop, "getaddrinfo", resolver((dead[0], "127.0.0.1")))

    async def reached() -> str:
        async with await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", port):
            async with asyncio.timeout(20):
                _, writer = await asyncio.open_connection("kafka.example", port)
            peer: tuple[str, int] = writer.get_extra_info("peername")
            writer.close()
            return peer[0]

    assert run(reached()) == "127.0.0.1"


def test_whoever_asks_for_addresses_of_one_family_is_given_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Loop, "getaddrinfo", resolver(("127.0.0.1", "127.0.0.2")))

    async def reached() -> None:
        async with await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            await asyncio.open_connection("kafka.example", port, family=socket.AF_INET6)

    with pytest.raises(socket.gaierror):
        run(reached())


@pytest.mark.parametrize("options", [{}, {"server_hostname": None}])
def test_the_name_is_what_a_certificate_has_to_be_for(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Loop, "getaddrinfo", resolver(("127.0.0.1", "127.0.0.1")))
    authority = trustme.CA()
    there, here = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("kafka.example").configure_cert(there)
    authority.configure_trust(here)

    async def ask(name: str) -> None:
        async with await asyncio.start_server(lambda _, w: w.close(), "127.0.0.1", 0, ssl=there) as server:
            port = server.sockets[0].getsockname()[1]
            _, writer = await asyncio.open_connection(name, port, ssl=here, **options)
            writer.close()

    run(ask("kafka.example"))
    with pytest.raises(ssl.SSLCertVerificationError):
        run(ask("other.example"))


@pytest.mark.parametrize("command", ["replay", "train"])
def test_a_command_runs_on_the_loop_of_the_services(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    loops = []

    async def note(*_: Any) -> Any:
        loops.append(type(asyncio.get_running_loop()))
        return 0

    monkeypatch.setattr("caravan.replay.replay", note)
    if command == "train":
        training.commands._finish(note())
    else:
        CliRunner().invoke(caravan_cli.__main__.commands, [command, "trigger"])
    assert loops == [Loop]
