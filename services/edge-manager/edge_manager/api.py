"""The HTTP door: what an operator's dashboard asks."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from caravan import http
from caravan.app import App
from edge_manager.edge import Edge
from edge_manager.status import versions


def install(app: App, edge: Edge, name: str) -> None:
    """Add `GET /versions` to an app; it is answered from memory, as of the last round."""

    @app.get("/versions")
    async def answer(_: Request) -> Response:
        """Tell for each model what is at the edge, what serves, what central offers and what was refused."""
        return http.json(versions(edge, name))
