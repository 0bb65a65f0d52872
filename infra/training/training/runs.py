"""Which edge runs when: one run an edge, a few at once, fair between edges, triggers in between coalesced."""

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import structlog
from prometheus_client import Counter, Gauge

from caravan import times, tracing
from caravan.route import Route
from training.children import Ended
from training.markers import Markers

log = structlog.get_logger()

RUNS = Counter("caravan_training_runs_total", "Training runs that have ended", ["edge", "outcome"])
WAITING = Gauge("caravan_training_edges_waiting", "Edges that wait for a training run")

TRAINING_RUN = Route(
    "training-run",
    source="the queue of markers; S3 `E-data`",
    mandatory="the run's end: a version in S3 `E-models`, if passed in S3 `E-ready`; or a refusal for good",
    best_effort="the events on Kafka `E`",
)
CRASHES = 5
FIRST_WAIT = 1.0
LONGEST_WAIT = 60.0
REMEMBERED = 20
NOBODY: Mapping[str, str] = {}


class Runner(Protocol):
    """Makes one run of the pipeline."""

    def __call__(self, edge: str, run: str, heard: Callable[[dict[str, Any]], None], /) -> Awaitable[Ended]:
        """Return how it ended; `heard` gets each `training` event."""


Tell = Callable[[str, str, str], Awaitable[None]]
"""Tells an edge, best effort, that the run of an event is given up, and why."""


@dataclass
class Current:
    """A run that is under way; `run` is the id of the trigger that it answers."""

    edge: str
    run: str
    started: str
    stage: str = "starting"
    progress: float = 0.0

    def hear(self, event: Mapping[str, Any]) -> None:
        """Take note of how far it is."""
        self.stage, self.progress = event["stage"], event["progress"]


@dataclass
class Troubles:
    """How often an edge's run has failed in a row, and when it may be tried again (the loop's clock)."""

    failures: int = 0
    crashes: int = 0
    not_before: float = 0.0


class Runs:
    """The queue of edges; what it has accepted is on disk, and survives any end of the process.

    Args:
        markers: where it is.
        runner: makes the runs.
        tell: see `Tell`.
        wait: seconds before the first that failed is made again.
        behind: for edges whose run does not begin while another's is under way, that other one.

    """

    def __init__(
        self,
        markers: Markers,
        runner: Runner,
        tell: Tell,
        *,
        wait: float = FIRST_WAIT,
        behind: Mapping[str, str] = NOBODY,
    ) -> None:
        self._markers, self._runner, self._tell, self._wait = markers, runner, tell, wait
        self._behind = behind
        self._events = dict(markers.pending())
        self._queue = deque(self._events)
        self._current: dict[str, Current] = {}
        self._troubles: dict[str, Troubles] = {}
        self._last: deque[dict[str, Any]] = deque(maxlen=REMEMBERED)
        self._changed = asyncio.Event()
        # A marker is never written by one task while another removes it.
        self._on_disk = asyncio.Lock()

    async def accept(self, edge: str, event: str) -> None:
        """Take a trigger: on disk when this returns, run as soon as it is the edge's turn."""
        async with self._on_disk:
            await asyncio.to_thread(self._markers.add, edge, event, tracing.headers())
            self._events[edge] = event
        self._troubles.pop(edge, None)
        self._enqueue(edge)

    async def work(self) -> None:
        """Run what waits, for ever; start as many of these as runs may be under way at once."""
        while True:
            edge = await self._next()
            try:
                trace = await asyncio.to_thread(self._markers.trace, edge) if tracing.is_on() else {}
                with tracing.following(trace), TRAINING_RUN.exchange():
                    await self._run(self._current[edge])
            finally:
                del self._current[edge]
                if edge in self._events:
                    self._enqueue(edge)

    def state(self) -> dict[str, Any]:
        """Return what is under way, what waits, and what has ended lately."""
        return {
            "current": [vars(run) for run in self._current.values()],
            "waiting": list(self._queue),
            "last": list(self._last),
        }

    def _enqueue(self, edge: str) -> None:
        # One that runs now is put back when its run ends, if a trigger came meanwhile.
        if edge not in self._queue and edge not in self._current:
            self._queue.append(edge)
        WAITING.set(len(self._queue))
        self._changed.set()

    async def _next(self) -> str:
        """Wait for an edge whose turn it is, the longest waiting first, and take it off the queue."""
        loop = asyncio.get_running_loop()
        while True:
            self._changed.clear()
            due = {
                edge: self._troubles.get(edge, Troubles()).not_before
                for edge in self._queue
                if self._behind.get(edge) not in self._current
            }
            edge = next((edge for edge, at in due.items() if at <= loop.time()), None)
            if edge is not None:
                self._queue.remove(edge)
                WAITING.set(len(self._queue))
                self._current[edge] = Current(edge, self._events[edge], times.now())
                return edge
            with suppress(TimeoutError):
                async with asyncio.timeout_at(min(due.values(), default=None)):
                    await self._changed.wait()

    async def _run(self, current: Current) -> None:
        edge, run = current.edge, current.run
        ended = await self._runner(edge, run, current.hear)
        tracing.note(edge=edge, state=ended.state)
        RUNS.labels(edge, ended.state).inc()
        self._last.append(
            {"edge": edge, "run": run, "started": current.started, "ended": times.now()} | vars(ended)
        )
        log.info("run ended", edge=edge, run=run, state=ended.state, detail=ended.detail)
        if ended.state in {"done", "refused"}:
            await self._forget(current)
            self._troubles.pop(edge, None)
            return
        trouble = self._troubles.setdefault(edge, Troubles())
        trouble.failures += 1
        trouble.crashes += ended.state == "crashed"
        if trouble.crashes >= CRASHES:
            await self._forget(current, given_up=ended.detail)
            await self._tell(edge, run, f"given up after {CRASHES} attempts: {ended.detail}")
            return
        pause = min(self._wait * 2**trouble.failures, LONGEST_WAIT)
        trouble.not_before = asyncio.get_running_loop().time() + random.uniform(pause / 2, pause)  # noqa: S311 - jitter

    async def _forget(self, current: Current, given_up: str | None = None) -> None:
        """Remove the marker that the run answers; one of a later trigger stays."""
        async with self._on_disk:
            if self._events.get(current.edge) != current.run:
                return
            if given_up is None:
                await asyncio.to_thread(self._markers.remove, current.edge)
            else:
                await asyncio.to_thread(self._markers.give_up, current.edge, current.run, given_up)
            del self._events[current.edge]
