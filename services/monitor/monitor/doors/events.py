"""Server-sent events of a feed: a snapshot first, then what changes; who comes back gets what was missed.

A snapshot is made once for all who start within a moment, and sent in pieces, so that a reader costs no more
than a piece. The server lets go of who does not read.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Annotated, Any

from fastapi import FastAPI, Header
from starlette.responses import StreamingResponse

from caravan.contracts import to_json
from caravan.errors import Unavailable
from monitor import metrics
from monitor.hub_feed import Feed

MOST_CLIENTS = 200
FRESH_SECONDS = 1.0
"""Seconds for which one snapshot serves all new readers; later changes follow it."""
BEAT_SECONDS = 15.0
PIECE = 2**16
NO_CACHE = {"Cache-Control": "no-store"}


class Snapshots:
    """All there is, as JSON, with the number of the feed that it stands for.

    Args:
        feed: source of the changes.
        take: returns all there is, an object; it is written in a thread, so nothing in it may change later.

    """

    def __init__(self, feed: Feed, take: Callable[[], Mapping[str, Any]]) -> None:
        self._feed = feed
        self._take = take
        self._making = asyncio.Lock()
        self._number = -1
        self._json = b""
        self._until = 0.0

    async def newest(self) -> bytes:
        """Return it as it is now."""
        async with self._making:
            await self._make()
            return self._json

    async def recent(self) -> tuple[int, bytes]:
        """Return one that is fresh enough to start from."""
        clock = asyncio.get_running_loop().time
        async with self._making:
            if clock() >= self._until or self._feed.after(self._number) is None:
                await self._make()
                self._until = clock() + FRESH_SECONDS
            return self._number, self._json

    async def _make(self) -> None:
        number, parts = self._feed.last, self._take()
        self._json = await asyncio.to_thread(written, parts)
        self._number = number


def written(parts: Mapping[str, Any]) -> bytes:
    """Return an object as JSON, written item by item: between two of them other threads get their turn."""
    return b"{" + b",".join(to_json(name) + b":" + _written(part) for name, part in parts.items()) + b"}"


def _written(part: Any) -> bytes:
    return b"[" + b",".join(map(to_json, part)) + b"]" if isinstance(part, list) else to_json(part)


async def in_pieces(content: bytes) -> AsyncIterator[bytes]:
    """Yield content so that the next piece is made when the last one is on its way."""
    for start in range(0, len(content), PIECE):
        yield content[start : start + PIECE]


def install(app: FastAPI, path: str, feed: Feed, snapshots: Snapshots) -> None:
    """Give an app the door to a feed's events.

    Args:
        app: the service's app.
        path: path of the door.
        feed: source of the changes.
        snapshots: all there is, for who starts.

    """
    gauge = metrics.READERS.labels(path)

    @app.get(path, tags=["events"])
    async def events(last_event_id: Annotated[str | None, Header()] = None) -> StreamingResponse:
        """Tell what changes: `snapshot` first, then the changes by their names."""
        if feed.readers >= MOST_CLIENTS:
            raise Unavailable("too many readers of the events: try again")
        return StreamingResponse(counted(last_event_id), headers=NO_CACHE, media_type="text/event-stream")

    async def counted(last_event_id: str | None) -> AsyncIterator[bytes]:
        feed.readers += 1
        gauge.set(feed.readers)
        try:
            async for piece in _stream(feed, snapshots, last_event_id):
                yield piece
        finally:
            feed.readers -= 1
            gauge.set(feed.readers)


async def _stream(feed: Feed, snapshots: Snapshots, last_event_id: str | None) -> AsyncIterator[bytes]:
    number = feed.number_of(last_event_id)
    while not feed.closed:
        changes = None if number is None else feed.after(number)
        if number is None or changes is None:
            # New here, or too slow to have seen all that happened: it starts over.
            number, snapshot = await snapshots.recent()
            yield b"event: snapshot\ndata: "
            async for piece in in_pieces(snapshot):
                yield piece
            yield b"\nid: %b\n\n" % feed.id_of(number).encode()
        else:
            for change in changes:
                number = change.number
                identity = feed.id_of(number).encode()
                yield b"event: %b\ndata: %b\nid: %b\n\n" % (change.name.encode(), change.data, identity)
        while not await _news(feed, number):
            yield b": still here\n\n"


async def _news(feed: Feed, number: int) -> bool:
    """Wait for a change, or for the moment to show that the connection lives."""
    try:
        async with asyncio.timeout(BEAT_SECONDS):
            await feed.wait(number)
    except TimeoutError:
        return False
    return True
