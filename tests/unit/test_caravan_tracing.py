"""Traces: how they travel, what they cost where they are off, and the files that they are kept in."""

import asyncio
import gzip
import io
import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx
import pytest
import structlog
from fastapi import FastAPI
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import REGISTRY
from pydantic import ValidationError
from structlog.testing import capture_logs

from caravan import http, kafka, telemetry, trace_export, traces, tracing
from caravan.settings import KafkaSettings, TraceSettings
from caravan.testing.kafka import record
from support.ports import free_port

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}


def trace_ids(spans: InMemorySpanExporter) -> list[str]:
    return [f"{span.context.trace_id:032x}" for span in spans.get_finished_spans()]


# --- spans --------------------------------------------------------------------------------------


def test_an_exchange_is_a_span_of_the_trace_that_came(spans: InMemorySpanExporter) -> None:
    with tracing.following(PARENT), telemetry.exchange("detect-http") as exchange_id:
        tracing.note(images=3)
    (span,) = spans.get_finished_spans()
    assert (span.name, trace_ids(spans)) == ("detect-http", [TRACE])
    assert dict(span.attributes or {}) == {"exchange": exchange_id, "images": 3}


def test_an_exchange_that_fails_says_so_in_its_span(spans: InMemorySpanExporter) -> None:
    with pytest.raises(ValueError, match="no"), telemetry.exchange("detect-http"):
        raise ValueError("no")
    (span,) = spans.get_finished_spans()
    assert (span.status.is_ok, span.status.description, list(span.events)) == (False, "ValueError: no", [])


@pytest.mark.parametrize("header", ["", "nonsense", "00-0-0-01", f"00-{'0' * 32}-{'0' * 16}-01"])
def test_without_a_trace_or_with_a_malformed_one_a_new_one_begins(
    spans: InMemorySpanExporter, header: str
) -> None:
    with tracing.following({"traceparent": header}), telemetry.exchange("detect-http"):
        pass
    (span,) = spans.get_finished_spans()
    assert span.parent is None
    assert span.context.is_valid


def test_what_the_system_tells_itself_begins_no_trace_but_is_part_of_one(spans: InMemorySpanExporter) -> None:
    with telemetry.exchange("hub", begins_trace=False):
        assert tracing.headers() == {}
    assert spans.get_finished_spans() == ()
    with tracing.following(PARENT), telemetry.exchange("hub", begins_trace=False):
        pass
    assert trace_ids(spans) == [TRACE]


def test_a_trace_that_its_sender_does_not_record_is_not_recorded(spans: InMemorySpanExporter) -> None:
    unsampled = {"traceparent": f"{PARENT['traceparent'][:-2]}00"}
    with tracing.following(unsampled), telemetry.exchange("detect-http"):
        assert tracing.headers() == unsampled
    assert spans.get_finished_spans() == ()


def test_what_is_known_only_afterwards_becomes_a_span_too(spans: InMemorySpanExporter) -> None:
    began = time.time_ns() - 10**9
    tracing.past("load", began)
    assert spans.get_finished_spans() == ()
    tracing.past("load", began, PARENT, version=3)
    (span,) = spans.get_finished_spans()
    assert (span.start_time, trace_ids(spans), dict(span.attributes or {})) == (
        began,
        [TRACE],
        {"version": 3},
    )


async def test_tasks_of_different_traces_do_not_mix(spans: InMemorySpanExporter) -> None:
    async def handle(number: int) -> str:
        carrier = {"traceparent": f"00-{number:032x}-00f067aa0ba902b7-01"}
        with tracing.following(carrier), telemetry.exchange("detect-mqtt"):
            await asyncio.sleep(0)
            return tracing.headers()["traceparent"][3:35]

    numbers = range(1, 20)
    assert await asyncio.gather(*map(handle, numbers)) == [f"{number:032x}" for number in numbers]
    assert sorted(trace_ids(spans)) == [f"{number:032x}" for number in numbers]


def test_switched_off_it_makes_nothing_and_carries_nothing() -> None:
    assert not tracing.is_on()
    with tracing.following(PARENT), telemetry.exchange("detect-http"), tracing.span("predict"):
        tracing.note(version=1)
        tracing.link(PARENT)
        tracing.past("load", 0, PARENT)
        assert (tracing.headers(), tracing.ids()) == ({}, {})


# --- from service to service ----------------------------------------------------------------------


