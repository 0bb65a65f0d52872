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
from contextlib import AsyncExitStack

from caravan.testing.links import Link


async def main(rules: Sequence[str]) -> None:
    async with AsyncExitStack() as links:
        for rule in rules:
            listen, _, way = rule.partition("=")
            target, _, rate = way.partition("@")
            await links.enter_async_context(Link(target, float(rate or "inf")).listening(listen))
        print("listening", flush=True)  # noqa: T201  it is a command
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
