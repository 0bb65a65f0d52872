"""Where the monitor service is wired together: only what the routes that run need."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import NoReturn

from fastapi import FastAPI

from caravan import http, kafka, s3
from caravan.contracts import EDGE_METRICS, dead_letter, events_topic, models_bucket
from caravan.mqtt import Mqtt
from caravan.retry import forever
from caravan.runtime import Service
from monitor import hub_api, reports_api
from monitor.hub_feed import Feed
from monitor.hub_source import History, reader
from monitor.hub_state import Hub
from monitor.routes import BRIDGE, HUB, bridge, hub
from monitor.settings import MonitorSettings

TICK_SECONDS = 1.0
BATCH = 100


@dataclass
class Wiring:
    """What the routes add: the checks of `/readyz`, the loops, and what the end of the process is told."""

    app: FastAPI
    checks: dict[str, http.Check] = field(default_factory=dict)
    loops: dict[str, Callable[[], Awaitable[None]]] = field(default_factory=dict)
    on_stop: Callable[[], None] = lambda: None


@asynccontextmanager
async def wire(settings: MonitorSettings) -> AsyncIterator[Service]:
    """Make the clients, the web app and the loops; close the clients at the end."""
    async with AsyncExitStack() as stack:
        producer = await stack.enter_async_context(kafka.Producer(settings))
        wiring = Wiring(FastAPI(title="Caravan monitor", docs_url=None, redoc_url=None))
        wiring.checks["kafka"] = producer.ping
        if BRIDGE in settings.routes:
            _wire_bridge(settings, producer, wiring)
        if HUB in settings.routes:
            _wire_hub(settings, wiring)
        http.install(wiring.app, wiring.checks)
        yield Service(wiring.app, wiring.loops, wiring.on_stop)


def _wire_bridge(settings: MonitorSettings, producer: kafka.Producer, wiring: Wiring) -> None:
    put_aside = partial(kafka.put_aside, producer, BRIDGE)
    mqtt = Mqtt(settings)
    topic = events_topic(settings.edge)

    async def consume() -> None:
        await kafka.ensure_topics(settings, [topic, dead_letter(topic)])
        async with kafka.consumer(settings, topic, group=settings.group) as source:
            await bridge(
                kafka.batches(source),
                mqtt.publish,
                partial(kafka.commit, source),
                put_aside,
                settings.max_event_bytes,
            )

    wiring.checks["mqtt"] = mqtt.ping
    wiring.loops |= {"mqtt": mqtt.run, BRIDGE: partial(forever, BRIDGE, consume)}


def _wire_hub(settings: MonitorSettings, wiring: Wiring) -> None:
    limits = settings.hub_limits
    feed = Feed()
    state = Hub(limits, feed, time.time())
    # What is read at the start is told by one snapshot.
    history = History(feed.start_over)

    async def consume() -> None:
        await kafka.ensure_topics(settings, [EDGE_METRICS])
        since = limits.horizon(time.time())
        async with reader(settings, EDGE_METRICS, since, settings.hub_history_messages, history) as source:
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
    wiring.checks["history"] = history.ping
    wiring.checks["s3"] = partial(s3.ping, settings.central, buckets[settings.edges[0]])
    wiring.loops |= {HUB: partial(forever, HUB, consume), "clock": tick}
    wiring.on_stop = feed.close