async def test_http_brings_a_trace(spans: InMemorySpanExporter) -> None:
    app = FastAPI()
    http.install(app, {})

    @app.get("/item")
    async def item() -> dict[str, str]:
        with telemetry.exchange("item"):
            return tracing.ids()

    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        told = (await client.get("/item", headers=PARENT)).json()
        await client.get("/item")
        await client.get("/metrics", headers=PARENT)
    first, second = spans.get_finished_spans()
    assert told == {"trace_id": TRACE, "span_id": f"{first.context.span_id:016x}"}
    assert second.context.trace_id != first.context.trace_id


class Client:
    """A Kafka client that keeps what it was given."""

    def __init__(self, **_: Any) -> None:
        self.headers: list[list[tuple[str, bytes | None]]] = []

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def send_and_wait(self, *_: Any, headers: list[tuple[str, bytes | None]], **__: Any) -> None:
        self.headers.append(headers)


async def test_kafka_carries_a_trace_and_one_that_is_there_stays(
    spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Client()
    monkeypatch.setattr(kafka, "AIOKafkaProducer", lambda **_: client)
    async with kafka.Producer(KafkaSettings()) as producer:
        with tracing.span("trigger"):
            here = tracing.headers()
            await producer.send("trigger", b"edge1", headers={"batch": "b"})
            await producer.send("trigger", b"edge1", headers=PARENT)
            await producer.send("edge1-detections", b"{}", traced=False)
        await producer.send("trigger", b"edge1")
    first, second, as_it_is, third = client.headers
    assert dict(first) == {"batch": b"b", "traceparent": here["traceparent"].encode()}
    assert dict(second) == {"traceparent": PARENT["traceparent"].encode()}
    assert as_it_is == third == []
    assert kafka.trace_of(record(b"edge1", headers=first)) == here
    assert trace_ids(spans) == [here["traceparent"][3:35]]


# --- logs ---------------------------------------------------------------------------------------


@contextmanager
def logged(log_format: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """Log as a service does, within; afterwards all is as it was."""
    before, root, stream = structlog.get_config(), logging.getLogger(), io.StringIO()
    handlers = root.handlers[:]
    monkeypatch.setattr("sys.stderr", stream)
    telemetry.configure_logging("INFO", log_format)
    try:
        yield stream
    finally:
        structlog.configure(**before)
        root.handlers[:] = handlers


def test_lines_in_json_name_route_exchange_trace_and_span(
    spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    with logged("json", monkeypatch) as stream:
        log = structlog.get_logger()
        with tracing.following(PARENT), telemetry.exchange("detect-http") as exchange_id:
            log.info("within")
        log.info("after")
    within, after = map(json.loads, stream.getvalue().splitlines())
    (span,) = spans.get_finished_spans()
    assert (within["route"], within["exchange"]) == ("detect-http", exchange_id)
    assert (within["trace_id"], within["span_id"]) == (TRACE, f"{span.context.span_id:016x}")
    assert "trace_id" not in after


# --- where spans go -------------------------------------------------------------------------------


class Collector:
    """Keeps what is posted to it: the path and the body."""

    def __init__(self) -> None:
        self.got: list[tuple[str, bytes]] = []
        keep = self.got

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                keep.append((self.path, gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def collector() -> Iterator[Collector]:
    one = Collector()
    thread = Thread(target=one.server.serve_forever)
    thread.start()
    yield one
    one.server.shutdown()
    thread.join()
    one.server.server_close()


@contextmanager
def traced(**settings: Any) -> Iterator[None]:
    traces.start("feeder", TraceSettings(**settings))
    try:
        yield
    finally:
        tracing.stop()


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_bytes().splitlines()]


def test_a_file_has_a_line_for_each_span(tmp_path: Path) -> None:
    file = tmp_path / "traces/feeder.jsonl"
    settings = {"traces": "file", "traces_file": file}
    with traced(**settings), tracing.following(PARENT), tracing.span("zip-upload"), tracing.span("store"):
        tracing.note(images=7)
        tracing.link({"traceparent": f"00-{9:032x}-00f067aa0ba902b7-01"})
    store, upload = lines(file)
    assert (store["trace"], store["service"], store["name"]) == (TRACE, "feeder", "store")
    assert (store["parent"], upload["parent"]) == (upload["span"], "00f067aa0ba902b7")
    assert (store["facts"], store["links"][0]["trace"]) == ({"images": 7}, f"{9:032x}")
    assert upload["began"] <= store["began"] <= store["ended"] <= upload["ended"]


def test_spans_are_sent_while_the_process_goes_on_and_so_are_later_ones(tmp_path: Path) -> None:
    file = tmp_path / "feeder.jsonl"
    with traced(traces="file", traces_file=file):
        for count in (1, 2):
            with tracing.span("zip-upload"):
                pass
            deadline = time.monotonic() + 30
            while not (file.exists() and len(lines(file)) == count):
                assert time.monotonic() < deadline
                time.sleep(0.02)


def test_a_file_is_bounded_and_what_was_before_is_kept_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace_export, "MOST_BYTES", 2000)
    file = tmp_path / "feeder.jsonl"
    for number in range(30):
        with traced(traces="file", traces_file=file), tracing.span(f"span-{number}"):
            pass
    before = tmp_path / "feeder.jsonl.1"
    assert max(file.stat().st_size, before.stat().st_size) <= 2000
    assert {path.name for path in tmp_path.iterdir()} == {file.name, before.name}
    names = [line["name"] for line in (*lines(before), *lines(file))]
    assert names == [f"span-{number}" for number in range(30 - len(names), 30)]


@pytest.mark.parametrize("how", ["file", "otlp"])
def test_what_cannot_be_sent_is_counted_logged_and_harms_nobody(tmp_path: Path, how: str) -> None:
    def lost() -> float:
        labels = {"sink": "traces"}
        return REGISTRY.get_sample_value("caravan_best_effort_failures_total", labels) or 0.0

    (tmp_path / "no-folder").touch()
    before = lost()
    to = {"traces_file": tmp_path / "no-folder/feeder.jsonl"}
    with capture_logs() as logged:
        with (
            traced(traces=how, otel_exporter_otlp_endpoint=f"http://127.0.0.1:{free_port()}", **to),
            telemetry.exchange("zip-upload"),
        ):
            pass
        deadline = time.monotonic() + 30  # what is still being sent when a process ends is not waited for
        while not (lost() > before and logged) and time.monotonic() < deadline:
            time.sleep(0.02)
    assert lost() == before + 1
    assert [line["sink"] for line in logged] == ["traces"]


def test_a_collector_that_never_answers_does_not_keep_a_process_from_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tracing, "LAST_SECONDS", 0.1)
    answered = Event()

    class Endless(TracerProvider):
        def shutdown(self) -> None:
            answered.wait()

    tracing.use(Endless(shutdown_on_exit=False))
    ending = Thread(target=tracing.stop, daemon=True)
    ending.start()
    ending.join(30)
    assert not ending.is_alive()
    assert not tracing.is_on()
    answered.set()


def test_of_many_traces_a_few_begin_each_second_and_those_that_came_go_on(tmp_path: Path) -> None:
    file = tmp_path / "shopper.jsonl"
    with traced(traces="file", traces_file=file, traces_per_second=3):
        for _ in range(200):
            with tracing.span("detect-http"), tracing.span("predict"):
                pass
        for _ in range(20):
            with tracing.following(PARENT), tracing.span("detect-http"):
                pass
        with tracing.span("zip-upload"):
            pass
    kept = [line["name"] for line in lines(file) if line["trace"] != TRACE]
    assert 3 <= kept.count("detect-http") == kept.count("predict") < 100
    assert kept.count("zip-upload") == 1
    assert sum(line["trace"] == TRACE for line in lines(file)) == 20


def test_a_collector_is_sent_spans_by_otlp(collector: Collector) -> None:
    settings = {"traces": "otlp", "otel_exporter_otlp_endpoint": collector.url}
    with traced(**settings), tracing.following(PARENT), tracing.span("zip-upload"):
        pass
    assert [path for path, _ in collector.got] == ["/v1/traces"]
    assert bytes.fromhex(TRACE) in collector.got[0][1]
    assert b"zip-upload" in collector.got[0][1]


def test_settings_are_checked() -> None:
    assert TraceSettings().traces == "off"
    for wrong in (
        {"traces": "on"},
        {"traces": "otlp"},
        {"otel_exporter_otlp_endpoint": "collector"},
        {"traces_per_second": 0},
    ):
        with pytest.raises(ValidationError):
            TraceSettings(**wrong)
