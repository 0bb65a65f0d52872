"""What the services share: names, settings, images, stores, answers."""

import asyncio
import hashlib
import io
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from obstore.store import MemoryStore
from PIL import Image

from caravan import http, images, s3
from caravan.contracts import VersionKey, key_by_content, parse_edge
from caravan.errors import BadInput, Transient
from caravan.retry import retried
from caravan.settings import CentralS3Settings, EdgeIds, KafkaSettings, Port, ServiceSettings, load
from delivery.settings import DeliverySettings
from edge_manager.settings import EdgeManagerSettings
from feeder.settings import FeederSettings
from monitor.settings import MonitorSettings
from shopper.settings import ShopperSettings
from support.files import as_file
from training.settings import TrainingSettings


def encoded(format_: str = "JPEG", size: tuple[int, int] = (64, 48)) -> bytes:
    return as_file(Image.effect_noise(size, 60).convert("RGB"), format_)


# --- names --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "status"),
    [(None, 400), ("", 400), ("Edge1", 400), ("a/b", 400), ("-a", 400), ("a" * 64, 400), ("edge2", 404)],
)
def test_an_edge_id_that_is_missing_malformed_or_unknown_is_refused(text: str | None, status: int) -> None:
    with pytest.raises(BadInput) as refused:
        parse_edge(text, {"edge1"})
    assert refused.value.status == status


def test_the_key_of_a_versions_file_is_taken_apart() -> None:
    assert VersionKey.parse("models/m/007/variables/a") == VersionKey("m", 7, "variables/a")


@pytest.mark.parametrize("key", ["models/m/0/x", "models/m/x/y", "models/m/1/", "images/a/b", "models/1/x"])
def test_other_keys_are_no_files_of_a_version(key: str) -> None:
    assert VersionKey.parse(key) is None


# --- settings -----------------------------------------------------------------------------------


class Settings(ServiceSettings, KafkaSettings, CentralS3Settings):
    port: Port = 1
    edges: EdgeIds = ("edge1",)


def test_every_fault_in_the_settings_is_named_at_once_and_no_value_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PORT", "99999")
    monkeypatch.setenv("EDGES", "edge1 Edge_2")
    monkeypatch.setenv("KAFKA_SECURITY_PROTOCOL", "hunter2")
    with pytest.raises(SystemExit):
        load(Settings)
    said = capsys.readouterr().err
    assert all(name in said for name in ("PORT:", "EDGES:", "KAFKA_SECURITY_PROTOCOL:"))
    assert "hunter2" not in said


