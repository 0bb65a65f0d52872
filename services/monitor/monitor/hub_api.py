"""The hub's HTTP doors: JSON, images, and server-sent events; open for reads to pages of any origin."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.middleware.cors import CORSMiddleware

from caravan.contracts import to_json
from caravan.errors import BadInput, Unavailable
from monitor import metrics
from monitor.hub_feed import Feed
from monitor.hub_state import Hub

MOST_CLIENTS = 200
IMAGE_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cache-Control": "private, max-age=3600",
}


def install(app: FastAPI, hub: Hub, feed: Feed) -> None:
    """Give an app the hub's doors."""
    app.add_middleware(CORSMiddleware, allow_origins=["*"], allow_methods=["GET"], allow_headers=["*"])
    _install_state(app, hub)
    _install_events(app, hub, feed)


def _install_state(app: FastAPI, hub: Hub) -> None:
    @app.get("/hub", tags=["hub"])
    async def overview() -> Response:
        """Show edges and cameras, with their totals and last windows."""
        return _json(hub.overview())

    @app.get("/hub/cameras/{edge}/{camera:path}", tags=["hub"])
    async def camera(edge: str, camera: str) -> Response:
        """Show one camera."""
        found = hub.camera(edge, camera)
        if found is None:
            message = f"no camera {camera!r} of edge {edge!r} has been heard of"
            raise BadInput(message, status=404)
        return _json(found)

    @app.get("/hub/uncertain", tags=["hub"])
    async def uncertain() -> Response:
        """List the last uncertain images, newest first."""
        return _json({"uncertain": hub.uncertain()})

    @app.get("/hub/uncertain/{name}.jpg", tags=["hub"])
    async def image(name: str) -> Response:
        """Show an uncertain image: JPEG or PNG."""
        found = hub.image(name)
        if found is None:
            raise BadInput("there is no such image, or no more", status=404)
        content, media_type = found
        return Response(content, media_type=media_type, headers=IMAGE_HEADERS)


def _install_events(app: FastAPI, hub: Hub, feed: Feed) -> None:
    readers: set[object] = set()

    async def admitted() -> AsyncIterator[None]:
        """Count a reader for as long as its answer lasts."""
        if len(readers) >= MOST_CLIENTS:
            raise Unavailable("too many readers of the events: try again")
        reader = object()
        readers.add(reader)
        metrics.HUB_CLIENTS.set(len(readers))
        try:
            yield
        finally:
            readers.discard(reader)
            metrics.HUB_CLIENTS.set(len(readers))

    @app.get(
        "/hub/events", tags=["hub"], response_class=EventSourceResponse, dependencies=[Depends(admitted)]
    )
    async def events(
        last_event_id: Annotated[str | None, Header()] = None,
    ) -> AsyncIterator[ServerSentEvent]:
        """Tell what changes: `snapshot` first, then `window`, `uncertain` and `silent`."""
        number = feed.number_of(last_event_id)
        while not feed.closed:
            changes = None if number is None else feed.after(number)
            if number is None or changes is None:
                # New here, or too slow to have seen all that happened: it starts over.
                number = feed.last
                yield _event("snapshot", to_json(hub.overview()).decode(), feed.id_of(number))
            else:
                for change in changes:
                    number = change.number
                    yield _event(change.name, change.data, feed.id_of(number))
            await feed.wait(number)


def _event(name: str, data: str, event_id: str) -> ServerSentEvent:
    return ServerSentEvent(raw_data=data, event=name, id=event_id)


def _json(content: dict[str, Any]) -> Response:
    return Response(to_json(content), media_type="application/json", headers={"Cache-Control": "no-store"})
