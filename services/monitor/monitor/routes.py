"""The routes of the monitor service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog
from aiokafka import ConsumerRecord

from caravan import strict_json
from caravan.aggregate import Aggregator
from caravan.consume import Effect, LogAndContinue, Policy, Source, consume
from caravan.contracts import MONITOR
from caravan.dead_letters import SendDeadLetter
from caravan.errors import BadInput
from caravan.history import History
from caravan.kafka import Batch
from caravan.mqtt import WINDOW
from caravan.route import Route
from caravan.strict_json import NotJson
from monitor import hub_messages, metrics
from monitor.dashboard import source
from monitor.dashboard.state import Dashboard
from monitor.hub_messages import Uncertain, Window
from monitor.hub_state import Hub

if TYPE_CHECKING:
    from caravan.reports import ListModels, ReadReport, Report

log = structlog.get_logger()

ListWaiting = Callable[[], Awaitable[list[dict[str, Any]]]]
ReadPage = Callable[[str], Awaitable[bytes]]

BRIDGE = Route(
    "bridge",
    source="Kafka `E`",
    mandatory="each event on MQTT `monitor`, acknowledged, in order; or the dead letter of what is none",
)
HUB = Route(
    "hub",
    source="Kafka `edge-metrics` of all edges",
    mandatory="none: the topic is the store, and memory is made of it again at each start",
    best_effort="`/api/…`, `/events`",
)
REPORTS = Route("reports", source="`GET /reports/<edge>`", mandatory="the answer: what S3 `E-models` holds")
REPORT = Route(
    "report",
    source="`GET /reports/<edge>/<model>/<version>`",
    mandatory="the answer: a version's report in S3 `E-models`",
)
QUARANTINE = Route(
    "quarantine",
    source="`GET /quarantine/<edge>`",
    mandatory="the answer: the batches in S3 `E-data` that wait for a person",
)
QUARANTINE_PAGE = Route(
    "quarantine-page",
    source="`GET /quarantine/<edge>/<batch>`",
    mandatory="the answer: a batch's pictures in S3 `E-data`",
)
DASHBOARD = Route(
    "dashboard",
    source="Kafka `E` and `edge-status` of all edges",
    mandatory="none: the topics are the store",
    best_effort="the dashboard's pages",
)
ROUTES = (BRIDGE, HUB, REPORTS, REPORT, QUARANTINE, QUARANTINE_PAGE, DASHBOARD)

MQTT = "mqtt"
MQTT_AWAY_SECONDS = 240.0
"""Seconds for which events are kept while MQTT is away; then they are read again from the committed one."""
BRIDGE_POLICY = Policy(
    route=BRIDGE.id,
    sink=MQTT,
    at_once=10 * WINDOW,
    in_flight=10 * WINDOW,
    order="partition",
    within=MQTT_AWAY_SECONDS,
    then="stop",
    gathers=True,
)


async def bridge(
    source: Source,
    publish_all: Callable[[str, Sequence[bytes]], Awaitable[None]],
    send_dead_letter: SendDeadLetter,
    max_bytes: int,
) -> None:
    """FROM Kafka `E` → events that are JSON objects → TO MQTT `monitor`, in order → commit.

    What is not acknowledged is sent again, so a dashboard sees each event at least once, in order.
    """

    async def publish(_: int, events: Sequence[bytes]) -> None:
        await publish_all(MONITOR, events)

    async def handle(record: ConsumerRecord) -> Effect:
        return partial(windows.add, record.partition, _event(record.value, max_bytes))

    windows = Aggregator[int, bytes](
        BRIDGE.id, MQTT, publish, within=MQTT_AWAY_SECONDS, age=0, count=WINDOW, begins_trace=False
    )
    async with windows:
        await consume(source, handle, send_dead_letter, BRIDGE_POLICY)


async def hub(batches: AsyncIterable[Batch], history: History, state: Hub) -> None:
    """FROM Kafka `edge-metrics` → read → counted once → TO memory, and those who listen to its events.

    Each hub makes its memory of the topic again at each start; so nothing is committed. What cannot be read
    is counted and logged; it becomes no dead letter, as each hub would send one at each start.
    """
    reading = LogAndContinue(HUB.id)
    async for batch in batches:
        for partition, records in batch.items():
            with HUB.exchange(begins_trace=False):
                found = await asyncio.to_thread(_read, records)
            for record, message in zip(records, found, strict=True):
                with reading.of(record):
                    if isinstance(message, Exception):
                        raise message
                    state.take(message, *history.times(record))
            history.read_up_to(partition, records[-1].offset + 1)


async def reports(list_models: ListModels, edge: str) -> dict[str, Any]:
    """FROM an edge → the versions in S3 `E-models` → TO what their manifests say, and the gate's verdicts."""
    return {"edge": edge, "models": await list_models()}


async def report(read_report: ReadReport, model: str, version: str) -> Report:
    """FROM a model and its version, or `latest` → S3 `E-models` → TO the page."""
    return await read_report(model, version)


async def quarantine(list_waiting: ListWaiting, edge: str) -> dict[str, Any]:
    """FROM an edge → the quarantine in S3 `E-data` → TO the batches that wait for a person, and why."""
    return {"edge": edge, "batches": await list_waiting()}


async def quarantine_page(read_page: ReadPage, batch: str) -> bytes:
    """FROM a batch that waits → S3 `E-data` → TO its pictures."""
    return await read_page(batch)


async def dashboard(batches: AsyncIterable[Batch], history: History, state: Dashboard) -> None:
    """FROM Kafka `E` of all edges, and `edge-status` → read → TO memory, and those who look.

    As in the hub, nothing is committed. What cannot be read is counted and logged.
    """
    reading = LogAndContinue(DASHBOARD.id)
    async for batch in batches:
        for partition, records in batch.items():
            with DASHBOARD.exchange(begins_trace=False):
                for record in records:
                    with reading.of(record):
                        source.take(state, record, DASHBOARD.id, history)
            metrics.DASHBOARD_EVENTS.labels(partition.topic).inc(len(records))
            history.read_up_to(partition, records[-1].offset + 1)


def _read(records: Sequence[ConsumerRecord]) -> list[list[Window] | Uncertain | Exception]:
    return [_read_one(record.value) for record in records]


def _read_one(value: bytes | None) -> list[Window] | Uncertain | Exception:
    try:
        return hub_messages.read(value)
    except Exception as exc:  # noqa: BLE001 - it is that message's, and told of beside it
        return exc


def _event(value: bytes | None, max_bytes: int) -> bytes:
    """Return an event as it came.

    Raises:
        BadInput: if it is none.

    """
    raw = value or b""
    if len(raw) > max_bytes:
        message = f"the event has {len(raw)} bytes; {max_bytes} are allowed"
        raise BadInput(message, 413, reason="too-large")
    try:
        event = strict_json.loads(raw)
    except NotJson as exc:
        message = f"the event is not JSON: {exc}"
        raise BadInput(message, reason="not-json") from exc
    if not isinstance(event, dict):
        raise BadInput("the event is not a JSON object", 422, reason="not-an-object")
    return raw
