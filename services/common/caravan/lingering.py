"""Answers given before a body was read to its end, so that the sender gets to see them.

A server that closes a connection while data is still coming makes the system reset it, and the sender may
lose the answer. So the answer goes out whole, says that the connection will close, and what still comes is
read and thrown away for a while.
"""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from caravan.intake import has_body

LINGERS = "lingers"
LINGER_SECONDS = 30.0
IDLE_SECONDS = 5.0


class LingeringClose:
    """ASGI middleware.

    Args:
        app: the wrapped ASGI app.
        seconds: most seconds for which a sender that does not stop is read.

    """

    def __init__(self, app: ASGIApp, seconds: float = LINGER_SECONDS) -> None:
        self._app = app
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or not has_body(scope):
            await self._app(scope, receive, send)
            return
        more_comes = True
        lingers = False

        async def receive_and_see() -> Message:
            nonlocal more_comes
            message = await receive()
            more_comes = message["type"] == "http.request" and message.get("more_body", False)
            return message

        async def send_but_the_end(message: Message) -> None:
            nonlocal lingers
            if not more_comes:
                await send(message)
            elif message["type"] == "http.response.start":
                await send({**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]})
            elif message.get("more_body", False):
                await send(message)
            else:
                await send({**message, "more_body": True})
                lingers = True

        try:
            await self._app(scope, receive_and_see, send_but_the_end)
        finally:
            # The application is through by now, and holds no part of the body any more.
            if lingers:
                # The server may close such a connection for one that comes new.
                scope.setdefault("state", {})[LINGERS] = True
                await self._drain(receive)
                await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _drain(self, receive: Receive) -> None:
        try:
            async with asyncio.timeout(self._seconds):
                more_comes = True
                while more_comes:
                    async with asyncio.timeout(IDLE_SECONDS):
                        message = await receive()
                    more_comes = message["type"] == "http.request" and message.get("more_body", False)
        except TimeoutError:
            return
