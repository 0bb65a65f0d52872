"""The HTTP door: what an operator's dashboard asks."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from edge_manager.edge import Edge, Model


def install(app: FastAPI, edge: Edge, name: str) -> None:
    """Add `GET /versions` to an app; it is answered from memory, as of the last round."""

    @app.get("/versions", tags=["versions"])
    async def versions() -> dict[str, Any]:
        """Tell for each model what is at the edge, what serves, what central offers and what was refused."""
        return {
            "edge": name,
            "central": edge.central_fault or "ok",
            "model_server": edge.server_fault or "ok",
            "models": {model: _model(edge, model, known) for model, known in sorted(edge.models.items())},
        }


def _model(edge: Edge, name: str, model: Model) -> dict[str, Any]:
    return {
        "serving": model.serving or None,
        "fault": model.fault,
        "at_edge": sorted(model.at_edge),
        "newest_ready": model.ready(edge.records.fingerprints) or None,
        "waiting": [
            {"version": ref.version, "reason": reason} for ref, reason in sorted(model.waiting.items())
        ],
        "refused": [
            {"version": ref.version, "cause": why.cause, "reason": why.reason, "at": why.at}
            for ref, why in sorted(edge.records.refused.items())
            if ref.model == name
        ],
    }
