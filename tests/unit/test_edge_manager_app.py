"""The service as it is wired: its settings, its doors, and what its readiness names."""

import asyncio
from pathlib import Path

import httpx
import pytest
from prometheus_client import Counter, Gauge
from pydantic import ValidationError

from caravan.errors import Permanent
from edge_manager import metrics
from edge_manager.app import wire
from edge_manager.settings import EdgeManagerSettings

README = Path(__file__).parents[2] / "services" / "edge-manager" / "README.md"


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Point every address at a port where nobody listens."""
    for name in ("S3_CENTRAL_ENDPOINT", "S3_EDGE_ENDPOINT", "TFSERVING_REST"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("MQTT_PORT", "9")


@pytest.mark.parametrize(
    ("variables", "word"),
    [
        ({"SINK_BUCKET": ""}, "SINK_DIRECTORY"),
        ({"REQUIRE_SIGNATURE": "true"}, "PUBLIC_KEY"),
        ({"KEEP_VERSIONS": "0"}, "keep_versions"),
        ({"KEEP_VERSIONS": "1", "CANARY": "10%"}, "KEEP_VERSIONS to 2"),
        ({"CANARY": "110%"}, "canary"),
        ({"CANARY": "ten"}, "canary"),
        ({"TFSERVING_REST": "127.0.0.1:8501"}, "tfserving_rest"),
        ({"EDGE": "Edge 1"}, "not an edge id"),
    ],
)
def test_settings_that_cannot_work_are_refused(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], word: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError, match=word):
        EdgeManagerSettings()


async def test_readiness_names_each_dependency_that_is_away(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SINK_DIRECTORY", str(tmp_path / "models"))
    async with wire(EdgeManagerSettings()) as service:
        transport = httpx.ASGITransport(service.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://edge") as client:
            ready = await client.get("/readyz")
            alive = await client.get("/healthz")
            versions = await client.get("/versions")
    assert ready.status_code == 503
    checks = ready.json()["checks"]
    assert set(checks) == {"s3-central", "s3-edge", "directory", "mqtt", "model-server"}
    assert "ok" not in checks.values()
    assert alive.status_code == 200
    assert versions.json()["models"] == {}


async def test_with_a_directory_alone_no_edge_store_is_needed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SINK_BUCKET", "")
    monkeypatch.setenv("SINK_DIRECTORY", str(tmp_path / "models"))
    async with wire(EdgeManagerSettings()) as service:
        transport = httpx.ASGITransport(service.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://edge") as client:
            checks = (await client.get("/readyz")).json()["checks"]
    assert "s3-edge" not in checks
    assert checks["directory"] == "ok"


async def test_a_directory_that_cannot_be_made_ends_the_start_in_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SINK_BUCKET", "")
    monkeypatch.setenv("SINK_DIRECTORY", str(tmp_path / "file"))
    with pytest.raises(Permanent, match=r"SINK_DIRECTORY: .*Not a directory"):
        async with wire(EdgeManagerSettings()):
            pass


async def test_the_model_server_is_shown_the_first_token_or_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
        await writer.drain()
        writer.close()

    async def asked() -> str:
        async with wire(EdgeManagerSettings()) as service:
            transport = httpx.ASGITransport(service.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://edge") as client:
                assert (await client.get("/readyz")).json()["checks"]["model-server"] == "ok"
        return heard.pop().lower()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        monkeypatch.setenv("TFSERVING_REST", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        assert "authorization" not in await asked()
        monkeypatch.setenv("TOKENS", "stack:stack-secret, other:other-secret")
        assert "authorization: bearer stack-secret" in await asked()
        monkeypatch.setenv("TFSERVING_TOKEN", "its-own-secret")
        assert "authorization: bearer its-own-secret" in await asked()


def test_the_readme_names_every_metric_of_the_service() -> None:
    collectors = [value for value in vars(metrics).values() if isinstance(value, Counter | Gauge)]
    names = {described.name for collector in collectors for described in collector.describe()}
    assert len(names) == 7
    assert {name for name in names if f"`{name}" not in README.read_text()} == set()
