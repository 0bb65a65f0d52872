"""What stands between a browser and a server: a proxy with a path of its own, a network that can be cut."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route


@asynccontextmanager
async def proxy(target: str, prefix: str) -> AsyncIterator[str]:
    """Show a server under a path, as an ingress does."""
    client = httpx.AsyncClient(base_url=target, timeout=60)

    async def forward(request: Request) -> Response:
        headers = {**request.headers, "x-forwarded-prefix": prefix}
        asked = client.build_request(
            request.method,
            request.path_params["path"],
            params=request.query_params,
            headers=headers,
            content=await request.body(),
        )
        answer = await client.send(asked, stream=True)
        return StreamingResponse(answer.aiter_raw(), answer.status_code, headers=dict(answer.headers))

    app = Starlette(routes=[Route(f"{prefix}/{{path:path}}", forward, methods=["GET", "POST"])])
    server = uvicorn.Server(
        uvicorn.Config(app, port=0, log_level="warning", timeout_graceful_shutdown=1, lifespan="off")
    )
    server.config.load()
    socket = server.config.bind_socket()
    serving = asyncio.create_task(server.serve([socket]))
    try:
        yield f"http://127.0.0.1:{socket.getsockname()[1]}{prefix}/"
    finally:
        server.should_exit = True
        await serving
        await client.aclose()


class Network:
    """Carries bytes to a server for as long as it is not cut.

    Args:
        target: the server's address, `http://host:port`.

    """

    def __init__(self, target: str) -> None:
        self._target = urlsplit(target)
        self._open: set[asyncio.StreamWriter] = set()
        self._cut = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        """Listen; gives the address through which the server is reached."""
        server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
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
        if self._cut:
            writer.transport.abort()
            return
        there_reader, there = await asyncio.open_connection(self._target.hostname, self._target.port)
        self._open |= {writer, there}
        with suppress(OSError):
            await asyncio.gather(_copy(reader, there), _copy(there_reader, writer))
        self._open -= {writer, there}


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()
