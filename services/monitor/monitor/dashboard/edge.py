"""What is known of one edge: its uploads, its training, its versions; made of its messages alone.

Two dashboards, one started now and one long ago, show the same: times are those of Kafka's records.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from caravan.evidence import Differing
from caravan.rollout import Rollout, Told
from caravan.times import iso
from monitor.dashboard import versions
from monitor.dashboard.event_log import SAME_SECONDS, EventLog, Line, Tone
from monitor.dashboard.messages import MOST_MODELS, Comparison, Event, Quality, Status

MOST_WAITING = 5
"""Oldest batches shown one by one; the count is of all."""
SILENT_SECONDS = 150.0
"""Seconds after which an edge counts as silent: two of its minutely reports are missing."""
Picture = Callable[[str], str | None]
"""Returns the address of an image where two versions differ, by its id; None where there is no picture."""
ENDED = ("done", "skipped", "failed")
STAGES = {
    "judge": "judging a model",
    "acquire": "reading images",
    "train": "learning",
    "evaluate": "examining",
    "publish": "publishing",
}


@dataclass(slots=True)
class Upload:
    """Images that came in: `files` is known once all of them are stored."""

    images: int = 0
    files: int = 0
    began: float = 0.0
    at: float = 0.0
    line: Line | None = None

    def as_json(self) -> dict[str, Any]:
        """Return what is shown of it."""
        return {
            "state": "done" if self.files else "storing",
            "images": self.images,
            "files": self.files or None,
            "began": iso(self.began),
            "at": iso(self.at),
        }


@dataclass(slots=True)
class Training:
    """A run: `progress` is in 0..1."""

    run: str
    stage: str
    progress: float
    began: float
    at: float
    reason: str = ""
    outcome: str = ""
    version: int = 0

    def as_json(self) -> dict[str, Any]:
        """Return what is shown of it."""
        return {
            "stage": self.stage,
            "doing": STAGES.get(self.stage, self.stage),
            "running": self.stage not in ENDED,
            "progress": round(self.progress, 3),
            "began": iso(self.began),
            "at": iso(self.at),
            "outcome": self.outcome,
            "version": self.version or None,
            "reason": self.reason,
        }


@dataclass(slots=True)
class RejectedVersion:
    """A version, or what should have become one, that went no further at central."""

    model: str
    version: int
    reason: str
    at: float

    def as_json(self) -> dict[str, Any]:
        """Return what is shown of it."""
        return {
            "model": self.model,
            "version": self.version or None,
            "reason": self.reason,
            "at": iso(self.at),
        }


class Edge:
    """One edge; `flow` counts what went along the arrows since it was last taken away."""

    def __init__(self, name: str, group: str = "") -> None:
        self.name, self.group = name, group
        self.event_log = EventLog(name)
        self.flow: Counter[str] = Counter()
        self.ready: versions.Ready = {}
        self.ready_fault = ""
        self.news_of_ready = asyncio.Event()
        """Set with each version that is ready: central's store is worth a look."""
        self.waiting: Sequence[dict[str, Any]] = ()
        """The batches that wait for a person, the oldest first."""
        self.waiting_fault = ""
        self.news_of_waiting = asyncio.Event()
        """Set with each batch in quarantine, and each run's beginning and end: they ask for a look."""
        self._upload: Upload | None = None
        self._training: Training | None = None
        self._rejected: RejectedVersion | None = None
        self._status: Status | None = None
        self._quality: Quality | None = None
        self._heard = 0.0
        self._rollouts: dict[str, Told] = {}
        self._comparisons: dict[str, Comparison] = {}

    # --- taking in --------------------------------------------------------------------------------

    def take(self, event: Event, at: float, name: str) -> None:
        """Take an event in.

        Args:
            event: the decoded event.
            at: when, seconds since 1970.
            name: name of the event's message, the same at each start.

        """
        match event.name:
            case "zipfile":
                self._one_stored(at, name)
            case "pipeline":
                self._all_stored(event, at, name)
            case "model-upload":
                self.flow.update(upload=1, trigger=1)
                self.event_log.add(name, at, "upload", f"model {event.model} was sent")
            case "training":
                self._trains(event, at, name)
            case "model-ready":
                self.flow.update(ready=1)
                self.news_of_ready.set()
                self._rejected = None
                text = f"version {event.version} of {event.model} passed the gate and is ready"
                self.event_log.add(name, at, "ready", text, "good")
            case "model-rejected":
                self.flow.update(rejected=1)
                self._rejected = RejectedVersion(event.model, event.version, event.reason, at)
                what = f"version {event.version} of {event.model}" if event.version else "no new version"
                self.event_log.add(name, at, "rejected", f"{what}: {event.reason}", "bad")
            case "quarantine":
                self.news_of_waiting.set()
                self.event_log.add(name, at, "rejected", f"a batch waits for a person: {event.reason}", "bad")
        self.flow.update(events=1)

    def hear(self, status: Status, at: float, name: str) -> None:
        """Take in what the edge says of itself."""
        self.flow.update(status=1)
        before = {} if self._status is None else self._status.models
        for model, now in status.models.items():
            was = before.get(model)
            if now.serving and now.serving != (was.serving if was else 0):
                self.flow.update(serve=1)
                # The first word of an edge says what has long been so.
                if self._status is not None:
                    text = f"serves version {now.serving} of {model}"
                    self.event_log.add(f"{name}-{model}", at, "serving", text, "good")
            for version in sorted(now.refused.keys() - (was.refused.keys() if was else set())):
                if self._status is not None:
                    text = f"refused version {version} of {model}: {now.refused[version].reason}"
                    self.event_log.add(f"{name}-{model}-{version}", at, "refused", text, "bad")
        self._status, self._heard = status, max(self._heard, at)

    def hear_quality(self, quality: Quality, at: float, name: str) -> None:
        """Take in how good the edge's answers are."""
        before = self._quality
        wrong_before = {one.item for one in before.products if one.confidently_wrong} if before else set()
        for one in quality.products:
            if one.confidently_wrong and one.item not in wrong_before:
                what = f": mostly {one.wrong_for}" if one.wrong_for else ""
                text = f"answers {one.label} with confidence where it is not{what}"
                self.event_log.add(f"{name}-{one.item}", at, "confidently-wrong", text, "bad")
        if quality.drift and not (before and before.drift):
            text = f"answers of version {quality.drift.version} look unlike those before"
            self.event_log.add(f"{name}-drift", at, "drift", text, "bad")
        self._quality = quality

    def hear_comparison(self, comparison: Comparison, at: float, name: str) -> None:
        """Take in what the edge found of a new version beside the one before."""
        before = self._comparisons.get(comparison.model)
        self._comparisons[comparison.model] = comparison
        if len(self._comparisons) > MOST_MODELS:
            del self._comparisons[next(iter(self._comparisons))]
        was = None if before is None else (before.version, before.beside, before.outcome)
        if was != (comparison.version, comparison.beside, comparison.outcome):
            text = f"{comparison.model}: {_compared(comparison)}"
            tones: dict[str, Tone] = {"stop": "bad", "promote": "good"}
            self.event_log.add(f"{name}-canary", at, "canary", text, tones.get(comparison.outcome, ""))

    def hear_rollout(self, told: Told, at: float, name: str, *, logs: bool) -> None:
        """Take in how far a version has come at the edges of the group; if it `logs`, changes are lines."""
        before, now = self._rollouts.get(told.model), told.rollout
        self._rollouts[told.model] = told
        was = None if before is None else (before.rollout.version, before.rollout.ring, before.rollout.state)
        if logs and was != (now.version, now.ring, now.state):
            text = f"version {now.version} of {told.model} at {told.group}: {_how_far(now)}"
            reason = "" if now.state in {"rolling", "done"} else f": {now.why}"
            tone: Tone = "bad" if now.state == "stopped" else "good" if now.state == "done" else ""
            self.event_log.add(f"{name}-rollout", at, "rollout", text + reason, tone)

    def _one_stored(self, at: float, name: str) -> None:
        self.flow.update(upload=1)
        upload = self._upload
        if upload is None or upload.files or at - upload.at > SAME_SECONDS:
            upload = self._upload = Upload(began=at)
            upload.line = self.event_log.add(name, at, "upload", "")
        upload.images += 1
        upload.at = at
        if upload.line is not None:
            self.event_log.change(upload.line, at, _images(upload.images, "stored"))

    def _all_stored(self, event: Event, at: float, name: str) -> None:
        self.flow.update(trigger=1)
        upload = self._upload
        if upload is None or upload.files:
            upload = self._upload = Upload(began=at)
        upload.files, upload.at = event.files, at
        self.event_log.add(name, at, "trigger", f"{_images(event.files, 'came in')}; training is asked for")

    def _trains(self, event: Event, at: float, name: str) -> None:
        self.flow.update(training=1)
        before = self._training
        if before is not None and event.run and before.run == event.run and before.stage in ENDED[:2]:
            # A word that was overtaken by the last one.
            return
        goes_on = before is not None and before.stage not in ENDED
        if not goes_on or event.stage in ENDED:
            # Training is asked for by whoever releases or withdraws a batch.
            self.news_of_waiting.set()
        began = before.began if before is not None and goes_on else at
        self._training = Training(
            event.run, event.stage, event.progress, began, at, event.reason, event.outcome, event.version
        )
        if event.stage == "failed":
            self.event_log.add(name, at, "training", f"training failed: {event.reason}", "bad")
        elif event.stage in ENDED:
            text = "nothing new to learn" if event.stage == "skipped" else "training is done"
            self.event_log.add(name, at, "training", text)
        elif not goes_on:
            self.event_log.add(name, at, "training", "training began")

    # --- showing ----------------------------------------------------------------------------------

    def as_json(self, now: float, picture: Picture = lambda _: None) -> dict[str, Any]:
        """Return what is shown of the edge; it changes with time alone when the edge falls silent."""
        quiet = now - self._heard
        silent = quiet if self._status is not None and quiet > SILENT_SECONDS else None
        status = self._status
        return {
            "edge": self.name,
            "group": self.group or None,
            "rollouts": [
                _rollout(self.name, self._rollouts[model], picture) for model in sorted(self._rollouts)
            ],
            "upload": self._upload.as_json() if self._upload else None,
            "training": self._training.as_json() if self._training else None,
            "rejected": self._rejected.as_json() if self._rejected else None,
            "waiting": {"count": len(self.waiting), "batches": list(self.waiting[:MOST_WAITING])},
            "waiting_fault": self.waiting_fault,
            "models": versions.beside(self.ready, status, silent),
            "ready_fault": self.ready_fault,
            "comparisons": [
                asdict(found) | {"differing": _differing(found.differing, picture)}
                for _, found in sorted(self._comparisons.items())
            ],
            "quality": asdict(self._quality) if self._quality else None,
            "link": {
                "state": "unknown" if status is None else "down" if silent is not None else "up",
                "heard": None if status is None else iso(self._heard) if silent is not None else None,
                "central": status.central_fault if status else "",
                "model_server": status.server_fault if status else "",
            },
        }


