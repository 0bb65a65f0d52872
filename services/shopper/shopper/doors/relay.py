"""Events of the edge on their way to browsers: what MQTT `monitor` carries, as server-sent events."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from contextlib import suppress
from typing import NoReturn

import structlog

from caravan import strict_json
from caravan.contracts import to_json
from caravan.errors import Transient, Unavailable
from caravan.strict_json import NotJson
from shopper.metrics import EVENT_LISTENERS, EVENTS_MISSED

log = structlog.get_logger()

RECENT = 256
"""Most recent events kept for a page that reconnects."""
WAITING = 256
"""Most events that wait for one listener; the oldest give way."""
LISTENERS = 100
MAX_EVENT = 2**16
BEAT_SECONDS = 15.0
HEAR_SECONDS = 2.0
"""Seconds that a page waits for the subscription at the broker."""
LINGER_SECONDS = 600.0
"""Seconds for which the subscription stays after the last page has gone: it may come back."""
RETRY_MS = 2000
LONGEST = 18
"""Most digits of an event's number."""

Stamped = tuple[int, str, bytes]
"""An event's number, name and JSON."""


class EventRelay:
    """Hands each event to every listener; never waits for any of them.

    Args:
        listeners: most listeners at once.
        waiting: events that may wait for each.

    """

    def __init__(self, listeners: int = LISTENERS, waiting: int = WAITING) -> None:
        self._boot = secrets.token_hex(4)
        self._number = 0
        self._recent: deque[Stamped] = deque(maxlen=RECENT)
        self._listeners: set[_Listener] = set()
        self._max_listeners = listeners
        self._waiting = waiting
        self._closed = False
        self._listened = asyncio.Event()
        self._left = asyncio.Event()
        self._hears = asyncio.Event()
        self._hears.set()

    async def follow(
        self,
        hear: Callable[[], Awaitable[None]],
        rest: Callable[[], Awaitable[None]],
        linger: float = LINGER_SECONDS,
    ) -> NoReturn:
        """Have events sent here while there are pages, and `linger` seconds longer; to be run as a task.

        Each costs the broker and us as much as to publish it, and most shops have no page open.
        """
        self._hears.clear()
        while True:
            await self._listened.wait()
            try:
                await hear()
            except Transient as exc:
                log.warning("pages may miss events", error=str(exc))
            self._hears.set()
            while self._listeners:
                await self._left.wait()
                with suppress(TimeoutError):
                    async with asyncio.timeout(linger):
                        await self._listened.wait()
            self._hears.clear()
            await rest()

    def receive(self, payload: bytes) -> None:
        """Take an event from the broker; leave out messages that are no event."""
        if len(payload) > MAX_EVENT:
            return
        try:
            event = strict_json.loads_object(payload)
        except NotJson:
            return
        self._number += 1
        stamped = (self._number, str(event.get("name", "")), to_json(event))
        self._recent.append(stamped)
        for listener in self._listeners:
            listener.put(stamped)

    def listen(self, names: Collection[str] = (), last: str = "") -> AsyncGenerator[bytes]:
        """Return the events from now on as the text of a stream, until closed.

        Args:
            names: names of the wanted events; empty for all.
            last: id of the last event seen, to catch up from.

        Raises:
            Unavailable: if there are too many listeners.

        """
        if self._closed or len(self._listeners) >= self._max_listeners:
            raise Unavailable("too many pages listen to the events already: try again later")
        return self._stream(_Listener(frozenset(names), self._waiting), last)

    def close(self) -> None:
        """End every stream."""
        self._closed = True
        for listener in self._listeners:
            listener.wake.set()

    async def _stream(self, listener: _Listener, last: str) -> AsyncGenerator[bytes]:
        self._listeners.add(listener)
        for stamped in self._since(last):
            listener.put(stamped)
        self._count()
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(HEAR_SECONDS):
                    await self._hears.wait()
            yield f"retry: {RETRY_MS}\n: hello\n\n".encode()
            while not self._closed:
                try:
                    async with asyncio.timeout(BEAT_SECONDS):
                        await listener.wake.wait()
                except TimeoutError:
                    yield b": still here\n\n"
                    continue
                yield b"".join(self._written(stamped) for stamped in listener.take())
        finally:
            self._listeners.discard(listener)
            self._count()

    def _count(self) -> None:
        EVENT_LISTENERS.set(len(self._listeners))
        now, before = (self._listened, self._left) if self._listeners else (self._left, self._listened)
        now.set()
        before.clear()

    def _since(self, last: str) -> list[Stamped]:
        boot, _, number = last.partition("-")
        known = boot == self._boot and number.isascii() and number.isdigit() and len(number) <= LONGEST
        return [stamped for stamped in self._recent if stamped[0] > int(number)] if known else []

    def _written(self, stamped: Stamped) -> bytes:
        number, _, event = stamped
        return b"id: %s-%d\ndata: %s\n\n" % (self._boot.encode(), number, event)


class _Listener:
    """One page, and the events that wait for it."""

    def __init__(self, names: frozenset[str], waiting: int) -> None:
        self.wake = asyncio.Event()
        self._names = names
        self._events: deque[Stamped] = deque(maxlen=waiting)

    def put(self, stamped: Stamped) -> None:
        if self._names and stamped[1] not in self._names:
            return
        if len(self._events) == self._events.maxlen:
            EVENTS_MISSED.inc()
        self._events.append(stamped)
        self.wake.set()

    def take(self) -> list[Stamped]:
        self.wake.clear()
        events = list(self._events)
        self._events.clear()
        return events
