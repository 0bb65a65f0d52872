"""TLS over a pair of streams, with what the handshake said kept and the alert of a refusal sent.

asyncio's own TLS closes a failed handshake before its alert is out, and tells no one the reason: the client
would see a lost connection where "certificate required" was meant.
"""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress

CHUNK = 2**16
"""Bytes of one read from the network, and of what is handed on at once."""


class TlsStream:
    """The server's side of TLS on a connection that is open; at most CHUNK bytes wait in it either way.

    Args:
        context: a server's.
        reader: what the client sends, encrypted.
        writer: what the client gets, encrypted.

    """

    def __init__(
        self, context: ssl.SSLContext, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._reader, self._writer = reader, writer
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    async def handshake(self) -> None:
        """Let the client in.

        Raises:
            ssl.SSLError: if it may not come in; its alert is on its way.
            OSError: if the connection broke.

        """
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill()
            except ssl.SSLError:
                with suppress(OSError):
                    await self._flush()
                raise
            else:
                await self._flush()
                return

    async def read(self) -> bytes:
        """Return what the client sent, at most CHUNK bytes; b"" once it has hung up."""
        while True:
            try:
                return self._tls.read(CHUNK)
            except ssl.SSLWantReadError:
                await self._flush()  # TLS answers some of its own messages
                await self._fill()
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""

    async def write(self, data: bytes) -> None:
        """Send to the client; waits while it does not read."""
        self._tls.write(data)
        await self._flush()

    async def close(self) -> None:
        """Say goodbye and close."""
        with suppress(ssl.SSLError, OSError):
            self._tls.unwrap()  # its answer is not waited for
        with suppress(OSError):
            self._writer.write(self._outgoing.read())
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()

    async def _fill(self) -> None:
        data = await self._reader.read(CHUNK)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    async def _flush(self) -> None:
        if self._outgoing.pending:
            self._writer.write(self._outgoing.read())
            await self._writer.drain()