def _compared(comparison: Comparison) -> str:
    if comparison.outcome == "wait":
        return f"version {comparison.version} answers a share beside version {comparison.beside}"
    done = "is stopped" if comparison.outcome == "stop" else "answers all"
    return f"version {comparison.version} {done}: {comparison.says}"


def _how_far(rollout: Rollout) -> str:
    return {
        "rolling": f"goes to ring {rollout.ring} of {rollout.count}",
        "held": f"held in ring {rollout.ring} of {rollout.count}",
        "stopped": f"stopped in ring {rollout.ring} of {rollout.count}",
        "done": "is at all edges",
    }[rollout.state]


def _rollout(edge: str, told: Told, picture: Picture) -> dict[str, Any]:
    """Return what is shown of a rollout at an edge; `here` says whether it is offered the version.

    Images of other edges are shown at the first one of the group; each edge shows its own.
    """
    rollout = told.rollout
    others = [each for each in rollout.differing if each.edge != edge] if edge == told.edges[0] else []
    reached = rollout.reaches(told.edges)
    return {
        "model": told.model,
        "version": rollout.version,
        "beside": rollout.before,
        "state": rollout.state,
        "ring": rollout.ring,
        "rings": rollout.count,
        "edges": len(told.edges),
        "reached": len(reached),
        "here": edge in reached,
        "since": rollout.since,
        "why": rollout.why,
        "differing": _differing(others, picture),
    }


def _differing(images: Iterable[Differing], picture: Picture) -> list[dict[str, Any]]:
    return [asdict(each) | {"picture": picture(each.id)} for each in images]


def _images(count: int, what: str) -> str:
    return f"{count:,} {'image' if count == 1 else 'images'} {what}"
