"""Who may see and do what: where tokens are set, only health, metrics and the pages' own files are open."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import Request

from caravan.errors import BadInput
from caravan.sessions import SAFE, Sessions, is_foreign

OPEN = frozenset({"/healthz", "/readyz", "/metrics", "/login", "/logout", "/dashboard/access"})


def guard(sessions: Sessions, files: frozenset[str]) -> Callable[[Request], Awaitable[None]]:
    """Return what every door of the service depends on.

    Args:
        sessions: tell who asks.
        files: paths of the pages and what belongs to them; there are no secrets in those.

    """

    async def admit(request: Request) -> None:
        """Let in who may come in.

        Raises:
            BadInput: 401 for who is not known, 403 for pages of other sites that would change something.

        """
        if request.method not in SAFE and is_foreign(request.method, request.headers):
            raise BadInput("pages of other sites may not do this", 403, reason="foreign-page")
        if _path(request) not in OPEN | files:
            sessions.holder(request)

    return admit


def _path(request: Request) -> str:
    # As declared: what is sent may be written in more ways than one.
    return getattr(request.scope.get("route"), "path", "")
