"""One half of a link between two sites: what it is told to listen on, it carries to another address.

    python -m support.relay LISTEN=TARGET[@BYTES]…

An address is `host:port`, or a path for a Unix socket, which is a window into a network namespace for who is
outside of it. It prints a line once it listens, and ends with its standard input. Over a link that is cut its
connections hang, as anyone's would: nothing has a deadline here but connecting. BYTES is what a connection
carries in a second, each way.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

CONNECT_SECONDS = 30.0


async def main(rules: Sequence[str]) -> None:
    for rule in rules:
        listen, _, way = rule.partition("=")
        target, _, rate = way.partition("@")
        carry = partial(_carry, target, float(rate or "inf"))
        if listen.startswith("/"):
            await asyncio.start_unix_server(carry, listen)
        else:
            host, _, port = listen.rpartition(":")
            await asyncio.start_server(carry, host, int(port))
    print("listening", flush=True)  # noqa: T201  it is a command
    await asyncio.to_thread(sys.stdin.read)


async def _carry(
    target: str, rate: float, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    host, _, port = target.rpartition(":")
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            there_reader, there = await asyncio.open_connection(host, int(port))
    except (OSError, TimeoutError):
        writer.transport.abort()
        return
    # Whichever side ends it, it ends on both: what is half open would hide that the other is gone.
    ways = [
        asyncio.create_task(_copy(reader, there, rate)),
        asyncio.create_task(_copy(there_reader, writer, rate)),
    ]
    await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    for way in ways:
        way.cancel()
    for end in (writer, there):
        end.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rate: float) -> None:
    with suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
            await asyncio.sleep(len(data) / rate)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
