"""The HTTP door to what is known of this edge's models: their versions, and the report of each."""

from __future__ import annotations

from functools import partial

from fastapi import FastAPI, Request, Response
from obstore.store import ObjectStore

from caravan import http, pages, reports
from caravan.sessions import Sessions
from shopper import routes


def install(app: FastAPI, production: ObjectStore, sessions: Sessions) -> None:
    """Give an app `GET /models` and the page of each report.

    Reports show photos of the shop, so these doors ask for what the detections ask for.
    """
    found = reports.Reports(production)
    list_models = partial(found.list_models, _address)

    @app.get("/models", tags=["models"])
    async def models(request: Request) -> Response:
        """List the models here, and the versions of each with what their manifests say."""
        sessions.holder(request)
        with routes.MODELS.exchange():
            answer = await routes.models(list_models)
        return http.fresh_json(answer)

    @app.get("/models/{model}/{version}/report", tags=["models"])
    async def report(request: Request, model: str, version: str) -> Response:
        """Show the training report of a version, or of the `latest`: one HTML page."""
        sessions.holder(request)
        with routes.REPORT.exchange():
            found_report = await routes.report(found.read_report, model, version)
        return pages.show(found_report.content)


def _address(model: str, version: int) -> str:
    """Relative to the shopper's root, so that it holds behind a proxy too."""
    return f"models/{model}/{version}/report"
