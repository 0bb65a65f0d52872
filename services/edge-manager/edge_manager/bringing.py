"""The step of the route `model-sync` that takes long: a version is judged, and copied."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager

import structlog

from caravan import retry, tracing
from caravan.errors import CaravanError, Transient
from caravan.route import Route
from edge_manager.assembler import Assembler, Fetched, Place, pieces_held
from edge_manager.copying import copy_files, finish
from edge_manager.edge import Edge
from edge_manager.inspection import inspect
from edge_manager.known import Loading, Tried
from edge_manager.model_server import State
from edge_manager.observations import Brought, Reconsidered
from edge_manager.sinks import NoRoom, Sink
from edge_manager.streams import Mismatch
from edge_manager.versions import Complete, Inspection, Offered, Ref, Refused

log = structlog.get_logger()

MODEL_SYNC = Route(
    "model-sync",
    source="S3 `E-ready`, central's; MQTT `monitor`, which tells of versions",
    mandatory="the version in every sink, verified: S3 `production`, or the directory of `MODEL_DIR`",
    best_effort="MQTT `monitor`: `pushmodel`, `model-rejected`",
)
NO_ROOM_SECONDS = 60.0


async def bring(edge: Edge, offered: Offered) -> None:
    """Look into a version; copy it, if it is complete, into each sink that lacks it; tell what came of it."""
    ref, loading = offered.ref, None
    before = edge.known.model(ref.model).tried.get(ref.version)
    inspection = before.inspection if before is not None and before.is_known(offered) else None
    try:
        inspection = inspection or await inspect(edge.central, offered, edge.rules)
        if isinstance(inspection, Complete):
            with tracing.following(await edge.central.trace(offered)):
                loading = await _copy(edge, inspection)
        tried = Tried(offered, inspection)
    except Mismatch as exc:
        tried = Tried(offered, Refused("content", str(exc)))
    except CaravanError as exc:
        tried = _failed(edge, offered, inspection, exc)
    except Exception as exc:
        tried = _failed(edge, offered, inspection, exc)
        if tried.failures == 1:
            log.exception("version fails", model=ref.model, version=ref.version)
    edge.inbox.put_nowait(Brought(tried, loading))


def _failed(edge: Edge, offered: Offered, inspection: Inspection | None, error: Exception) -> Tried:
    """Say what went wrong otherwise: it is this model's trouble, and is tried again after a while."""
    ref = offered.ref
    before = edge.known.model(ref.model).tried.get(ref.version)
    failures = 1 + (before.failures if before is not None else 0)
    told = error if isinstance(error, CaravanError) else repr(error)
    reason = f"version {ref.version} cannot be brought: {told}"
    return Tried(offered, inspection, reason, failures, edge.clock() + _pause(error, failures))


def _pause(error: Exception, failures: int) -> float:
    """Return the seconds until a version is tried again; where it does not fit, all that fits is copied."""
    if isinstance(error, NoRoom):
        return min(NO_ROOM_SECONDS, 2.0**failures)
    return retry.pause(failures)


async def _copy(edge: Edge, version: Complete) -> Loading:
    """Copy a version into each sink that lacks it; return how the model server is given it.

    Raises:
        Mismatch: if its bytes are not what its manifest says.

    """
    ref = version.ref
    if ref in edge.known.refused:
        # A refusal of what lay here before would have the new copy swept away.
        await edge.records.forget_refusal(ref)
        edge.inbox.put_nowait(Reconsidered(ref))
    held = edge.known.model(ref.model).held
    sinks = [sink for sink in edge.sinks if not held.get(sink.name, {}).get(ref.version)]
    with MODEL_SYNC.exchange():
        tracing.note(model=ref.model, version=ref.version)
        log.info("version on its way", model=ref.model, version=ref.version, files=len(version.files) + 1)
        before = await _copy_into(edge, version, sinks)
        edge.fetched.pop(ref.model, None)
        return Loading(
            ref.version, version.fingerprint, before, copied=time.time_ns(), trace=tracing.headers()
        )


async def _copy_into(edge: Edge, version: Complete, sinks: Sequence[Sink]) -> State | None:
    """Copy a version into sinks; return how the server had failed on its number, just before it is there.

    A server that sees a folder grow may give up on it meanwhile; so it is asked once all of it but what makes
    it visible is in every sink, whichever of them it reads.
    """
    ref, leftovers, copied = version.ref, dict[str, Collection[str]](), Counter[str]()
    source = await _source(edge, version)
    for sink in sinks:
        async with _removed_if_wrong(edge, ref, sink):
            await _check_room(version, sink)
            leftovers[sink.name] = await sink.leftovers(ref)
            copied[sink.name] += await copy_files(source, version, sink, leftovers[sink.name])
    before = await _failure(edge, ref)
    for sink in sinks:
        async with _removed_if_wrong(edge, ref, sink):
            copied[sink.name] += await finish(source, version, sink, leftovers[sink.name])
        edge.pieces[sink.name, ref] = version.pieces.of
        log.info(
            "version copied", model=ref.model, version=ref.version, sink=sink.name, bytes=copied[sink.name]
        )
    return before


@asynccontextmanager
async def _removed_if_wrong(edge: Edge, ref: Ref, sink: Sink) -> AsyncIterator[None]:
    """Leave nothing of a version in a sink that it does not fit into, or that was given wrong bytes."""
    try:
        yield
    except (Mismatch, NoRoom):
        await sink.remove(ref)
        edge.fetched.pop(ref.model, None)
        raise


async def _source(edge: Edge, version: Complete) -> Assembler:
    """Return what makes the version's files of what is here: of its model, newest first, then of others."""
    own, held = version.ref.model, dict[str, Place]()
    fetched = edge.fetched.get(own)
    if fetched is None or fetched.fingerprint != version.fingerprint:
        fetched = edge.fetched[own] = Fetched(version.fingerprint)
    if version.pieces.of:
        whole = [
            (name != own, -number, sink.name, sink, Ref(name, number))
            for name, other in edge.known.models.items()
            for sink in edge.sinks
            for number, is_whole in other.held.get(sink.name, {}).items()
            if is_whole
        ]
        in_order = sorted(whole, key=lambda one: one[:3])
        held = await pieces_held(((sink, ref) for *_, sink, ref in in_order), edge.pieces)
    return Assembler(edge.central, version, held, fetched)


async def _check_room(version: Complete, sink: Sink) -> None:
    room = await sink.room(version.ref)
    if room is not None and version.size > room:
        raise NoRoom(f"it has {version.size} bytes, and there is room for {room} in the {sink.name}")


async def _failure(edge: Edge, ref: Ref) -> State | None:
    try:
        state = (await edge.server.states(ref.model)).get(ref.version)
    except Transient:
        return None
    return state if state is not None and state.has_failed else None
