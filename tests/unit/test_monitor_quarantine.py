"""monitor: the doors to what waits for a person, and how the dashboard keeps up with it."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import httpx
import pytest
from fastapi import FastAPI
from obstore.store import MemoryStore

from caravan import contracts, http, s3
from caravan.contracts import to_json
from caravan.errors import Transient
from caravan.quarantine import Quarantined, put_in_quarantine, release_batch
from caravan.testing.stores import Requests
from caravan.testing.waiting import until
from caravan.withdrawn import batch_tombstone_key, tombstone_key
from monitor.dashboard import news, waiting
from monitor.dashboard.edge import MOST_WAITING, Edge
from monitor.dashboard.messages import read_event
from monitor.doors import quarantine as door

SHA = "1" * 64
HELD = Quarantined(
    "9f86",
    "61 of 61 photos labelled tea-lemon are surely tea-green",
    "2026-11-28T09:14:01.000+00:00",
    (("tea-lemon", SHA),),
)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
async def client(store: MemoryStore) -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    http.install(app, {})
    door.install(app, {"edge1": store, "edge2": MemoryStore()})
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://hub/") as client:
        yield client


# --- the doors ----------------------------------------------------------------------------------


async def test_what_waits_is_listed_with_the_address_of_its_pictures(
    client: httpx.AsyncClient, store: MemoryStore
) -> None:
    await put_in_quarantine(store, HELD, b"<p>pictures</p>")
    shown = (await client.get("quarantine/edge1")).json()
    batch = {
        "batch": "9f86",
        "reason": HELD.reason,
        "at": HELD.at,
        "images": 1,
        "page": "quarantine/edge1/9f86",
    }
    assert shown == {"edge": "edge1", "batches": [batch]}
    assert (await client.get("quarantine/edge2")).json() == {"edge": "edge2", "batches": []}
    page = await client.get("quarantine/edge1/9f86")
    assert page.text == "<p>pictures</p>"
    policy = page.headers["content-security-policy"]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'; sandbox"
    assert page.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("how", ["released", "withdrawn"])
async def test_what_waits_no_more_is_not_shown(
    client: httpx.AsyncClient, store: MemoryStore, how: str
) -> None:
    await put_in_quarantine(store, HELD, b"<p>pictures</p>")
    if how == "released":
        await release_batch(store, "9f86")
    else:
        await s3.write(store, batch_tombstone_key("9f86"), b"{}")
    assert (await client.get("quarantine/edge1")).json()["batches"] == []
    answer = await client.get("quarantine/edge1/9f86")
    assert (answer.status_code, answer.json()["detail"]) == (404, "no batch 9f86 is in quarantine")


async def test_pictures_that_were_withdrawn_are_not_shown_before_a_run_removes_them(
    client: httpx.AsyncClient, store: MemoryStore
) -> None:
    await put_in_quarantine(store, HELD, b"<p>pictures</p>")
    await s3.write(store, tombstone_key(SHA), b"{}")
    answer = await client.get("quarantine/edge1/9f86")
    assert answer.status_code == 404
    assert "were withdrawn" in answer.json()["detail"]


async def test_a_page_that_is_too_large_or_gone_is_a_404_in_words(
    client: httpx.AsyncClient, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put_in_quarantine(store, HELD, b"x" * 11)
    monkeypatch.setattr("caravan.quarantine.MOST_PAGE_BYTES", 10)
    answer = await client.get("quarantine/edge1/9f86")
    assert answer.status_code == 404
    assert "fetch quarantine/9f86.html from the bucket" in answer.json()["detail"]
    await s3.delete(store, ["quarantine/9f86.html"])
    answer = await client.get("quarantine/edge1/9f86")
    assert answer.status_code == 404
    assert "without a page" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("path", "status", "detail"),
    [
        ("quarantine/edge9", 404, "edge 'edge9' is not configured here"),
        ("quarantine/edge9/9f86", 404, "edge 'edge9' is not configured here"),
        ("quarantine/edge1/other", 404, "no batch other is in quarantine"),
        ("quarantine/edge1/a%20b", 404, "no batch a b is in quarantine"),
        ("quarantine/edge1/%C3%A9", 404, "no batch é is in quarantine"),
    ],
)
async def test_what_is_not_there_is_a_404_in_words(
    client: httpx.AsyncClient, path: str, status: int, detail: str
) -> None:
    answer = await client.get(path)
    assert (answer.status_code, answer.json()["detail"]) == (status, detail)


@pytest.mark.parametrize("path", ["quarantine/edge1", "quarantine/edge1/9f86"])
async def test_a_store_that_is_away_is_a_503(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    Requests(monkeypatch, s3, "listed", "read_with_etag").fail(Transient("the store is away"))
    assert (await client.get(path)).status_code == 503


# --- the dashboard ------------------------------------------------------------------------------


async def test_the_dashboard_looks_at_its_start_and_when_events_say_so(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(news, "AT_LEAST_SECONDS", 0.001)
    looks, real = 0, door.list_waiting

    async def counted(store: MemoryStore, edge: str) -> list[dict[str, object]]:
        nonlocal looks
        looks += 1
        return await real(store, edge)

    monkeypatch.setattr(waiting, "list_waiting", counted)
    edge = Edge("edge1")

    def happens(event: contracts.Event) -> None:
        read = read_event(to_json(event))
        assert read is not None
        edge.take(read, 0.0, f"{event}")

    await put_in_quarantine(store, HELD, b"")
    watching = asyncio.create_task(waiting.watch({"edge1": edge}, {"edge1": store}))
    await until(lambda: edge.waiting)
    shown = edge.as_json(0.0)["waiting"]
    assert (shown["count"], shown["batches"][0]["page"]) == (1, "quarantine/edge1/9f86")
    for number in range(MOST_WAITING):
        await put_in_quarantine(store, replace(HELD, batch=f"b{number}"), b"")
    assert looks == 1
    happens(contracts.quarantine_event("b4", 1, "why"))
    await until(lambda: len(edge.waiting) == MOST_WAITING + 1)
    shown = edge.as_json(0.0)["waiting"]
    assert (shown["count"], len(shown["batches"])) == (MOST_WAITING + 1, MOST_WAITING)

    for each in edge.waiting:
        await release_batch(store, each["batch"])
    happens(contracts.training_event("acquire", 0.0, run="a"))
    await until(lambda: not edge.waiting)
    before = looks
    happens(contracts.training_event("train", 0.5, run="a"))
    happens(contracts.training_event("done", 1, run="a"))
    await until(lambda: looks == before + 1)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


async def test_a_look_that_fails_is_told_keeps_what_is_known_and_is_repeated(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(news, "AT_LEAST_SECONDS", 0.001)
    monkeypatch.setattr(waiting, "AGAIN_SECONDS", 0)
    monkeypatch.setattr(waiting, "WAITING_SECONDS", 0)
    edge = Edge("edge1")
    await put_in_quarantine(store, HELD, b"")
    watching = asyncio.create_task(waiting.watch({"edge1": edge}, {"edge1": store}))
    await until(lambda: edge.waiting)
    await s3.write(store, "quarantine/odd.json", b"{}")
    await until(lambda: edge.waiting_fault)
    shown = edge.as_json(0.0)
    assert "quarantine/odd.json cannot be read" in shown["waiting_fault"]
    assert shown["waiting"]["count"] == 1
    await s3.delete(store, ["quarantine/odd.json"])
    await until(lambda: not edge.waiting_fault)
    # It is noticed, too, where no event comes.
    await release_batch(store, "9f86")
    await until(lambda: not edge.waiting)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
