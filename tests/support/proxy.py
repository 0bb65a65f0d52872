"""What stands between a browser and a server: a proxy with a path of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

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
