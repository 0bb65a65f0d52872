"""What an edge serves beside the newest version that is ready for it, and why they differ. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monitor.dashboard.messages import ModelStatus, Status

Ready = Mapping[str, int]
"""The newest version of each model in `E-ready`."""


def beside(ready: Ready, status: Status | None, silent: float | None) -> list[dict[str, Any]]:
    """Return a row per model: the ready version, the serving one, since when, and why they differ.

    Args:
        ready: the versions that central offers.
        status: the edge's last status; None if there was none.
        silent: seconds since it should have said something; None if it has.

    """
    models = {} if status is None else status.models
    return [
        _row(name, ready.get(name, 0), models.get(name), status, silent)
        for name in sorted(ready.keys() | models.keys())
    ]


def _row(
    name: str, ready: int, model: ModelStatus | None, status: Status | None, silent: float | None
) -> dict[str, Any]:
    serving = model.serving if model else 0
    state, reason = _difference(ready, model, status, silent)
    return {
        "model": name,
        "ready": ready or None,
        "serving": serving or None,
        "since": (model.since if model else "") or None,
        "state": state,
        "reason": reason,
    }


def _difference(
    ready: int, model: ModelStatus | None, status: Status | None, silent: float | None
) -> tuple[str, str]:
    """Return `same`, `coming` (nothing is wrong), or `differs`; and why."""
    if status is None:
        return "differs", "the edge has not been heard of"
    if silent is not None:
        return "differs", f"the edge was last heard of {ago(silent)} ago: is its link down?"
    if model is not None and model.serving == ready:
        return "same", ""
    if fault := _fault(ready, model, status):
        return "differs", fault
    return "coming", _way(ready, model)


def _fault(ready: int, model: ModelStatus | None, status: Status) -> str:
    """Return what keeps the edge from serving what is ready; empty for nothing."""
    if status.server_fault:
        return f"the model server is away: {status.server_fault}"
    if model is not None and ready in model.refused:
        return f"the edge refused version {ready}: {model.refused[ready].reason}"
    if model is not None and model.fault:
        return model.fault
    if status.central_fault:
        return f"the edge does not reach central's store: {status.central_fault}"
    if model is not None and model.serving > ready:
        return f"central no longer offers version {model.serving}"
    return ""


def _way(ready: int, model: ModelStatus | None) -> str:
    """Return how far a version is with which nothing is wrong."""
    if model is not None and ready in model.waiting:
        return f"version {ready} is not complete yet: {model.waiting[ready]}"
    if model is not None and ready in model.at_edge:
        return f"version {ready} is at the edge; its model server loads it"
    return f"version {ready} is on its way to the edge"


def ago(seconds: float) -> str:
    """Return a span in words, of one unit: it is told anew only when it changes."""
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return "less than a minute"
