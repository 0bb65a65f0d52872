"""An S3 server, one bucket of which refuses all that is asked of it; a listener that hangs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

DENIED = b'<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>'


@asynccontextmanager
async def serving(app: Starlette) -> AsyncIterator[str]:
    """Serve an app at a free port; yields its address."""
    config = uvicorn.Config(app, port=0, log_level="warning", timeout_graceful_shutdown=1, lifespan="off")
    server = uvicorn.Server(config)
    config.load()
    socket = config.bind_socket()
    task = asyncio.create_task(server.serve([socket]))
    try:
        yield f"http://127.0.0.1:{socket.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


@asynccontextmanager
async def refusing_bucket(target: str, refused: set[str]) -> AsyncIterator[str]:
    """Stand before an S3 server; what is signed for this address is passed on as it came.

    Args:
        target: the server's address.
        refused: buckets that are out of reach, for as long as they are in there.

    """
    async with httpx.AsyncClient(timeout=60, trust_env=False) as client:

        async def forward(request: Request) -> Response:
            path: bytes = request.scope["raw_path"]
            bucket = path.decode().lstrip("/").partition("/")[0]
            content = await request.body()
            if bucket in refused:
                return Response(DENIED, 403, media_type="application/xml")
            query: bytes = request.scope["query_string"]
            url = httpx.URL(target).copy_with(raw_path=path + (b"?" + query if query else b""))
            answer = await client.request(request.method, url, headers=request.headers.raw, content=content)
            headers = {name: value for name, value in answer.headers.items() if name != "transfer-encoding"}
            return Response(answer.content, answer.status_code, headers)

        methods = ["GET", "HEAD", "PUT", "POST", "DELETE"]
        async with serving(Starlette(routes=[Route("/{path:path}", forward, methods=methods)])) as address:
            yield address


@asynccontextmanager
async def hanging_listener(hangs: str, asked: list[str]) -> AsyncIterator[str]:
    """Answer as Tekton does, but for one edge."""

    async def answer(request: Request) -> Response:
        body: dict[str, Any] = await request.json() if request.method == "POST" else {}
        edge = body.get("id-edge", "")
        asked.append(edge)
        if edge == hangs:
            await asyncio.sleep(30)
        return JSONResponse({"eventID": edge}, 202)

    async with serving(Starlette(routes=[Route("/", answer, methods=["GET", "POST"])])) as address:
        yield address
