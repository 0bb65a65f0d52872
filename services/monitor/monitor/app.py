"""Where the monitor service is wired together: only what the routes that run need."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from fastapi import Depends, FastAPI

from caravan import dead_letters, http, kafka, kafka_topics, pages, sessions
from caravan.consume import Consumption
from caravan.contracts import dead_letter, events_topic
from caravan.intake import Senders
from caravan.mqtt import Mqtt
from caravan.runtime import Service
from caravan.sessions import Sessions
from monitor import access
from monitor.routes import BRIDGE, DASHBOARD, HUB, MQTT, bridge
from monitor.settings import MonitorSettings
from monitor.wiring import Wiring


@asynccontextmanager
async def wire(settings: MonitorSettings) -> AsyncIterator[Service]:
    """Make the clients, the web app and the loops; close the clients at the end."""
    async with AsyncExitStack() as stack:
        producer = await stack.enter_async_context(kafka.Producer(settings))
        files = pages.files("monitor.dashboard") if DASHBOARD.id in settings.routes else {}
        door = Sessions(settings.door, "hub")
        admit = access.guard(door, frozenset(f"/{path}" for path in files))
        app = FastAPI(title="Caravan monitor", docs_url=None, redoc_url=None, dependencies=[Depends(admit)])
        wiring = Wiring(app)
        wiring.checks["kafka"] = producer.ping
        if BRIDGE.id in settings.routes:
            _wire_bridge(settings, producer, wiring)
        if DASHBOARD.id in settings.routes:
            from monitor import hub_wiring  # noqa: PLC0415 - an edge bridges only, and has no memory to waste
            from monitor.dashboard import wiring as dashboard  # noqa: PLC0415

            sessions.install(app, door)
            board = dashboard.wire(settings, wiring, files, door)
            state = hub_wiring.wire(settings, wiring, board.tell, board.hub_is_read)
            board.shows(state)
        elif HUB.id in settings.routes:
            from monitor import hub_wiring  # noqa: PLC0415

            hub_wiring.wire(settings, wiring)
        http.install(app, wiring.checks, Senders(settings.doors))
        yield Service(app, wiring.loops, wiring.stop)


def _wire_bridge(settings: MonitorSettings, producer: kafka.Producer, wiring: Wiring) -> None:
    send_dead_letter = partial(dead_letters.send_dead_letter, producer, BRIDGE.id)
    mqtt = Mqtt(settings)
    topic = events_topic(settings.edge)

    async def consume() -> None:
        await kafka_topics.ensure_topics(settings, [topic, dead_letter(topic)])
        async with kafka.consumer(settings, topic, group=settings.group) as source:
            await bridge(source, mqtt.publish_all, send_dead_letter, settings.max_event_bytes)

    events = Consumption(BRIDGE.id, consume)
    wiring.checks |= {MQTT: mqtt.ping, BRIDGE.id: events.ping}
    wiring.loops |= {MQTT: mqtt.run, BRIDGE.id: events.run}
