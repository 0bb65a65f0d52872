"""Refusing a version: for good, or until it is tried again."""

from __future__ import annotations

import structlog

from caravan.contracts import model_rejected_event
from edge_manager import metrics
from edge_manager.edge import Aside, Edge, Loading
from edge_manager.versions import Ref, Refused

log = structlog.get_logger()

FIRST_PAUSE = 30.0
LONGEST_PAUSE = 3600.0
"""Seconds until a version is tried again; doubled each time. Long enough for a server to see it vanish."""


async def refuse(edge: Edge, ref: Ref, fingerprint: str, refused: Refused) -> None:
    """Remember that a version is refused, take it away, and tell."""
    await edge.records.refuse(ref, fingerprint, refused)
    await remove(edge, ref)
    edge.models[ref.model].aside.pop(ref.version, None)
    _tell(edge, ref, refused, "version refused")


async def set_aside(edge: Edge, ref: Ref, fingerprint: str, reason: str, loading: Loading) -> None:
    """Take a version out of the model server's sight, and remember to bring it back; told the first time.

    A server like TensorFlow Serving gives up on a version after some tries, until it vanished and returned.
    """
    model = edge.models[ref.model]
    tries = tried(edge, ref, fingerprint) + 1
    pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(tries - 1, 16))
    refused = Refused("load", f"{reason}; it is tried again", may_pass=True)
    await edge.records.refuse(ref, fingerprint, refused)
    for sink in edge.sinks:
        await sink.hide(ref)
        model.held.get(sink.name, {}).pop(ref.version, None)
    await edge.records.gone(ref)
    model.aside[ref.version] = Aside(fingerprint, tries, edge.clock() + pause, loading.before)
    if tries == 1:
        _tell(edge, ref, refused, "version set aside")
    else:
        log.warning("version set aside", model=ref.model, version=ref.version, reason=reason, again_in=pause)


def tried(edge: Edge, ref: Ref, fingerprint: str) -> int:
    """Return how often a version was set aside as it is."""
    aside = edge.models[ref.model].aside.get(ref.version)
    return aside.tries if aside is not None and aside.fingerprint == fingerprint else 0


async def remove(edge: Edge, ref: Ref) -> None:
    """Take a version away, whole or not, wherever it is."""
    for sink in edge.sinks:
        await sink.remove(ref)
        edge.models[ref.model].held.get(sink.name, {}).pop(ref.version, None)
    await edge.records.gone(ref)


def _tell(edge: Edge, ref: Ref, refused: Refused, what: str) -> None:
    metrics.REFUSALS.labels(refused.cause).inc()
    edge.post(model_rejected_event(ref.model, ref.version, refused.reason))
    log.warning(what, model=ref.model, version=ref.version, cause=refused.cause, reason=refused.reason)
