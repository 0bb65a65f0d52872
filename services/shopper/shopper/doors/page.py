"""What the app's pages read beside the shopper's own doors: the events, and what waits to be learnt."""

from __future__ import annotations

from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse

from caravan import http
from caravan import sessions as logins
from caravan.sessions import Sessions
from shopper import routes
from shopper.catalogue_file import CatalogueFile
from shopper.doors import web
from shopper.doors.relay import EventRelay
from shopper.ports import CountImages


def install(
    app: FastAPI,
    *,
    page: web.PageSettings,
    sessions: Sessions,
    relay: EventRelay,
    count: CountImages,
    catalogue_file: CatalogueFile,
) -> None:
    """Give an app the pages, the way to sign in, `GET /events` and `GET /ingestion/counts`."""
    web.install(app, page, sessions)
    logins.install(app, sessions)

    @app.get("/events", tags=["events"])
    async def events(request: Request) -> Response:
        """Stream the edge's events (server-sent events), all or those of `?names=training,pushmodel`."""
        sessions.holder(request)
        with routes.EVENT_STREAM.exchange():
            names = ",".join(request.query_params.getlist("names")).split(",")
            wanted = [name for name in map(str.strip, names) if name]
            stream = await routes.event_stream(relay, wanted, request.headers.get("last-event-id", ""))
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(stream, headers=headers, media_type="text/event-stream")

    @app.get("/ingestion/counts", tags=["training"])
    async def counts(request: Request) -> Response:
        """Tell how many training images wait here, by product."""
        sessions.holder(request)
        with routes.INGEST_COUNTS.exchange():
            answer = await routes.ingest_counts(count, catalogue_file)
        return http.fresh_json(answer)
