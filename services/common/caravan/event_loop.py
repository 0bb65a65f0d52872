"""uvloop, which connects to whichever address of a name answers, as asyncio can be asked to (RFC 8305).

By itself it waits for the first one, and of a name with a dead address and a live one its callers give up
before. So does aiokafka, which leaves the choice to the loop.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import uvloop
from aiohappyeyeballs import start_connection

NEXT_SECONDS = 0.25
"""Seconds that an address has before the next one is tried beside it."""


class Loop(uvloop.Loop):
    """The event loop of a process."""

    async def create_connection(
        self, protocol_factory: Callable[[], Any], host: Any = None, port: Any = None, **options: Any
    ) -> tuple[Any, Any]:
        """Connect as asyncio does; of a name with several addresses to the one that answers first."""
        found = []
        if host and options.get("local_addr") is None:
            lookup = {name: options[name] for name in ("family", "proto", "flags") if name in options}
            found = await self.getaddrinfo(host, port, type=socket.SOCK_STREAM, **lookup)
        if len(found) < 2:  # noqa: PLR2004 - nothing to choose
            return await super().create_connection(protocol_factory, host, port, **options)
        if options.get("ssl") and options.get("server_hostname") is None:
            options["server_hostname"] = host
        connected = await start_connection(found, happy_eyeballs_delay=NEXT_SECONDS, loop=self)
        try:
            return await super().create_connection(protocol_factory, sock=connected, **options)
        except BaseException:
            connected.close()
            raise
