"""Who may call from another site's page: reads and detections are open to all, the rest to our own page."""

from __future__ import annotations

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from caravan.http import answer
from caravan.problems import problem
from caravan.sessions import is_foreign

PUSH = "/zip"
REVIEW = "/review"
"""Path of the review. Only our own page may read it: it shows what others photographed."""
OPEN_POSTS = frozenset({"/detection", "/binary", "/item"})
READS = frozenset({"GET", "HEAD"})


class Cors:
    """ASGI middleware: answers preflights, and marks what a page of any origin may read.

    What teaches or sends is refused to pages of other sites, as a page can send it even where it may not
    read the answer; clients that are no browsers send no origin and are not concerned.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        headers = Headers(scope=scope) if scope["type"] == "http" else Headers()
        if "origin" not in headers and "sec-fetch-site" not in headers:
            await self._app(scope, receive, send)
        elif scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
            await _preflight(scope["path"], headers)(scope, receive, send)
        elif is_open(scope["method"], scope["path"]):
            await self._app(scope, receive, _marked(send))
        elif is_foreign(scope["method"], headers):
            await answer(problem(403, "only the shopper's own page may do this"))(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def is_open(method: str, path: str) -> bool:
    """Tell whether a page of any origin may do this and read the answer."""
    if method in READS:
        return path != PUSH and not (path == REVIEW or path.startswith(f"{REVIEW}/"))
    return method == "POST" and path in OPEN_POSTS


def _preflight(path: str, headers: Headers) -> ASGIApp:
    method = headers["access-control-request-method"]
    if not is_open(method, path):
        return answer(problem(403, f"{method} {path} is not open to other origins"))
    asked = headers.get("access-control-request-headers", "authorization, content-type, item")
    allowed = {
        "Access-Control-Allow-Origin": "*",
        "Access-Control-Allow-Methods": method,
        "Access-Control-Allow-Headers": asked,
        "Access-Control-Max-Age": "600",
    }
    return Response(status_code=204, headers=allowed)


def _marked(send: Send) -> Send:
    async def marking(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message)["Access-Control-Allow-Origin"] = "*"
        await send(message)

    return marking