@pytest.mark.parametrize(
    "address",
    ["minio:9000", "s3://minio", "http://", "http://minio:9000 ", "http://minio:99999", "http://[::1"],
)
def test_an_address_of_http_that_is_none_is_refused_at_the_start(
    address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("S3_CENTRAL_ENDPOINT", address)
    with pytest.raises(SystemExit):
        load(Settings)
    assert "S3_CENTRAL_ENDPOINT:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("S3_CENTRAL_ENDPOINT", "http://bob:hunter2@minio:9000"),
        ("EVENTLISTENER_URL", "http://bob:hunter2@listener/"),
        ("KAFKA_BOOTSTRAP_SERVERS", "SASL://bob:hunter2@kafka:9092"),
        ("KAFKA_BOOTSTRAP_SERVERS", "kafka:99999"),
        ("KAFKA_REQUEST_SECONDS", "inf"),
        ("MQTT_HOST", "mqtt://bob:hunter2@broker"),
        ("MQTT_HOST", ""),
        ("MQTT_HOST", "broker..example"),
        ("MQTT_PORT", "0"),
        ("MQTT_PASSWORD", "hunter2"),
        ("HOST", "x" * 64),
        ("KAFKA_BOOTSTRAP_SERVERS", "x" * 64),
        ("S3_EDGE_ACCESS_KEY", "hunter2 \u20ac"),
        ("S3_CENTRAL_CA", "missing.pem"),
        ("S3_CENTRAL_CA", __file__),
        ("TFSERVING_REST", "http://models:85010"),
        ("TFSERVING_GRPC", ""),
        ("TFSERVING_GRPC", "bob:hunter2@models:8500"),
        ("TFSERVING_TOKEN", "hunter2 \u20ac"),
        ("PUBLIC_KEY", "missing.pem"),
        ("SINK_BUCKET", "s3://production"),
        ("HUB_HISTORY_SECONDS", "1e300"),
        ("PREDICT_SECONDS", "1e10"),
        ("KAFKA_REPLICATION", "1000000000"),
        ("KAFKA_CONCURRENCY", "1000000000"),
        ("DECODES_AT_ONCE", "1000000000"),
        ("STORES_AT_ONCE", "1000000000"),
        ("RUNS_AT_ONCE", "1000000000"),
    ],
)
def test_what_would_end_a_service_in_a_trace_or_show_a_password_is_refused_by_one_line_at_its_start(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(variable, value)
    of_one = next(
        each
        for each in (
            DeliverySettings,
            EdgeManagerSettings,
            FeederSettings,
            MonitorSettings,
            ShopperSettings,
            TrainingSettings,
        )
        if variable.lower() in each.model_fields
    )
    with pytest.raises(SystemExit):
        load(of_one)
    said = capsys.readouterr().err
    assert said.startswith(f"{variable}: ")
    assert (said.count("\n"), "hunter2" in said) == (1, False)


def test_where_a_service_cannot_listen_one_line_names_the_settings() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        service = subprocess.run(
            [sys.executable, "-m", "delivery"],
            env=os.environ | {"HOST": "127.0.0.1", "PORT": str(port)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
    assert service.returncode == 1
    (told,) = [line for line in service.stdout.splitlines() if "already in use" in line]
    assert f"HOST 127.0.0.1, PORT {port}: nothing can listen there" in told
    assert "Traceback" not in service.stdout


def test_edges_are_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGES", "edge1, edge2 edge3")
    assert load(Settings).edges == ("edge1", "edge2", "edge3")


def test_secrets_are_masked_when_settings_are_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S3_CENTRAL_SECRET_KEY", "hunter2")
    settings = load(Settings)
    assert "hunter2" not in f"{settings!r} {settings} {settings.central!r}"
    assert settings.central.secret_key.get_secret_value() == "hunter2"


# --- images -------------------------------------------------------------------------------------


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP"])
def test_an_image_is_known_by_its_content(format_: str) -> None:
    info = images.verify(encoded(format_))
    assert (info.format, info.width, info.height) == (format_, 64, 48)


@pytest.mark.parametrize("raw", [b"", b"plain text", b"GIF89a" + bytes(50), encoded("BMP"), b"\xff\xd8\xff"])
def test_what_is_no_image_is_refused(raw: bytes) -> None:
    with pytest.raises(BadInput) as refused:
        images.inspect(raw)
    assert refused.value.status == 422


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP"])
def test_a_cut_off_image_is_found(format_: str) -> None:
    whole = encoded(format_)
    with pytest.raises(BadInput):
        images.verify(whole[: len(whole) // 2])


def test_an_image_of_too_many_pixels_is_refused_by_its_header() -> None:
    target = io.BytesIO()
    Image.new("1", (30_000, 30_000)).save(target, "PNG")
    with pytest.raises(BadInput) as refused:
        images.inspect(target.getvalue())
    assert refused.value.status == 413


def test_a_jpeg_stays_as_it_is_and_a_png_becomes_one() -> None:
    jpeg, png = encoded("JPEG"), encoded("PNG")
    assert images.as_jpeg(jpeg) is jpeg
    assert images.inspect(images.as_jpeg(png)).format == "JPEG"


# --- stores -------------------------------------------------------------------------------------


async def test_the_same_content_is_stored_once() -> None:
    store = MemoryStore()
    first = await s3.put_new(store, "images/a/x.jpg", b"one")
    again = await s3.put_new(store, "images/a/x.jpg", b"one")
    assert (first.new, again.new, again.key) == (True, False, "images/a/x.jpg")


async def test_other_content_of_the_same_name_gets_a_key_of_its_own_again_and_again_the_same() -> None:
    store = MemoryStore()
    await s3.put_new(store, "images/a/x.jpg", b"one")
    other = await s3.put_new(store, "images/a/x.jpg", b"two")
    again = await s3.put_new(store, "images/a/x.jpg", b"two")
    assert (other.new, again.new, other.key == again.key) == (True, False, True)
    assert await s3.read(store, "images/a/x.jpg") == b"one"
    assert await s3.read(store, other.key) == b"two"


async def test_a_name_proves_no_content_not_even_one_made_of_a_sha256() -> None:
    store = MemoryStore()
    sha256 = hashlib.sha256(b"two").hexdigest()
    await s3.write(store, "images/a/x.jpg", b"one")
    await s3.write(store, key_by_content("images/a/x.jpg", sha256), b"three")

    placed = await s3.put_new(store, "images/a/x.jpg", b"two")

    assert (placed.key, placed.new) == (f"images/a/{sha256}.jpg", True)
    assert await s3.put_new(store, "images/a/x.jpg", b"two") == replace(placed, new=False)
    await s3.write(store, placed.key, b"four")
    with pytest.raises(s3.NamesTaken):
        await s3.put_new(store, "images/a/x.jpg", b"two")


async def test_an_object_is_replaced_only_as_it_was_read() -> None:
    store = MemoryStore()
    assert await s3.replace(store, "a", b"one", None)
    assert not await s3.replace(store, "a", b"two", None)
    _, etag = await s3.read_with_etag(store, "a")
    assert await s3.replace(store, "a", b"two", etag)
    assert not await s3.replace(store, "a", b"three", etag)
    assert await s3.read(store, "a") == b"two"


# --- retry --------------------------------------------------------------------------------------


async def test_a_transient_error_is_tried_again_and_any_other_is_not() -> None:
    outcomes: list[Exception | None] = [Transient("away"), Transient("away"), None]

    async def call() -> str:
        if (outcome := outcomes.pop(0)) is not None:
            raise outcome
        return "done"

    assert await retried(call, to="test", within=10) == "done"
    outcomes.extend([BadInput("no"), None])
    with pytest.raises(BadInput):
        await retried(call, to="test", within=10)


async def test_what_comes_back_before_the_time_ends_is_found_however_long_a_wait_is_drawn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("caravan.retry.FIRST_WAIT", 60)
    clock = asyncio.get_running_loop().time
    back = clock() + 0.1

    async def call() -> str:
        if clock() < back:
            raise Transient("away")
        return "done"

    assert await retried(call, to="test", within=0.2) == "done"


# --- answers ------------------------------------------------------------------------------------


def client_of(app: FastAPI) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://service")


async def test_errors_are_problem_documents_without_internals() -> None:
    app = FastAPI()
    http.install(app, {})

    @app.get("/bad")
    async def bad() -> None:
        raise BadInput("say it otherwise", status=422)

    @app.get("/away")
    async def away() -> None:
        raise Transient("host 10.1.2.3 is away")

    @app.get("/bug")
    async def bug() -> None:
        raise ValueError("hunter2")

    async with client_of(app) as client:
        answers = {path: await client.get(path) for path in ("/bad", "/away", "/bug", "/nowhere")}
    assert [answer.status_code for answer in answers.values()] == [422, 503, 500, 404]
    assert {answer.headers["content-type"] for answer in answers.values()} == {"application/problem+json"}
    assert answers["/bad"].json()["detail"] == "say it otherwise"
    assert answers["/away"].headers["retry-after"]
    assert "hunter2" not in answers["/bug"].text
    assert "10.1.2.3" not in answers["/away"].text


async def test_head_of_a_stream_without_end_is_answered() -> None:
    app = FastAPI()
    http.install(app, {})

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"tick"
            await asyncio.sleep(0.01)

    @app.get("/events")
    async def events() -> StreamingResponse:
        return StreamingResponse(endless(), media_type="text/event-stream")

    async with client_of(app) as client, asyncio.timeout(10):
        answer = await client.head("/events")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"].startswith("text/event-stream")


async def test_readiness_names_each_dependency() -> None:
    async def good() -> None:
        await asyncio.sleep(0)

    async def bad() -> None:
        raise Transient("no connection")

    app = FastAPI()
    http.install(app, {"kafka": good, "s3": bad})
    async with client_of(app) as client:
        answer = await client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json() == {"ready": False, "checks": {"kafka": "ok", "s3": "no connection"}}


READ_AND_END = """
import asyncio, sys
import obstore
from caravan import s3
from caravan.settings import CentralS3Settings, load

s3.open_bucket(load(CentralS3Settings).central, "unused")

async def read() -> None:
    store = obstore.store.LocalStore(sys.argv[1])
    for _ in range(20):
        await s3.read(store, "key")

asyncio.run(read())
"""


async def test_a_process_that_read_from_a_store_ends_well(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"content")

    async def code() -> int:
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", READ_AND_END, tmp_path)
        return await process.wait()

    assert set(await asyncio.gather(*(code() for _ in range(8)))) == {0}


# --- logs ---------------------------------------------------------------------------------------

LOGGING_TWICE = """
import io, sys
from contextlib import redirect_stderr
from caravan.telemetry import configure_logging, log

configure_logging("INFO", "json")
for line in ("first", "second"):
    with redirect_stderr(io.StringIO()) as written:
        log.info(line)
    print(written.getvalue(), end="")
    written.close()
"""


def test_a_log_line_goes_where_standard_error_is_when_it_is_written() -> None:
    done = subprocess.run([sys.executable, "-c", LOGGING_TWICE], capture_output=True, text=True, check=True)
    assert [json.loads(line)["event"] for line in done.stdout.splitlines()] == ["first", "second"]
    assert not done.stderr
