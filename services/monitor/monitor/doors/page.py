"""The dashboard's page, and who looks at it."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import FastAPI, Request, Response

from caravan import http, pages
from caravan.sessions import Sessions

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)


def install(app: FastAPI, files: Mapping[str, bytes], sessions: Sessions) -> None:
    """Give an app the page and its files, and `GET /dashboard/access`."""
    for path, content in files.items():
        pages.serve(app, path, content, POLICY)

    @app.get("/dashboard/access", tags=["dashboard"])
    async def access(request: Request) -> Response:
        """Tell a page whether this door needs a token, and the holder of its session."""
        return http.fresh_json(sessions.access(request))
