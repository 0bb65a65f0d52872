"""Sessions: a cookie stands for a token, for pages of the same origin alone."""

from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI, Request

from caravan import http, sessions
from caravan.sessions import SESSION_SECONDS, Sessions
from caravan.tokens import Tokens

TOKEN = "a-token-of-ann"
OWN_PAGE = {"Sec-Fetch-Site": "same-origin"}


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


COOKIE = "caravan_shopper"


class Door:
    """An app that tells who asks."""

    def __init__(self, tokens: Tokens, clock: Clock) -> None:
        self.clock = clock
        app = FastAPI()
        http.install(app, {})
        own = Sessions(tokens, "shopper", clock)
        sessions.install(app, own)

        @app.api_route("/who", methods=["GET", "POST"])
        async def who(request: Request) -> str:
            return own.holder(request)

        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop:8080")

    async def cookie(self, headers: dict[str, str] | None = None) -> str:
        """Sign in; return what Set-Cookie says."""
        answer = await self.client.post("/login", json={"token": TOKEN}, headers=headers)
        assert answer.status_code == 204
        self.client.cookies.clear()
        return answer.headers["set-cookie"]

    async def who(self, cookie: str, headers: dict[str, str], method: str = "POST") -> int:
        value = cookie.split(";", maxsplit=1)[0].encode("latin-1")
        given = {b"Cookie": value, **{name.encode(): text.encode() for name, text in headers.items()}}
        return (await self.client.request(method, "/who", headers=given)).status_code


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    door = Door(Tokens({"ann": TOKEN, "bob.b": "a-token-of-bob"}), Clock())
    async with door.client:
        yield door


async def test_a_token_opens_a_session_that_scripts_and_other_sites_cannot_use(door: Door) -> None:
    cookie = await door.cookie()
    assert TOKEN not in cookie
    assert {"HttpOnly", "SameSite=strict", "Path=/", f"Max-Age={SESSION_SECONDS}"} <= set(cookie.split("; "))
    assert "Secure" not in cookie
    assert await door.who(cookie, OWN_PAGE) == 200


async def test_over_https_and_under_a_path_the_cookie_says_so(door: Door) -> None:
    cookie = await door.cookie({"X-Forwarded-Proto": "https", "X-Forwarded-Prefix": "/a/shop/"})
    assert {"Secure", "Path=/a/shop/"} <= set(cookie.split("; "))


@pytest.mark.parametrize("prefix", ["//elsewhere.example", "/a;b", "/a b", "a"])
async def test_a_prefix_that_is_no_path_is_left_out(door: Door, prefix: str) -> None:
    assert "Path=/;" in await door.cookie({"X-Forwarded-Prefix": prefix})


@pytest.mark.parametrize(
    ("headers", "method", "status"),
    [
        ({"Sec-Fetch-Site": "none"}, "GET", 200),
        ({"Sec-Fetch-Site": "same-site"}, "POST", 401),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "http://shop:8080"}, "POST", 401),
        ({"Origin": "http://shop:8080"}, "POST", 200),
        ({"Origin": "https://front.example", "X-Forwarded-Host": "front.example"}, "POST", 200),
        ({"Origin": "http://elsewhere.example"}, "POST", 401),
        ({"Origin": "null"}, "POST", 401),
        ({"Referer": "http://shop:8080/"}, "GET", 200),
        ({"Referer": "http://shop:8080/"}, "POST", 401),
        ({}, "POST", 401),
        ({}, "GET", 401),
    ],
)
async def test_a_session_is_for_pages_of_the_same_origin(
    door: Door, headers: dict[str, str], method: str, status: int
) -> None:
    assert await door.who(await door.cookie(), headers, method) == status


async def test_a_session_ends(door: Door) -> None:
    cookie = await door.cookie()
    door.clock.now += SESSION_SECONDS + 1
    assert await door.who(cookie, OWN_PAGE) == 401


@pytest.mark.parametrize(
    "value",
    [
        "",
        "ann",
        "ann.9999999999.",
        "ann.9999999999.00",
        "eve.9999999999.00",
        "ann.x.y",
        "..",
        "é.1.é",
        f"ann.{'9' * 5000}.00",
    ],
)
async def test_a_made_up_cookie_opens_nothing(door: Door, value: str) -> None:
    assert await door.who(f"{COOKIE}={value}", OWN_PAGE) == 401


async def test_a_session_cannot_be_made_longer_or_anothers(door: Door) -> None:
    name, ends, seal = (await door.cookie()).split(";")[0].split("=", 1)[1].rsplit(".", 2)
    assert await door.who(f"{COOKIE}={name}.{int(ends) + 1}.{seal}", OWN_PAGE) == 401
    assert await door.who(f"{COOKIE}=bob.b.{ends}.{seal}", OWN_PAGE) == 401


async def test_a_bearer_token_needs_no_page_and_goes_before_a_cookie(door: Door) -> None:
    answer = await door.client.post("/who", headers={"Authorization": f"Bearer {TOKEN}"})
    assert answer.json() == "ann"
    cookie = await door.cookie()
    assert await door.who(cookie, {"Authorization": "Bearer wrong-token", **OWN_PAGE}) == 401


async def test_a_wrong_token_signs_nobody_in(door: Door) -> None:
    answer = await door.client.post("/login", json={"token": "not-the-token"})
    assert (answer.status_code, "set-cookie" in answer.headers) == (401, False)
    assert (await door.client.post("/login", content="x")).status_code == 400


async def test_signing_out_takes_the_cookie_away(door: Door) -> None:
    answer = await door.client.post("/logout")
    assert "Max-Age=0" in answer.headers["set-cookie"]


async def test_a_door_without_tokens_is_open_to_anyone() -> None:
    door = Door(Tokens({}), Clock())
    async with door.client:
        assert (await door.client.get("/who")).json() == "anyone"


async def test_services_behind_one_host_have_cookies_of_their_own(door: Door) -> None:
    shopper, hub = (Sessions(Tokens({"ann": TOKEN}), owner) for owner in ("shopper_edge1", "hub"))
    assert shopper.cookie != hub.cookie
    value = shopper.open(TOKEN)
    assert await door.who(f"{COOKIE}={value}", OWN_PAGE) == 401
