"""What doors before a broker have in common: how they listen, and how a connection is forwarded both ways."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING

from local_stack.errors import StackError
from local_stack.tls.stream import CHUNK

if TYPE_CHECKING:
    from local_stack.tls.door import Address

Accept = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def listen_until(
    stop: asyncio.Event,
    listen: Address,
    accept: Accept,
    clients: Collection[asyncio.Task[None]],
    *,
    started: asyncio.Event | None = None,
    backlog: int = 100,
) -> None:
    """Listen until told to stop; then end what is open.

    Args:
        stop: tells it to.
        listen: where.
        accept: serves one client, in a task that is among `clients` meanwhile.
        clients: those that are served.
        started: is set once it listens.
        backlog: clients that wait to be accepted.

    Raises:
        StackError: if the address cannot be listened on.

    """

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Python 3.11 tells of each task that was cancelled here by a trace: its end is ours alone.
        with suppress(asyncio.CancelledError):
            await accept(reader, writer)

    try:
        server = await asyncio.start_server(served, listen.host, listen.port, limit=CHUNK, backlog=backlog)
    except OSError as exc:
        raise StackError(f"{listen} cannot be listened on: {exc.strerror or exc}") from exc
    try:
        if started is not None:
            started.set()
        await stop.wait()
    finally:
        server.close()
        open_now = list(clients)
        for task in open_now:
            task.cancel()
        await asyncio.gather(*open_now, return_exceptions=True)
        await server.wait_closed()


async def either(*ways: Coroutine[None, None, None]) -> None:
    """Forward both ways until one of them ends; a connection that breaks is an end like another."""
    tasks = [asyncio.create_task(way) for way in ways]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, Exception) and not isinstance(outcome, OSError | EOFError):
            raise outcome
