"""shopper: the doors to this edge's models and their reports."""

from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI
from obstore.store import MemoryStore

from caravan import http, s3, sessions
from caravan.manifest import Lineage, Manifest
from caravan.sessions import Sessions
from caravan.tokens import Tokens
from shopper.doors import reports

PAGE = "models/tea/3/report"


async def door(store: MemoryStore, **tokens: str) -> httpx.AsyncClient:
    await s3.write(store, "models/tea/3/saved_model.pb", b"model")
    await s3.write(store, "models/tea/3/report/index.html", b"<p>98 %</p>")
    manifest = Manifest("tea", 3, (), Lineage(classes=("a", "b"), metrics={"accuracy": 0.98}, parent=2))
    await s3.write(store, "models/tea/3/manifest.json", manifest.to_json())
    app, opened = FastAPI(), Sessions(Tokens(tokens), "shopper")
    http.install(app, {})
    sessions.install(app, opened)
    reports.install(app, store, opened)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="https://shopper/")


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with await door(MemoryStore()) as client:
        yield client


async def test_models_are_listed_with_figures_and_a_link_to_each_report(client: httpx.AsyncClient) -> None:
    answer = await client.get("models")
    (tea,) = answer.json()["models"]
    assert tea["model"] == "tea"
    (version,) = tea["versions"]
    assert (version["version"], version["parent"], version["classes"]) == (3, 2, ["a", "b"])
    assert version["metrics"] == {"accuracy": 0.98}
    shown = await client.get(version["report"])
    assert (shown.status_code, shown.text) == (200, "<p>98 %</p>")
    assert answer.headers["cache-control"] == "no-store"


async def test_a_report_is_shown_by_number_and_as_the_latest(client: httpx.AsyncClient) -> None:
    for version in ("3", "latest"):
        shown = await client.get(f"models/tea/{version}/report")
        assert shown.headers["content-type"] == "text/html; charset=utf-8"
        assert shown.headers["content-security-policy"].endswith("sandbox")
        assert shown.text == "<p>98 %</p>"


async def test_what_is_not_there_is_a_problem_that_says_what_is(client: httpx.AsyncClient) -> None:
    answer = await client.get("models/tea/9/report")
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
    assert answer.json()["detail"] == "there is no version 9 of tea here, but 3"
    assert (await client.get("models/coffee/latest/report")).status_code == 404


async def test_where_tokens_are_set_the_doors_ask_for_one_or_for_a_session() -> None:
    async with await door(MemoryStore(), till="open-sesame") as client:
        for path in ("models", PAGE, "models/none/1/report"):
            assert (await client.get(path)).status_code == 401
            wrong = await client.get(path, headers={"Authorization": "Bearer wrong-token"})
            assert wrong.status_code == 401
        held = {"Authorization": "Bearer open-sesame"}
        assert (await client.get("models", headers=held)).status_code == 200
        assert (await client.get(PAGE, headers=held)).status_code == 200
        await client.post("login", json={"token": "open-sesame"})
        own, foreign = {"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "cross-site"}
        assert (await client.get(PAGE, headers=own)).status_code == 200
        assert (await client.get(PAGE, headers=foreign)).status_code == 401
