"""A link between a client and a server, which can be cut, and carries no more than it is told."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

CONNECT_SECONDS = 30.0
_READ = 65_536


class Link:
    """Carries bytes to a server for as long as it is not cut.

    Nothing has a deadline here but connecting: over a link that carries nothing connections hang, as anyone's
    would.

    Args:
        target: the server, `host:port`.
        rate: bytes that a connection carries in a second, each way.

    """

    def __init__(self, target: str, rate: float = math.inf) -> None:
        self._host, _, port = target.rpartition(":")
        self._port = int(port)
        self._rate = rate
        self._open: set[asyncio.StreamWriter] = set()
        self._cut = False

    @asynccontextmanager
    async def listening(self, at: str = "127.0.0.1:0") -> AsyncIterator[str]:
        """Listen at `host:port`, or at a path for a Unix socket; yields the address to connect to."""
        if at.startswith("/"):
            server, address = await asyncio.start_unix_server(self._carry, at), at
        else:
            host, _, port = at.rpartition(":")
            server = await asyncio.start_server(self._carry, host, int(port))
            address = f"{host}:{server.sockets[0].getsockname()[1]}"
        try:
            yield address
        finally:
            self.cut()
            server.close()

    def cut(self) -> None:
        """Break all connections, and let none be made."""
        self._cut = True
        for writer in self._open:
            writer.transport.abort()

    def mend(self) -> None:
        """Let connections be made again."""
        self._cut = False

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self._cut:
                raise ConnectionError
            async with asyncio.timeout(CONNECT_SECONDS):
                there_reader, there = await asyncio.open_connection(self._host, self._port)
        except (OSError, TimeoutError):
            writer.transport.abort()
            return
        ends = {writer, there}
        self._open |= ends
        # Whichever side ends it, it ends on both: what is half open would hide that the other is gone.
        ways = [
            asyncio.create_task(self._copy(reader, there)),
            asyncio.create_task(self._copy(there_reader, writer)),
        ]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        self._open -= ends
        for end in ends:
            end.close()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(_READ):
                writer.write(data)
                await writer.drain()
                await asyncio.sleep(len(data) / self._rate)
