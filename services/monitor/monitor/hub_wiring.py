"""Where the hub is wired together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

from caravan import kafka, kafka_topics, s3
from caravan.contracts import EDGE_METRICS, data_bucket, models_bucket
from caravan.history import History, reader
from caravan.retry import forever
from monitor.doors import hub as hub_door
from monitor.doors import quarantine, reports
from monitor.hub_feed import Feed
from monitor.hub_state import Hub
from monitor.routes import HUB, hub
from monitor.settings import MonitorSettings
from monitor.wiring import Wiring

TICK_SECONDS = 1.0
BATCH = 100

Tell = Callable[[str, dict[str, Any]], None]


def wire(
    settings: MonitorSettings,
    wiring: Wiring,
    also_tell: Tell = lambda *_: None,
    on_read: Callable[[], None] = lambda: None,
) -> Hub:
    """Make the hub's memory, the doors to it and the loops that fill it."""
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
        await kafka_topics.ensure_topics(settings, [EDGE_METRICS])
        since = limits.horizon(time.time())
        async with reader(settings, [EDGE_METRICS], since, settings.hub_history_messages, history) as source:
            await hub(kafka.batches(source, most=BATCH), history, state)

    async def tick() -> NoReturn:
        while True:
            state.tick(time.time())
            await asyncio.sleep(TICK_SECONDS)

    hub_door.install(wiring.app, state, feed)
    owners = {edge: settings.owner_of(edge) for edge in (*settings.edges, *settings.edge_groups)}
    buckets = {edge: models_bucket(owner) for edge, owner in owners.items()}
    reports.install(
        wiring.app, {edge: s3.open_bucket(settings.central, name) for edge, name in buckets.items()}
    )
    quarantine.install(
        wiring.app, {edge: s3.open_bucket(settings.central, data_bucket(edge)) for edge in settings.edges}
    )
    wiring.checks["history"] = history.ping
    wiring.checks["s3"] = partial(s3.ping_any, settings.central, list(buckets.values()))
    wiring.loops |= {HUB.id: partial(forever, HUB.id, consume), "clock": tick}
    wiring.on_stop.append(feed.close)
    return state
