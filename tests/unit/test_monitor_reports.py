"""monitor: the hub's doors to the training reports of all edges."""

import json
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI
from obstore.store import MemoryStore

from caravan import http, s3
from caravan.manifest import Lineage, Manifest
from monitor.doors import reports


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    stores = {"edge1": MemoryStore(), "edge2": MemoryStore()}
    for version, rejected in ((1, None), (2, "worse than version 1")):
        prefix = f"models/tea/{version}/"
        await s3.write(stores["edge1"], f"{prefix}saved_model.pb", b"model")
        await s3.write(stores["edge1"], f"{prefix}report/index.html", f"<p>report {version}</p>".encode())
        manifest = Manifest("tea", version, (), Lineage(rejected=rejected, metrics={"accuracy": 0.9}))
        await s3.write(stores["edge1"], f"{prefix}manifest.json", manifest.to_json())
    held = {"schema": 1, "to": 1, "since": "2026-11-21T09:00:00+00:00", "state": "held"}
    await s3.write(stores["edge1"], "holds/tea.json", json.dumps(held).encode())
    app = FastAPI()
    http.install(app, {})
    reports.install(app, stores)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://hub/") as client:
        yield client


async def test_an_edges_versions_are_listed_with_their_verdicts(client: httpx.AsyncClient) -> None:
    shown = (await client.get("reports/edge1")).json()
    assert shown["edge"] == "edge1"
    (tea,) = shown["models"]
    assert "2026-11-21T09:00:00+00:00: an operator rolled back to version 1" in tea["held"]
    verdicts = [(v["version"], v["verdict"], v["rejected"]) for v in tea["versions"]]
    assert verdicts == [(2, "rejected", "worse than version 1"), (1, "passed", None)]
    assert (await client.get("reports/edge2")).json() == {"edge": "edge2", "models": []}


async def test_the_report_of_a_rejected_version_is_shown_too(client: httpx.AsyncClient) -> None:
    (tea,) = (await client.get("reports/edge1")).json()["models"]
    pages = [await client.get(version["report"]) for version in tea["versions"]]
    assert [page.text for page in pages] == ["<p>report 2</p>", "<p>report 1</p>"]
    assert (await client.get("reports/edge1/tea/latest")).text == "<p>report 2</p>"
    assert all(page.headers["content-security-policy"].endswith("sandbox") for page in pages)


async def test_an_edge_that_is_not_configured_and_a_version_that_is_not_there_are_problems(
    client: httpx.AsyncClient,
) -> None:
    for path, detail in (
        ("reports/edge9", "edge 'edge9' is not configured here"),
        ("reports/edge9/tea/1", "edge 'edge9' is not configured here"),
        ("reports/edge2/tea/latest", "there is no version of a model 'tea' here"),
        ("reports/edge1/tea/3", "there is no version 3 of tea here, but 2, 1"),
    ):
        answer = await client.get(path)
        assert (answer.status_code, answer.json()["detail"]) == (404, detail)
