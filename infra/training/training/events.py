"""What a run tells the world: events on Kafka `E`, best effort, and progress at a bounded rate."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol, Self

from caravan import telemetry
from caravan.contracts import TRAINING, Event, events_topic, training_event

QUEUED = 200
FLUSH_SECONDS = 5
SECONDS_BETWEEN = 0.2
SECONDS_OF_EACH = 0.1
"""Between two words on the progress of a stage, for each edge that is told: each is a message to all."""

SHARES: Mapping[str, tuple[float, float]] = {
    "judge": (0.0, 0.02),
    "acquire": (0.02, 0.15),
    "train": (0.15, 0.6),
    "evaluate": (0.6, 0.85),
    "publish": (0.85, 1.0),
}
"""Begin and end of each stage, as shares of the run."""


class Send(Protocol):
    """Sends one message to a topic and waits until the broker has it."""

    def __call__(self, topic: str, value: bytes, /) -> Awaitable[None]:
        """Raise Transient if it has it not."""


class Events:
    """Sends events in order in the background; leaving waits a little for the last ones.

    Each goes to all these edges, or to the one that it names as `edge`, if it is one of them or is `known`;
    those of different edges go side by side. Of the progress of a stage many edges are told less often.

    A broker that is away costs the run nothing: events that do not fit the queue are counted and dropped.
    """

    def __init__(self, send: Send, *edges: str, known: Collection[str] = ()) -> None:
        self._send, self._edges, self._known = send, edges, {*edges, *known}
        # There is room for a word to each edge by itself.
        self._queue: asyncio.Queue[Event] = asyncio.Queue(QUEUED + len(edges))
        self._stage: object = None
        self._next = 0.0

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._drain(), name="events")
        return self

    async def __aexit__(self, *_: object) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_SECONDS):
                await self._queue.join()
        self._task.cancel()
        await asyncio.wait([self._task])

    def emit(self, event: Event) -> None:
        """Queue an event; call it from the event loop."""
        if event.get("name") == TRAINING:
            stage, now = event.get("stage"), time.monotonic()
            if stage == self._stage and now < self._next:
                return
            self._stage, self._next = stage, now + SECONDS_OF_EACH * len(self._edges)
        with telemetry.best_effort("kafka-events"):
            self._queue.put_nowait(event)

    async def _drain(self) -> None:
        while True:
            waiting = [await self._queue.get()]
            while not self._queue.empty():
                waiting.append(self._queue.get_nowait())
            of_each: dict[str, list[bytes]] = {}
            for event in waiting:
                with telemetry.best_effort("kafka-events"):
                    raw = json.dumps(event, ensure_ascii=False).encode()
                    named = event.get("edge")
                    for edge in self._edges if named not in self._known else (named,):
                        of_each.setdefault(edge, []).append(raw)
            await asyncio.gather(*(self._tell(edge, several) for edge, several in of_each.items()))
            for _ in waiting:
                self._queue.task_done()

    async def _tell(self, edge: str, several: Sequence[bytes]) -> None:
        for raw in several:
            with telemetry.best_effort("kafka-events"):
                await self._send(events_topic(edge), raw)


class Reporter:
    """Turns progress within stages into progress of the run, a few times a second at most."""

    def __init__(self, facts: Mapping[str, Any], *sinks: Callable[[Event], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._facts, self._sinks = facts, sinks
        self._stage, self._next = "", 0.0

    def progress(self, stage: str, fraction: float) -> None:
        """Tell how far a stage is, 0..1; from any thread."""
        now = time.monotonic()
        if stage == self._stage and now < self._next and fraction < 1:
            return
        self._stage, self._next = stage, now + SECONDS_BETWEEN
        begin, end = SHARES[stage]
        self._loop.call_soon_threadsafe(self.tell, stage, begin + (end - begin) * fraction)

    def tell(self, stage: str, progress: float, **facts: Any) -> None:
        """Tell of a stage, `progress` in 0..1 of the whole run; call it from the event loop."""
        event = training_event(stage, progress, **self._facts, **facts)
        for sink in self._sinks:
            sink(event)
