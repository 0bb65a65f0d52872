"""The hub's HTTP doors: JSON, images, and server-sent events; open for reads to pages of any origin."""

from __future__ import annotations

from fastapi import FastAPI, Response
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import StreamingResponse

from caravan import http
from caravan.errors import BadInput
from monitor.doors import events
from monitor.doors.events import NO_CACHE, Snapshots, in_pieces
from monitor.hub_feed import Feed
from monitor.hub_state import Hub

IMAGE_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cache-Control": "private, max-age=3600",
}


def install(app: FastAPI, hub: Hub, feed: Feed) -> None:
    """Give an app the hub's doors."""
    app.add_middleware(CORSMiddleware, allow_origins=["*"], allow_methods=["GET"], allow_headers=["*"])
    snapshots = Snapshots(feed, hub.overview)
    _install_state(app, hub, snapshots)
    events.install(app, "/hub/events", feed, snapshots)


def _install_state(app: FastAPI, hub: Hub, snapshots: Snapshots) -> None:
    @app.get("/hub", tags=["hub"])
    async def overview() -> Response:
        """Show edges and cameras, with their totals and last windows."""
        content = await snapshots.newest()
        # Without a length it would come in chunks, which clients of HTTP/1.0 do not read.
        headers = {**NO_CACHE, "Content-Length": str(len(content))}
        return StreamingResponse(in_pieces(content), headers=headers, media_type="application/json")

    @app.get("/hub/cameras/{edge}/{camera:path}", tags=["hub"])
    async def camera(edge: str, camera: str) -> Response:
        """Show one camera."""
        found = hub.camera(edge, camera)
        if found is None:
            message = f"no camera {camera!r} of edge {edge!r} has been heard of"
            raise BadInput(message, status=404)
        return http.fresh_json(found)

    @app.get("/hub/uncertain", tags=["hub"])
    async def uncertain() -> Response:
        """List the last uncertain images, newest first."""
        return http.fresh_json({"uncertain": hub.uncertain()})

    @app.get("/hub/uncertain/{name}.jpg", tags=["hub"])
    async def image(name: str) -> Response:
        """Show an uncertain image: JPEG or PNG."""
        found = hub.image(name)
        if found is None:
            raise BadInput("there is no such image, or no more", status=404)
        content, media_type = found
        return Response(content, media_type=media_type, headers=IMAGE_HEADERS)
