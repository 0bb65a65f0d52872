"""What the hub knows: cameras with their windows and totals, and the last uncertain images; all in memory.

Everything is bounded: totals reach back `history_seconds`, in steps, so that two hubs, one started now and
one long ago, show the same; each camera keeps its last windows; cameras, images and known ids have a limit.

Time is that of Kafka's records for totals, which all hubs share, and the hub's own for silence: the clocks
of the edges may differ.
"""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from caravan.times import iso
from monitor import metrics
from monitor.hub_counts import Counts, Entries, folded
from monitor.hub_messages import Uncertain, Window

STEPS = 96
"""Steps of the history; totals forget one step at a time."""
LAST_WINDOWS = 25
LAST_UNCERTAIN = 200
DIFFERING_SHARE = 4
"""One of so many bytes of images is for those where two versions differ, which edges tell again."""
MOST_CLASSES = 1000
"""Most classes shown of a camera's totals."""
SHOWN_CLASSES = 100
"""Classes shown of a window, by images; the others are shown as one."""

State = Literal["live", "silent"]
Name = tuple[str, str]
"""Edge and camera."""
Tell = Callable[[str, dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class HubLimits:
    """How much the hub keeps.

    Args:
        history_seconds: seconds that totals reach back.
        silent_windows: windows without a message after which a camera is silent.
        window_seconds: length of a window of a camera that does not say.
        max_cameras: beyond it those leave that were heard of longest ago.
        max_ids: messages that are known again when they come twice.
        max_image_bytes: most bytes of all uncertain images; the oldest give way.
        max_classes: names of classes, of all cameras; what is beyond is counted as one.
        max_entries: of the tables that count by class, and of those in last windows; one has some 100 bytes.

    """

    history_seconds: float = 24 * 3600
    silent_windows: float = 3
    window_seconds: float = 10
    max_cameras: int = 1000
    max_ids: int = 200_000
    max_image_bytes: int = 64 * 2**20
    max_classes: int = 5000
    max_entries: int = 500_000

    @property
    def step(self) -> float:
        """Seconds of one step of the history."""
        return self.history_seconds / STEPS

    def horizon(self, now: float) -> float:
        """Return the time, in seconds since 1970, from which on messages count."""
        return (math.floor(now / self.step) - STEPS) * self.step


@dataclass(slots=True)
class Camera:
    """What is known of one camera; `heard` is when, in seconds since 1970."""

    edge: str
    camera: str
    certain: Counts
    uncertain: Counts
    heard: float = 0.0
    state: State = "live"
    window_seconds: float = 0.0
    windows: deque[dict[str, Any]] = field(default_factory=deque)
    """The last windows as shown, oldest first; they are never changed."""

    def totals(self) -> dict[str, Any]:
        """Return the counts by class, and how many images they are."""
        certain, uncertain = self.certain.total, self.uncertain.total
        return {
            "certain": dict(sorted(folded(certain, MOST_CLASSES).items())),
            "uncertain": dict(sorted(folded(uncertain, MOST_CLASSES).items())),
            "images": certain.total() + uncertain.total(),
        }

    @property
    def images(self) -> int:
        """How many images were counted."""
        return self.certain.total.total() + self.uncertain.total.total()

    def rate(self) -> float:
        """Return the images per second in the newest window, of all models."""
        if not self.windows or not self.window_seconds:
            return 0.0
        newest = max(window["end"] for window in self.windows)
        images: int = sum(window["images"] for window in self.windows if window["end"] == newest)
        return images / self.window_seconds

    def as_json(self) -> dict[str, Any]:
        """Return what `/hub` shows of it; windows oldest first."""
        return {
            "edge": self.edge,
            "camera": self.camera,
            "state": self.state,
            "last_seen": iso(self.heard),
            "window_seconds": self.window_seconds,
            "totals": self.totals(),
            "windows": list(self.windows),
        }


class Hub:
    """The state, and what changed in it.

    Args:
        limits: bounds on the state.
        tell: called with the name and the facts of each change.
        now: seconds since 1970.

    """

    def __init__(self, limits: HubLimits, tell: Tell, now: float) -> None:
        self._limits = limits
        self._tell = tell
        self._now = now
        self._since = limits.horizon(now)
        self._oldest = 0
        self._entries = Entries(limits.max_entries, limits.max_classes)
        self._window_entries = 0
        self._cameras: dict[Name, Camera] = {}
        self._uncertain: deque[Uncertain] = deque()
        self._image_bytes = 0
        self._differing: OrderedDict[str, Uncertain] = OrderedDict()
        self._differing_bytes = 0
        self._ids: OrderedDict[bytes, None] = OrderedDict()

    # --- taking in --------------------------------------------------------------------------------

    def take(self, message: list[Window] | Uncertain, sent: float, heard: float) -> None:
        """Take a message in, unless it is known or too old.

        Args:
            message: the decoded message.
            sent: when it came to Kafka, seconds since 1970.
            heard: when its camera was heard of by it.

        """
        if sent < self._limits.horizon(self._now):
            return
        for part in [message] if isinstance(message, Uncertain) else message:
            if isinstance(part, Uncertain) and part.differs:
                self._take_differing(part)
            elif not self._is_new(part.id):
                metrics.HUB_REPEATS.inc()
            elif isinstance(part, Window):
                self._take_window(part, sent, heard)
            else:
                self._take_uncertain(part)

    def tick(self, now: float) -> None:
        """Let time pass: cameras fall silent, old counts are forgotten."""
        self._now = now
        oldest = math.floor(self._limits.horizon(now) / self._limits.step)
        self._since = max(self._since, self._limits.horizon(now))
        for name, camera in list(self._cameras.items()):
            if oldest > self._oldest:
                camera.certain.forget(oldest)
                camera.uncertain.forget(oldest)
            camera.heard = min(camera.heard, now)  # the clock may have been set back
            quiet = now - camera.heard
            if quiet > self._limits.history_seconds:
                self._forget(name)
            elif camera.state == "live" and quiet > self._patience(camera):
                camera.state = "silent"
                event = {"edge": camera.edge, "camera": camera.camera, "last_seen": iso(camera.heard)}
                self._tell("silent", event)
        self._oldest = oldest
        metrics.HUB_CAMERAS.labels("live").set(sum(c.state == "live" for c in self._cameras.values()))
        metrics.HUB_CAMERAS.labels("silent").set(sum(c.state == "silent" for c in self._cameras.values()))

    def _take_window(self, window: Window, sent: float, heard: float) -> None:
        name = window.edge, window.camera
        camera = self._cameras.get(name)
        if camera is None:
            self._make_room()
            camera = Camera(window.edge, window.camera, Counts(self._entries), Counts(self._entries))
            self._cameras[name] = camera
        camera.heard = max(camera.heard, heard)
        camera.window_seconds = window.seconds or self._limits.window_seconds
        camera.state = "live" if self._now - camera.heard <= self._patience(camera) else "silent"
        step = math.floor(sent / self._limits.step)
        camera.certain.add(window.certain, step)
        camera.uncertain.add(window.uncertain, step)
        shown = window_json(window)
        self._keep(camera, shown)
        metrics.HUB_IMAGES.labels("certain").inc(sum(window.certain.values()))
        metrics.HUB_IMAGES.labels("uncertain").inc(sum(window.uncertain.values()))
        self._tell(
            "window",
            {
                "edge": camera.edge,
                "camera": camera.camera,
                "state": camera.state,
                "last_seen": iso(camera.heard),
                "window": shown,
                "totals": camera.totals(),
            },
        )

    def _keep(self, camera: Camera, shown: dict[str, Any]) -> None:
        """Keep a window; with many entries, a camera keeps fewer windows."""
        camera.windows.append(shown)
        self._window_entries += _entries(shown)
        while len(camera.windows) > 1 and (
            len(camera.windows) > LAST_WINDOWS or self._window_entries > self._limits.max_entries
        ):
            self._window_entries -= _entries(camera.windows.popleft())

    def _forget(self, name: Name) -> None:
        camera = self._cameras.pop(name)
        self._window_entries -= sum(map(_entries, camera.windows))
        camera.certain.clear()
        camera.uncertain.clear()

    def _take_uncertain(self, uncertain: Uncertain) -> None:
        self._uncertain.append(uncertain)
        self._image_bytes += len(uncertain.image or b"")
        if len(self._uncertain) > LAST_UNCERTAIN:
            self._image_bytes -= len(self._uncertain.popleft().image or b"")
        for index, old in enumerate(self._uncertain):
            if self._image_bytes <= self._limits.max_image_bytes:
                break
            if old.image is not None:
                self._image_bytes -= len(old.image)
                self._uncertain[index] = without_image(old)
        self._tell("uncertain", uncertain_json(self._uncertain[-1]))

    def _take_differing(self, differing: Uncertain) -> None:
        if differing.image is None:
            return
        known = self._differing.pop(differing.id, None)
        self._differing_bytes += len(differing.image) - len((known and known.image) or b"")
        self._differing[differing.id] = differing
        while self._differing_bytes > self._limits.max_image_bytes // DIFFERING_SHARE:
            _, oldest = self._differing.popitem(last=False)
            self._differing_bytes -= len(oldest.image or b"")

    def _is_new(self, name: str) -> bool:
        key = hashlib.blake2b(name.encode(), digest_size=12).digest()
        if key in self._ids:
            self._ids.move_to_end(key)
            return False
        self._ids[key] = None
        if len(self._ids) > self._limits.max_ids:
            self._ids.popitem(last=False)
        return True

    def _make_room(self) -> None:
        if len(self._cameras) >= self._limits.max_cameras:
            self._forget(min(self._cameras, key=lambda name: self._cameras[name].heard))

    def _patience(self, camera: Camera) -> float:
        return self._limits.silent_windows * (camera.window_seconds or self._limits.window_seconds)

    # --- showing ----------------------------------------------------------------------------------

    def overview(self) -> dict[str, Any]:
        """Return what `GET /hub` answers."""
        cameras = sorted(self._cameras.values(), key=lambda camera: (camera.edge, camera.camera))
        shown = [camera.as_json() for camera in cameras]
        edges: dict[str, dict[str, Any]] = {}
        for camera, json in zip(cameras, shown, strict=True):
            edge = edges.setdefault(camera.edge, {"edge": camera.edge, "cameras": 0, "live": 0, "images": 0})
            edge["cameras"] += 1
            edge["live"] += camera.state == "live"
            edge["images"] += json["totals"]["images"]
        return {
            "since": iso(self._since),
            "images": sum(edge["images"] for edge in edges.values()),
            "images_per_second": round(sum(c.rate() for c in cameras if c.state == "live"), 3),
            "edges": list(edges.values()),
            "cameras": shown,
        }

    def sums(self) -> dict[str, Any]:
        """Return what all cameras come to, by edge, and how many there are."""
        edges: dict[str, dict[str, Any]] = {}
        for camera in self._cameras.values():
            edge = edges.setdefault(camera.edge, {"cameras": 0, "live": 0, "images_per_second": 0.0})
            edge["cameras"] += 1
            if camera.state == "live":
                edge["live"] += 1
                edge["images_per_second"] += camera.rate()
        for edge in edges.values():
            edge["images_per_second"] = round(edge["images_per_second"], 2)
        return {"since": iso(self._since), "cameras": len(self._cameras), "edges": edges}

    def cameras(self, most: int) -> list[dict[str, Any]]:
        """Return some cameras as `overview` shows them: those that count most images, in order of name."""
        busiest = sorted(self._cameras.values(), key=lambda one: (-one.images, one.edge, one.camera))[:most]
        return [one.as_json() for one in sorted(busiest, key=lambda one: (one.edge, one.camera))]

    def camera(self, edge: str, camera: str) -> dict[str, Any] | None:
        """Return one camera as `overview` shows it, or None if it is not known."""
        found = self._cameras.get((edge, camera))
        return None if found is None else found.as_json()

    def uncertain(self) -> list[dict[str, Any]]:
        """Return the last uncertain images, newest first, without the images."""
        return [uncertain_json(one) for one in reversed(self._uncertain)]

    def image(self, name: str) -> tuple[bytes, str] | None:
        """Return an uncertain image, or one where versions differ, and its media type; None for neither."""
        found = self._differing.get(name) or next((one for one in self._uncertain if one.id == name), None)
        return None if found is None or found.image is None else (found.image, found.media_type)

    def picture(self, name: str) -> str | None:
        """Return the address of an image where versions differ, relative to the hub's root; None without."""
        return f"hub/uncertain/{name}.jpg" if name in self._differing else None


def window_json(window: Window) -> dict[str, Any]:
    """Return what is shown of a window."""
    return {
        "id": window.id,
        "start": window.start,
        "end": window.end,
        "images": window.images,
        "certain": folded(window.certain, SHOWN_CLASSES),
        "uncertain": folded(window.uncertain, SHOWN_CLASSES),
        "model": window.model,
        "version": window.version,
        "threshold": window.threshold,
        "latency": dict(window.latency),
    }


def uncertain_json(one: Uncertain) -> dict[str, Any]:
    """Return what is shown of an uncertain image; `image` is its path, or null."""
    return {
        "id": one.id,
        "edge": one.edge,
        "camera": one.camera,
        "class": one.item,
        "probability": one.score,
        "predictions": dict(one.predictions),
        "timestamp": one.timestamp,
        "model": one.model,
        "version": one.version,
        "prep_time": one.prep_seconds,
        "predict_time": one.predict_seconds,
        "image": None if one.image is None else f"/hub/uncertain/{one.id}.jpg",
    }


def _entries(shown: dict[str, Any]) -> int:
    return len(shown["certain"]) + len(shown["uncertain"])


def without_image(one: Uncertain) -> Uncertain:
    """Return the same without its image."""
    return replace(one, image=None, media_type="")
