"""The hub's HTTP doors to the training reports of all edges, also those of versions that were rejected."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from fastapi import FastAPI, Response
from obstore.store import ObjectStore

from caravan import http, pages, reports
from caravan.contracts import parse_edge
from caravan.errors import Permanent
from caravan.holds import read_hold
from monitor import routes


def install(app: FastAPI, stores: Mapping[str, ObjectStore]) -> None:
    """Give an app `GET /reports/<edge>` and the page of each report.

    Args:
        app: the hub's.
        stores: by edge, the bucket of the versions that are made for it: `E-models`, or that of its group.

    """
    found = {edge: reports.Reports(store) for edge, store in stores.items()}

    @app.get("/reports/{edge}", tags=["reports"])
    async def listed(edge: str) -> Response:
        """List an edge's models, whether a rollback holds, and all versions with verdict and figures."""
        of_edge = found[parse_edge(edge, stores)]
        with routes.REPORTS.exchange():
            answer = await routes.reports(partial(_list_models, of_edge, stores[edge], edge), edge)
        return http.fresh_json(answer)

    @app.get("/reports/{edge}/{model}/{version}", tags=["reports"])
    async def report(edge: str, model: str, version: str) -> Response:
        """Show the training report of a version, or of the `latest`: one HTML page."""
        of_edge = found[parse_edge(edge, stores)]
        with routes.REPORT.exchange():
            found_report = await routes.report(of_edge.read_report, model, version)
        return pages.show(found_report.content)


async def _list_models(of_edge: reports.Reports, store: ObjectStore, edge: str) -> list[dict[str, Any]]:
    models = await of_edge.list_models(partial(_address, edge))
    return [model | {"held": await _held(store, model["model"])} for model in models]


async def _held(store: ObjectStore, model: str) -> str | None:
    """Return since when and why newer versions are held back; None if they are not."""
    try:
        held = await read_hold(store, model)
    except Permanent as exc:
        return str(exc)
    return None if held is None else held.reason


def _address(edge: str, model: str, version: int) -> str:
    """Relative to the hub's root, so that it holds behind a proxy too."""
    return f"reports/{edge}/{model}/{version}"
