"""The first step of the route `model-sync`: what central offers."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import NoReturn

import structlog

from caravan import retry
from edge_manager import metrics
from edge_manager.central import CentralAway, Offer, Standing
from edge_manager.edge import Edge, Model
from edge_manager.versions import Offered, Ref, Waiting

log = structlog.get_logger()

TRIES = 3
"""After so many in a row that could not bring a version, the next newest is tried as well."""


async def keep_looking(edge: Edge) -> NoReturn:
    """Look again and again, at central's pace: a link that hangs holds up nothing but this."""
    while True:
        await look(edge)
        await asyncio.sleep(edge.pace.pause)


async def look(edge: Edge) -> None:
    """Learn what central offers; while it is away, less and less often."""
    if edge.clock() < edge.next_look:
        return
    above = {name: _known_to_serve(edge, name, model) for name, model in edge.models.items()}
    try:
        offers = await edge.central.look(edge.clock(), above=above, standing=partial(_standing, edge))
    except CentralAway as exc:
        _is_away(edge, exc)
    else:
        _answers(edge)
        for name in edge.models.keys() | offers.keys():
            _take(edge, name, offers.get(name, Offer()))
        offered = {(one.ref, one.fingerprint) for model in edge.models.values() for one in model.offered}
        edge.verdicts = {key: verdict for key, verdict in edge.verdicts.items() if key in offered}
    edge.has_looked = True


def _known_to_serve(edge: Edge, name: str, model: Model) -> int:
    """Return up to where versions need no look: what has not served yet may have to be refused."""
    has_served = edge.records.has_served(Ref(name, model.newest))
    return model.newest if has_served else model.newest - 1


def _standing(edge: Edge, offered: Offered) -> Standing:
    ref, model = offered.ref, edge.models.get(offered.ref.model, Model())
    if edge.refused().get(ref) == offered.fingerprint:
        return "refused"
    waits = isinstance(edge.verdicts.get((ref, offered.fingerprint)), Waiting)
    return "waiting" if waits or model.failures.get(ref, 0) >= TRIES else "open"


def _take(edge: Edge, name: str, offer: Offer) -> None:
    model = edge.models.setdefault(name, Model())
    if model.offered != offer.offered:
        edge.pace.stir()
        edge.news.set()
    model.versions, model.offered = offer.versions, offer.offered
    there = {one.ref for one in offer.offered}
    model.waiting = {ref: why for ref, why in model.waiting.items() if ref in there}
    model.failures = {ref: count for ref, count in model.failures.items() if ref in there}
    if offer.fault is not None and model.unlisted is None:
        log.warning("a model cannot be listed; the others go on", model=name, error=offer.fault)
    model.unlisted = None if offer.fault is None else f"central cannot list it: {offer.fault}"


def _answers(edge: Edge) -> None:
    if edge.central_fault is not None:
        log.info("central answers again")
        for model in edge.models.values():
            model.failures, model.next_try = {}, 0.0
    edge.central_fault, edge.central_failures = None, 0
    metrics.CENTRAL_UP.set(1)


def _is_away(edge: Edge, exc: CentralAway) -> None:
    if edge.central_fault is None:
        log.warning("central is away; the edge goes on with what it has", error=str(exc))
    edge.central_fault = str(exc)
    edge.central_failures += 1
    edge.next_look = edge.clock() + retry.pause(edge.central_failures)
    metrics.CENTRAL_UP.set(0)
