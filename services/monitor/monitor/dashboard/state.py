"""All that the dashboard shows, and what changed in it: a frame, a few times a second, whatever happens.

However many events come, a frame carries counts, the edges that look different now, and bounded lists: the
page's work, and the feed's memory, depend on how much is shown, not on how much happens.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from caravan.groups import Groups
from caravan.rollout import Told
from caravan.times import iso
from monitor.dashboard.edge import Edge
from monitor.hub_feed import Feed
from monitor.hub_state import Hub

FRAME_SECONDS = 0.25
FRAME_LINES = 20
FRAME_CAMERAS = 40
FRAME_UNCERTAIN = 12
MOST_CAMERAS = 60
"""Most cameras shown one by one; the sums are of all."""
MOST_UNCERTAIN = 24
SNAPSHOT_LINES = 60

Json = dict[str, Any]
NO_GROUPS: Groups = {}


class Dashboard:
    """The state behind the page.

    Args:
        edges: ids of the edges that are shown.
        feed: receives the frames.
        letters: returns the dead letters, as shown.
        clock: returns seconds since 1970.
        groups: which of the edges share a model.

    """

    def __init__(
        self,
        edges: Sequence[str],
        feed: Feed,
        letters: Callable[[], list[Json]],
        clock: Callable[[], float],
        groups: Groups = NO_GROUPS,
    ) -> None:
        owners = {edge: group for group, members in groups.items() for edge in members}
        self.edges = {name: Edge(name, owners.get(name, "")) for name in edges}
        self._feed = feed
        self._letters = letters
        self._clock = clock
        self._asked = asyncio.Event()
        self._asked.set()
        self._hub: Hub | None = None
        self._cameras: dict[tuple[str, str], None] = {}
        self._uncertain: deque[Json] = deque(maxlen=FRAME_UNCERTAIN)
        self._flow: dict[str, Counter[str]] = {name: Counter() for name in edges}
        self._told: dict[str, Any] = {}

    def shows(self, hub: Hub) -> None:
        """Take the hub whose cameras are shown; it tells its changes to `tell`."""
        self._hub = hub

    def tell(self, name: str, data: Mapping[str, Any]) -> None:
        """Hear a change of the hub."""
        if not self._asked.is_set():
            return
        if name == "uncertain":
            self._uncertain.append(dict(data))
            self._count(data["edge"], "uncertain", 1)
            return
        self._cameras[data["edge"], data["camera"]] = None
        if name == "window":
            self._count(data["edge"], "metrics", 1)

    def hear_rollout(self, told: Told, at: float, name: str) -> None:
        """Take in how far a version has come; the log of the group's first edge has a line of it."""
        members = [self.edges[edge] for edge in told.edges if edge in self.edges]
        for number, edge in enumerate(members):
            edge.hear_rollout(told, at, name, logs=number == 0)

    def _count(self, edge: str, kind: str, count: int) -> None:
        if edge in self._flow:
            self._flow[edge][kind] += count

    # --- showing ----------------------------------------------------------------------------------

    def snapshot(self) -> Json:
        """Return all of it, and what changes from now on goes into frames."""
        if not self._asked.is_set():
            self._forget()
            self._asked.set()
        cameras = self._cameras_json()
        uncertain = self._hub.uncertain()[:MOST_UNCERTAIN] if self._hub else []
        lines = [line for edge in self.edges.values() for line in edge.event_log.lines]
        lines.sort(key=lambda line: (line.at, line.edge))
        return {
            "at": iso(self._clock()),
            "edges": self._edges(),
            "hub": self._sums(),
            "cameras": cameras,
            "uncertain": uncertain,
            "log": [line.as_json() for line in lines[-SNAPSHOT_LINES:]],
            "letters": self._letters(),
        }

    def start_over(self) -> None:
        """Let readers start from a snapshot: what happened before is told by it."""
        self._forget()
        self._feed.start_over()

    def rest(self) -> None:
        """Let nothing go into frames until somebody asks for a snapshot: readers begin with it then."""
        self._asked.clear()
        self._feed.forget()

    async def asked(self) -> None:
        """Wait until somebody asks."""
        await self._asked.wait()

    def _forget(self) -> None:
        """Forget what changed: a snapshot tells it."""
        self._forget_flow()
        self._cameras.clear()
        self._uncertain.clear()
        for edge in self.edges.values():
            edge.event_log.changes()

    def tick(self) -> bool:
        """Tell what changed since the last tick, and whether anything did."""
        frame: Json = {}
        changed = [json for json in self._edges() if self._news(json)]
        if changed:
            frame["edges"] = changed
        if flow := self._take_flow():
            frame["flow"] = flow
        if lines := self._take_lines():
            frame["log"] = lines
        if cameras := self._take_cameras():
            frame["cameras"] = cameras
        if self._uncertain:
            frame["uncertain"] = list(self._uncertain)
            self._uncertain.clear()
        for name, part in (("hub", self._sums()), ("letters", self._letters())):
            if self._told.get(name) != part:
                frame[name] = self._told[name] = part
        if frame:
            self._feed.tell("frame", {"at": iso(self._clock()), **frame})
        return bool(frame)

    def _edges(self) -> list[Json]:
        now = self._clock()
        return [edge.as_json(now, self._picture) for edge in self.edges.values()]

    def _picture(self, name: str) -> str | None:
        return self._hub.picture(name) if self._hub else None

    def _news(self, json: Json) -> bool:
        name = f"edge {json['edge']}"
        if self._told.get(name) == json:
            return False
        self._told[name] = json
        return True

    def _take_flow(self) -> dict[str, dict[str, int]]:
        for name, edge in self.edges.items():
            self._flow[name].update(edge.flow)
        flow = {name: dict(counts) for name, counts in self._flow.items() if counts}
        self._forget_flow()
        return flow

    def _forget_flow(self) -> None:
        for name, edge in self.edges.items():
            edge.flow.clear()
            self._flow[name].clear()

    def _take_lines(self) -> list[Json]:
        lines = [line for edge in self.edges.values() for line in edge.event_log.changes()]
        lines.sort(key=lambda line: (line.at, line.edge))
        return [line.as_json() for line in lines[-FRAME_LINES:]]

    def _take_cameras(self) -> list[Json]:
        if self._hub is None:
            return []
        taken = list(self._cameras)[:FRAME_CAMERAS]
        for name in taken:
            del self._cameras[name]
        found = (self._hub.camera(*name) for name in taken)
        return [compact(camera) for camera in found if camera is not None]

    def _cameras_json(self) -> list[Json]:
        return [compact(camera) for camera in self._hub.cameras(MOST_CAMERAS)] if self._hub else []

    def _sums(self) -> Json:
        return self._hub.sums() if self._hub else {}


def compact(camera: Json) -> Json:
    """Return what is drawn of a camera; a window is [end, images, certain, p50, p90, p99 in seconds]."""
    return {
        "edge": camera["edge"],
        "camera": camera["camera"],
        "state": camera["state"],
        "last_seen": camera["last_seen"],
        "window_seconds": camera["window_seconds"],
        "totals": camera["totals"],
        "model": camera["windows"][-1]["model"] if camera["windows"] else "",
        "version": camera["windows"][-1]["version"] if camera["windows"] else 0,
        "windows": [_window(window) for window in camera["windows"]],
    }


def _window(window: Json) -> list[Any]:
    percentiles = (window["latency"].get("predict", {}).get("percentiles", []) + [0.0] * 4)[:4]
    p50, _, p90, p99 = (round(value, 4) for value in percentiles)
    return [window["end"], window["images"], sum(window["certain"].values()), p50, p90, p99]
