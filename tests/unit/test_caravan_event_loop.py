"""The event loop of a process: a name with several addresses, one of them dead."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from caravan.event_loop import Loop


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
    port, of_a_name = dead[1], Loop.getaddrinfo

    async def both(loop: Loop, host: str, *args: Any, **options: Any) -> list[Any]:
        hosts = (dead[0], "127.0.0.1") if host == "kafka.example" else (host,)
        return [found for one in hosts for found in await of_a_name(loop, one, *args, **options)]

    async def reached() -> str:
        async with await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", port):
            monkeypatch.setattr(Loop, "getaddrinfo", both)
            async with asyncio.timeout(20):
                _, writer = await asyncio.open_connection("kafka.example", port)
            peer: tuple[str, int] = writer.get_extra_info("peername")
            writer.close()
            return peer[0]

    with asyncio.Runner(loop_factory=Loop) as runner:
        assert runner.run(reached()) == "127.0.0.1"
