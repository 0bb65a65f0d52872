"""The shopper's page: a few files of the package, served from memory."""

from __future__ import annotations

import hashlib
from importlib import resources

from fastapi import FastAPI, Request, Response

FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/token.js": ("token.js", "text/javascript; charset=utf-8"),
    "/app.js": ("app.js", "text/javascript; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def install(app: FastAPI) -> None:
    """Give an app the page; nothing of it comes from elsewhere."""
    for path, (name, media_type) in FILES.items():
        _serve(app, path, resources.files("shopper").joinpath("web", name).read_bytes(), media_type)


def _serve(app: FastAPI, path: str, content: bytes, media_type: str) -> None:
    headers = {
        "Cache-Control": "no-cache",
        "ETag": f'"{hashlib.sha256(content).hexdigest()[:16]}"',
        "Content-Security-Policy": POLICY,
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }

    @app.get(path, include_in_schema=False)
    async def page(request: Request) -> Response:
        if request.headers.get("if-none-match") == headers["ETag"]:
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type=media_type)
