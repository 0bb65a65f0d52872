"""Server-sent events of a feed: a snapshot first, then what changes; who comes back gets what was missed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header
from fastapi.sse import EventSourceResponse, ServerSentEvent

from caravan.contracts import to_json
from caravan.errors import Unavailable
from monitor import metrics
from monitor.hub_feed import Feed

MOST_CLIENTS = 200


def install(app: FastAPI, path: str, feed: Feed, snapshot: Callable[[], dict[str, Any]]) -> None:
    """Give an app the door to a feed's events.

    Args:
        app: the service's app.
        path: of the door.
        feed: what changes.
        snapshot: returns all there is, for who starts.

    """
    readers: set[object] = set()
    gauge = metrics.READERS.labels(path)

    async def admitted() -> AsyncIterator[None]:
        """Count a reader for as long as its answer lasts."""
        if len(readers) >= MOST_CLIENTS:
            raise Unavailable("too many readers of the events: try again")
        reader = object()
        readers.add(reader)
        gauge.set(len(readers))
        try:
            yield
        finally:
            readers.discard(reader)
            gauge.set(len(readers))

    @app.get(path, tags=["events"], response_class=EventSourceResponse, dependencies=[Depends(admitted)])
    async def events(
        last_event_id: Annotated[str | None, Header()] = None,
    ) -> AsyncIterator[ServerSentEvent]:
        """Tell what changes: `snapshot` first, then the changes by their names."""
        number = feed.number_of(last_event_id)
        while not feed.closed:
            changes = None if number is None else feed.after(number)
            if number is None or changes is None:
                # New here, or too slow to have seen all that happened: it starts over.
                number = feed.last
                yield _event("snapshot", to_json(snapshot()).decode(), feed.id_of(number))
            else:
                for change in changes:
                    number = change.number
                    yield _event(change.name, change.data, feed.id_of(number))
            await feed.wait(number)


def _event(name: str, data: str, event_id: str) -> ServerSentEvent:
    return ServerSentEvent(raw_data=data, event=name, id=event_id)
