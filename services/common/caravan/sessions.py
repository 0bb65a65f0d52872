"""Sessions of browsers at doors with tokens: a cookie that stands for a token, of use to our own pages alone.

The cookie holds the holder's name, when it ends, and a seal made with the holder's token: nothing is kept
here, a restart ends no session, and taking a token away ends all sessions that it opened.
"""

from __future__ import annotations

import hmac
import re
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, Field
from starlette.datastructures import Headers

from caravan import http
from caravan.errors import BadInput
from caravan.tokens import Tokens

SESSION_SECONDS = 30 * 24 * 3600
SAFE = frozenset({"GET", "HEAD"})
MAX_BODY = 4096
MAX_DIGITS = 12
"""Most digits of the seconds since the epoch."""

_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)+")


class Login(BaseModel):
    """`{"token": "…"}`."""

    token: Annotated[str, Field(max_length=512)]


class Sessions:
    """Tells a request's holder, by the header `Authorization` or the cookie of a page of this origin.

    Args:
        tokens: those that open the door.
        owner: whose sessions these are; services behind one host share its cookies, but for their names.
        clock: seconds since the epoch.

    """

    def __init__(self, tokens: Tokens, owner: str, clock: Callable[[], float] = time.time) -> None:
        self._tokens = tokens
        self.cookie = f"caravan_{owner}"
        self._clock = clock

    @property
    def needed(self) -> bool:
        """Whether the door asks for anything."""
        return bool(self._tokens)

    def holder(self, request: Request) -> str:
        """Return the name of the request's holder.

        Raises:
            BadInput: 401 if the request shows neither a token nor a session that holds.

        """
        authorization = request.headers.get("authorization")
        if self._tokens and authorization is None and self.cookie in request.cookies:
            return self._of_cookie(request)
        return self._tokens.holder(authorization)

    def access(self, request: Request) -> dict[str, Any]:
        """Return what a page is told: whether the door needs a token, and the holder, if known."""
        try:
            holder = self.holder(request)
        except BadInput:
            holder = None
        return {"needed": self.needed, "holder": holder}

    def open(self, token: str) -> str:
        """Return the cookie for a token.

        Raises:
            BadInput: 401 if the token is not known.

        """
        name = self._tokens.holder(f"Bearer {token}")
        ends = int(self._clock()) + SESSION_SECONDS
        return f"{name}.{ends}.{self._tokens.seal(name, self._text(name, ends))}"

    def _of_cookie(self, request: Request) -> str:
        if not is_own_page(request.method, request.headers):
            raise BadInput("a session is for pages of this origin alone", 401, reason="foreign-session")
        name, ends, seal = _parts(request.cookies[self.cookie])
        own = self._tokens.seal(name, self._text(name, ends))
        if not own or not hmac.compare_digest(own.encode(), seal.encode()) or ends < self._clock():
            raise BadInput("the session has ended: sign in again", 401, reason="no-session")
        return name

    def _text(self, name: str, ends: int) -> str:
        return f"{self.cookie}.{name}.{ends}"


def install(app: FastAPI, sessions: Sessions) -> None:
    """Give an app `POST /login` and `POST /logout`."""

    @app.post("/login", tags=["access"])
    async def login(request: Request) -> Response:
        """Open a session: `{"token": "…"}`."""
        message = http.decode_json(Login, await http.bounded_body(request, MAX_BODY))
        return _with_cookie(request, sessions.cookie, sessions.open(message.token.strip()), SESSION_SECONDS)

    @app.post("/logout", tags=["access"])
    async def logout(request: Request) -> Response:
        """End this browser's session."""
        return _with_cookie(request, sessions.cookie, "", 0)


def is_own_page(method: str, headers: Headers) -> bool:
    """Tell whether a page of this origin asks, as browsers tell it; without their word it does not.

    Browsers send `Sec-Fetch-Site` to safe origins only, and no `Origin` with a same-origin GET; what is left
    there is the referrer.
    """
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site in {"same-origin", "none"}
    origin = headers.get("origin") or (headers.get("referer", "") if method in SAFE else "")
    hosts = {headers.get("host", ""), headers.get("x-forwarded-host", "")} - {""}
    try:
        return urlsplit(origin).netloc in hosts
    except ValueError:
        return False  # it is no address


def is_foreign(method: str, headers: Headers) -> bool:
    """Tell whether a page of another site asks; clients other than browsers do not count."""
    return ("origin" in headers or "sec-fetch-site" in headers) and not is_own_page(method, headers)


def forwarded_prefix(headers: Headers) -> str:
    """Return the path under which a proxy shows us, without a slash at its end; empty for none."""
    prefix = headers.get("x-forwarded-prefix", "").rstrip("/")
    return prefix if _PREFIX.fullmatch(prefix) else ""


def _with_cookie(request: Request, name: str, value: str, seconds: int) -> Response:
    forwarded = request.headers.get("x-forwarded-proto", request.url.scheme)
    response = Response(status_code=HTTPStatus.NO_CONTENT, headers={"Cache-Control": "no-store"})
    response.set_cookie(
        name,
        value,
        max_age=seconds,
        path=f"{forwarded_prefix(request.headers)}/",
        secure=forwarded == "https",
        httponly=True,
        samesite="strict",
    )
    return response


def _parts(cookie: str) -> tuple[str, int, str]:
    name, ends, seal = (["", "", "", *cookie.rsplit(".", 2)])[-3:]
    is_number = ends.isascii() and ends.isdigit() and len(ends) <= MAX_DIGITS
    return name, int(ends) if is_number else 0, seal
