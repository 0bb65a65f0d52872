"""Camel's aggregator: messages of one key that become one, due by count, bytes or age."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, Self, TypeVar

from caravan import telemetry, tracing
from caravan.errors import Transient
from caravan.retry import retried

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

LINKS = 20
"""Most traces that a gathered exchange links to; it continues the last one."""
_NO_TRACE: Mapping[str, str] = {}


@dataclass(slots=True)
class _Entry(Generic[T]):
    """One message that waits; `done` ends when what it became a part of has ended."""

    item: T
    size: int
    at: float
    trace: Mapping[str, str]
    done: asyncio.Future[None]

    def end(self, error: Exception | None = None) -> None:
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)


@dataclass(slots=True)
class _Lane(Generic[T]):
    """What waits of one key, in order."""

    waiting: deque[_Entry[T]] = field(default_factory=deque)
    size: int = 0
    due: asyncio.Event = field(default_factory=asyncio.Event)


class Aggregator(Generic[K, T]):
    """Gathers by key and hands over, for one key one aggregate after the other, for several side by side.

    An aggregate that may work later is tried again, then fails for all of its messages, and for those that
    wait behind it; one that fails for good is handed over again message by message, so that none spoils
    another. A context manager: what is on its way at the end is cancelled, and its messages are not done.

    Args:
        route: id of the route that an aggregate belongs to.
        sink: the dependency of `hand_over`, for counting retries.
        hand_over: takes a key and what was gathered, in the order of its coming.
        within: seconds for which an aggregate is tried that may work later.
        count: messages of an aggregate.
        size: bytes of an aggregate; also, of all that waits, when everything is due.
        age: seconds from its first message to the time when it is due.
        coalesces: whether the last message stands for those before, which are done once it has come. It joins
            an aggregate that is tried again, too.
        patience: seconds after which an aggregate on its way counts as stuck. Of its key, no more wait than
            fit into the next one: the others fail for now. None is endless.
        begins_trace: see `telemetry.exchange`.

    """

    def __init__(
        self,
        route: str,
        sink: str,
        hand_over: Callable[[K, Sequence[T]], Awaitable[object]],
        *,
        within: float,
        age: float,
        count: int = LINKS,
        size: int | None = None,
        coalesces: bool = False,
        patience: float | None = None,
        begins_trace: bool = True,
    ) -> None:
        self._route = route
        self._sink = sink
        self._hand_over = hand_over
        self._within = within
        self._count = count
        self._size = size
        self._age = age
        self._coalesces = coalesces
        self._patience = patience
        self._begins_trace = begins_trace
        self._lanes: dict[K, _Lane[T]] = {}
        self._stuck: set[K] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def keys(self) -> int:
        """How many keys have something that waits or is on its way."""
        return len(self._lanes)

    @property
    def waiting(self) -> int:
        """How many messages wait for their aggregate."""
        return sum(len(lane.waiting) for lane in self._lanes.values())

    async def add(self, key: K, item: T, *, size: int = 0, trace: Mapping[str, str] = _NO_TRACE) -> None:
        """Return once the aggregate that an item became a part of was handed over.

        It takes its place before it first waits: who calls in order is handed over in order.

        Raises:
            Transient: if the aggregate failed for now, or its key is stuck and has no room.
            Exception: whatever `hand_over` raised for this item alone.

        """
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = _Lane()
            task = asyncio.create_task(self._serve(key, lane), name=f"{self._route}-{key}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif key in self._stuck and self._is_full(lane):
            raise _no_room(key)
        loop = asyncio.get_running_loop()
        entry = _Entry(item, size, loop.time(), trace, loop.create_future())
        self._join(lane, entry)
        if self._is_full(lane):
            lane.due.set()
        elif self._size is not None and sum(lane.size for lane in self._lanes.values()) >= self._size:
            for each in self._lanes.values():
                each.due.set()
        await entry.done

    def _join(self, lane: _Lane[T], entry: _Entry[T]) -> None:
        if self._coalesces:
            _stand_in(lane.waiting, entry)
        else:
            lane.waiting.append(entry)
            lane.size += entry.size

    def _is_full(self, lane: _Lane[T], beyond: int = 0) -> bool:
        if self._coalesces:
            return False
        return len(lane.waiting) >= self._count + beyond or (
            self._size is not None and lane.size >= self._size + beyond
        )

    # --- one key ----------------------------------------------------------------------------------

    async def _serve(self, key: K, lane: _Lane[T]) -> None:
        loop = asyncio.get_running_loop()
        try:
            while lane.waiting:
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(lane.waiting[0].at + self._age):
                        await lane.due.wait()
                entries = self._take(lane)
                watch = None
                if self._patience is not None:
                    watch = loop.call_later(self._patience, self._is_stuck, key, lane)
                try:
                    await retried(
                        partial(self._attempt, key, lane, entries), to=self._sink, within=self._within
                    )
                except Transient as exc:
                    for entry in (*entries, *lane.waiting):
                        entry.end(exc)
                    lane.waiting.clear()
                    lane.size = 0
                    if self._patience is not None:
                        self._stuck.add(key)
                else:
                    self._stuck.discard(key)
                finally:
                    if watch is not None:
                        watch.cancel()
        finally:
            del self._lanes[key]

    async def _attempt(self, key: K, lane: _Lane[T], entries: deque[_Entry[T]]) -> None:
        if self._coalesces:
            while lane.waiting:
                _stand_in(entries, lane.waiting.popleft())
        await self._deliver(key, entries)

    def _take(self, lane: _Lane[T]) -> deque[_Entry[T]]:
        """Take the next aggregate out of what waits."""
        entries: deque[_Entry[T]] = deque()
        size = 0
        while lane.waiting and (self._coalesces or len(entries) < self._count):
            if entries and self._size is not None and size + lane.waiting[0].size > self._size:
                break
            entry = lane.waiting.popleft()
            size += entry.size
            entries.append(entry)
        lane.size -= size
        lane.due.clear()
        if self._is_full(lane):
            lane.due.set()
        return entries

    def _is_stuck(self, key: K, lane: _Lane[T]) -> None:
        self._stuck.add(key)
        while self._is_full(lane, beyond=1):
            entry = lane.waiting.pop()
            lane.size -= entry.size
            entry.end(_no_room(key))

    async def _deliver(self, key: K, entries: Collection[_Entry[T]]) -> None:
        try:
            await self._exchange(key, entries)
        except Transient:
            raise
        except Exception as exc:  # noqa: BLE001 - it goes to whom it concerns
            if len(entries) == 1 or self._coalesces:
                for entry in entries:
                    entry.end(exc)
                return
            for entry in entries:
                if not entry.done.done():  # in an earlier try
                    await self._deliver(key, [entry])
        else:
            for entry in entries:
                entry.end()

    async def _exchange(self, key: K, entries: Collection[_Entry[T]]) -> None:
        *earlier, last = entries
        with (
            tracing.following(last.trace),
            telemetry.exchange(self._route, begins_trace=self._begins_trace),
        ):
            for entry in earlier[-LINKS:]:
                tracing.link(entry.trace)
            await self._hand_over(key, [entry.item for entry in entries])


def _stand_in(entries: deque[_Entry[T]], last: _Entry[T]) -> None:
    """Let the last entry stand for the others; of them a few are kept for their traces."""
    for earlier in entries:
        earlier.end()
    if len(entries) > LINKS:
        entries.popleft()
    entries.append(last)


def _no_room(key: object) -> Transient:
    return Transient(f"{key} is stuck, and has no more room to wait in")
