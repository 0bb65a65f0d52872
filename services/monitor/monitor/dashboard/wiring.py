"""Where the dashboard is wired together."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from typing import Any

from caravan import kafka, kafka_topics, s3
from caravan.contracts import EDGE_STATUS, data_bucket, events_topic, ready_bucket
from caravan.history import History, reader
from caravan.retry import forever
from caravan.sessions import Sessions
from monitor.dashboard import ready, waiting
from monitor.dashboard.accounts import Accounts
from monitor.dashboard.dead_letter_topics import DeadLetterTopics
from monitor.dashboard.dead_letters import DeadLetters
from monitor.dashboard.frames import draw
from monitor.dashboard.state import Dashboard
from monitor.doors import dashboard as dashboard_door
from monitor.doors import events, page
from monitor.doors.events import Snapshots
from monitor.hub_feed import Feed
from monitor.hub_state import Hub
from monitor.routes import DASHBOARD, dashboard
from monitor.settings import MonitorSettings
from monitor.wiring import Wiring

KEPT_FRAMES = 240
"""Frames kept for a page that reconnects, a minute's worth at the busiest; later it starts over."""
BATCH = 2000


class Board:
    """The dashboard as the hub beside it knows it: it begins once both have read what was there."""

    def __init__(self, state: Dashboard) -> None:
        self.state = state
        self.history = History(self._begin)
        self._hub_is_read = False

    def tell(self, name: str, facts: dict[str, Any]) -> None:
        """Hear a change of the hub."""
        if self._hub_is_read:
            self.state.tell(name, facts)

    def shows(self, hub: Hub) -> None:
        """Take the hub whose cameras are shown."""
        self.state.shows(hub)

    def hub_is_read(self) -> None:
        """Hear that the hub has read what was there at its start."""
        self._hub_is_read = True
        self._begin()

    def _begin(self) -> None:
        if self._hub_is_read and self.history.is_read:
            self.state.start_over()


def wire(settings: MonitorSettings, wiring: Wiring, files: Mapping[str, bytes], door: Sessions) -> Board:
    """Add the dashboard's doors, checks and loops; returns what the hub needs of it."""
    feed = Feed(KEPT_FRAMES)
    letters = DeadLetters()
    state = Dashboard(settings.edges, feed, letters.as_json, time.time, settings.sharing)
    board = Board(state)
    replaying = DeadLetterTopics(settings, letters)
    data = {edge: s3.open_bucket(settings.central, data_bucket(edge)) for edge in settings.edges}
    accounts = Accounts(data)
    stores = {edge: s3.open_bucket(settings.central, ready_bucket(edge)) for edge in settings.edges}
    topics = [*map(events_topic, settings.edges), EDGE_STATUS]

    async def consume() -> None:
        await kafka_topics.ensure_topics(settings, topics)
        since = settings.hub_limits.horizon(time.time())
        most = settings.dashboard_history_messages
        async with reader(settings, topics, since, most, board.history) as source:
            await dashboard(kafka.batches(source, most=BATCH), board.history, state)

    page.install(wiring.app, files, door)
    dashboard_door.install(wiring.app, state, letters, replaying, accounts)
    snapshots = Snapshots(feed, state.snapshot)
    events.install(wiring.app, "/dashboard/events", feed, snapshots)
    wiring.checks["events"] = board.history.ping
    # Central's store is needed for a part of what is shown alone: without it the rest is still of use.
    wiring.loops |= {
        DASHBOARD.id: partial(forever, DASHBOARD.id, consume),
        "frames": partial(draw, state, feed),
        "ready": partial(ready.watch, state.edges, stores),
        "quarantine": partial(waiting.watch, state.edges, data),
        "letters": partial(forever, "letters", replaying.follow),
        "replay": replaying.send,
    }
    wiring.on_stop.append(feed.close)
    return board
