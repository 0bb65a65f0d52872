"""The HTTP door: what an operator's dashboard asks."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from edge_manager.edge import Edge
from edge_manager.status import versions


def install(app: FastAPI, edge: Edge, name: str) -> None:
    """Add `GET /versions` to an app; it is answered from memory, as of the last round."""

    @app.get("/versions", tags=["versions"])
    async def answer() -> dict[str, Any]:
        """Tell for each model what is at the edge, what serves, what central offers and what was refused.

        Where versions are compared, `trusted` is the one that the shopper trusts.
        """
        return versions(edge, name)
