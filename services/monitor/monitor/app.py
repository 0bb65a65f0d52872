"""Where the monitor service is wired together: only what the routes that run need."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, NoReturn

from fastapi import Depends, FastAPI

from caravan import http, kafka, pages, s3, sessions
from caravan.consume import Consumption
from caravan.contracts import EDGE_METRICS, data_bucket, dead_letter, events_topic, models_bucket
from caravan.intake import Senders
from caravan.mqtt import Mqtt
from caravan.retry import forever
from caravan.runtime import Service
from caravan.sessions import Sessions
from monitor import access, hub_api, quarantine_api, reports_api
from monitor.dashboard import wiring as dashboard
from monitor.hub_feed import Feed
from monitor.hub_source import History, reader
from monitor.hub_state import Hub
from monitor.routes import BRIDGE, DASHBOARD, HUB, MQTT, bridge, hub
from monitor.settings import MonitorSettings
from monitor.wiring import Wiring

TICK_SECONDS = 1.0
BATCH = 100

Tell = Callable[[str, dict[str, Any]], None]


@asynccontextmanager
async def wire(settings: MonitorSettings) -> AsyncIterator[Service]:
    """Make the clients, the web app and the loops; close the clients at the end."""
    async with AsyncExitStack() as stack:
        producer = await stack.enter_async_context(kafka.Producer(settings))
        files = pages.files("monitor.dashboard") if DASHBOARD in settings.routes else {}
        door = Sessions(settings.door, "hub")
        admit = access.guard(door, frozenset(f"/{path}" for path in files))
        app = FastAPI(title="Caravan monitor", docs_url=None, redoc_url=None, dependencies=[Depends(admit)])
        wiring = Wiring(app)
        wiring.checks["kafka"] = producer.ping
        if BRIDGE in settings.routes:
            _wire_bridge(settings, producer, wiring)
        if DASHBOARD in settings.routes:
            sessions.install(app, door)
            board = dashboard.wire(settings, wiring, files, door)
            state = _wire_hub(settings, wiring, board.tell, board.hub_is_read)
            board.shows(state)
        elif HUB in settings.routes:
            _wire_hub(settings, wiring)
        http.install(app, wiring.checks, Senders(settings.doors))
        yield Service(app, wiring.loops, wiring.stop)


def _wire_bridge(settings: MonitorSettings, producer: kafka.Producer, wiring: Wiring) -> None:
    put_aside = partial(kafka.put_aside, producer, BRIDGE)
    mqtt = Mqtt(settings)
    topic = events_topic(settings.edge)

    async def consume() -> None:
        await kafka.ensure_topics(settings, [topic, dead_letter(topic)])
        async with kafka.consumer(settings, topic, group=settings.group) as source:
            await bridge(source, mqtt.publish, put_aside, settings.max_event_bytes)

    events = Consumption(BRIDGE, consume)
    wiring.checks |= {MQTT: mqtt.ping, BRIDGE: events.ping}
    wiring.loops |= {MQTT: mqtt.run, BRIDGE: events.run}


def _wire_hub(
    settings: MonitorSettings,
    wiring: Wiring,
    also_tell: Tell = lambda *_: None,
    on_read: Callable[[], None] = lambda: None,
) -> Hub:
    limits = settings.hub_limits
    feed = Feed()

    def tell(name: str, facts: dict[str, Any]) -> None:
        feed.tell(name, facts)
        also_tell(name, facts)

    def on_news() -> None:
        # What is read at the start is told by one snapshot.
        feed.start_over()
        on_read()

    state = Hub(limits, tell, time.time())
    history = History(on_news)

    async def consume() -> None:
        await kafka.ensure_topics(settings, [EDGE_METRICS])
        since = limits.horizon(time.time())
        async with reader(settings, [EDGE_METRICS], since, settings.hub_history_messages, history) as source:
            await hub(kafka.batches(source, most=BATCH), history, state)

    async def tick() -> NoReturn:
        while True:
            state.tick(time.time())
            await asyncio.sleep(TICK_SECONDS)

    hub_api.install(wiring.app, state, feed)
    buckets = {edge: models_bucket(edge) for edge in settings.edges}
    reports_api.install(
        wiring.app, {edge: s3.open_bucket(settings.central, name) for edge, name in buckets.items()}
    )
    quarantine_api.install(
        wiring.app, {edge: s3.open_bucket(settings.central, data_bucket(edge)) for edge in settings.edges}
    )
    wiring.checks["history"] = history.ping
    wiring.checks["s3"] = partial(s3.ping_any, settings.central, list(buckets.values()))
    wiring.loops |= {HUB: partial(forever, HUB, consume), "clock": tick}
    wiring.on_stop.append(feed.close)
    return state
