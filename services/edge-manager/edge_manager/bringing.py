"""The step of the route `model-sync` that takes long: a version is judged, and copied."""

from __future__ import annotations

import asyncio
import time

import structlog

from caravan import retry, tracing
from caravan.errors import CaravanError, Transient
from caravan.route import Route
from edge_manager.assembling import Assembler, Fetched, Place, pieces_held
from edge_manager.copying import copy_files, finish
from edge_manager.edge import Edge, Loading, Model
from edge_manager.inspection import inspect
from edge_manager.looking import TRIES
from edge_manager.model_server import State
from edge_manager.refusing import refuse
from edge_manager.sinks import NoRoom, Sink
from edge_manager.streams import Mismatch
from edge_manager.versions import Complete, Inspection, Offered, Ref, Refused, Waiting, worth_a_look

log = structlog.get_logger()

MODEL_SYNC = Route(
    "model-sync",
    source="S3 `E-ready`, central's",
    mandatory="the version in every sink, verified: S3 `production`, or the directory of `MODEL_DIR`",
    best_effort="MQTT `monitor`: `pushmodel`, `model-rejected`",
)
NO_ROOM_SECONDS = 60.0


def begin(edge: Edge, tasks: asyncio.TaskGroup) -> None:
    """Have what is worth a look brought, each model in a task of its own, unless one is at it."""
    for name, model in edge.models.items():
        may_begin = not model.is_bringing and edge.clock() >= model.next_try
        if edge.central_fault is None and may_begin and _worth_a_look(edge, model):
            model.is_bringing = True
            tasks.create_task(bring(edge, name), name=f"bring {name}")


async def bring(edge: Edge, name: str) -> None:
    """Copy the newest complete version that the edge lacks; refuse, on the way to it, what is wrong.

    What goes wrong otherwise is this model's trouble: it is told, and tried again after a while.
    """
    model = edge.models[name]
    try:
        async with edge.places:
            for offered in _worth_a_look(edge, model):
                if await _is_enough(edge, offered):
                    break
    finally:
        model.is_bringing = False


def _worth_a_look(edge: Edge, model: Model) -> list[Offered]:
    return list(worth_a_look(model.offered, above=model.newest, refused=edge.refused()))


async def _is_enough(edge: Edge, offered: Offered) -> bool:
    """Bring a version, if it is complete; return whether older ones need no look."""
    ref, model = offered.ref, edge.models[offered.ref.model]
    try:
        verdict: Inspection | None = await _judge(edge, offered)
        if isinstance(verdict, Complete):
            with tracing.following(await edge.central.trace(offered)):
                verdict = await _copy(edge, verdict)
        if isinstance(verdict, Refused):
            await _refuse(edge, offered, verdict)
            edge.news.set()
    except Exception as exc:
        failures = model.failures[ref] = model.failures.get(ref, 0) + 1
        model.next_try = edge.clock() + _pause(exc, failures)
        is_ours = not isinstance(exc, CaravanError)
        if is_ours and failures == 1:
            log.exception("version fails", model=ref.model, version=ref.version)
        _wait(model, ref, f"version {ref.version} cannot be brought: {repr(exc) if is_ours else exc}")
        return failures < TRIES or edge.central_fault is not None
    if isinstance(verdict, Waiting):
        _wait(model, ref, verdict.reason)
        return False
    model.waiting.pop(ref, None)
    model.failures.pop(ref, None)
    return verdict is None


def _pause(error: Exception, failures: int) -> float:
    """Return the seconds until a version is tried again; where it does not fit, all that fits is copied."""
    if isinstance(error, NoRoom):
        return min(NO_ROOM_SECONDS, 2.0**failures)
    return retry.pause(failures)


def _wait(model: Model, ref: Ref, reason: str) -> None:
    if model.waiting.get(ref) != reason:
        log.info("version is waited for", model=ref.model, version=ref.version, reason=reason)
    model.waiting[ref] = reason


async def _judge(edge: Edge, offered: Offered) -> Inspection:
    key = (offered.ref, offered.fingerprint)
    verdict = edge.verdicts.get(key)
    if verdict is None:
        verdict = await inspect(
            edge.central,
            offered,
            edge=edge.rules.edge,
            keys=edge.rules.keys,
            require_signature=edge.rules.require_signature,
        )
        if offered.is_settled or not isinstance(verdict, Waiting):
            edge.verdicts[key] = verdict
    return verdict


async def _copy(edge: Edge, version: Complete) -> Refused | None:
    """Copy a version into each sink that lacks it; return what is wrong with it, if anything is."""
    ref, model = version.ref, edge.models[version.ref.model]
    # A refusal of what lay here before would have the new copy swept away.
    await edge.records.reconsider(ref)
    model.arriving = ref.version
    try:
        with MODEL_SYNC.exchange():
            tracing.note(model=ref.model, version=ref.version)
            log.info("version on its way", model=ref.model, version=ref.version, files=len(version.files) + 1)
            loading = Loading(ref.version, version.fingerprint)
            for sink in edge.sinks:
                if not model.held.get(sink.name, {}).get(ref.version):
                    loading.before = await _copy_into(edge, version, sink)
            loading.copied, loading.trace = time.time_ns(), tracing.headers()
            model.loading = loading
            model.fetched = Fetched()
    except Mismatch as exc:
        return Refused("content", str(exc))
    finally:
        model.arriving = 0
        edge.news.set()
    return None


async def _copy_into(edge: Edge, version: Complete, sink: Sink) -> State | None:
    """Copy a version into one sink; return how the server had failed on its number, just before it is there.

    A server that sees a folder grow may give up on it meanwhile.
    """
    ref, model = version.ref, edge.models[version.ref.model]
    try:
        await _check_room(version, sink)
        leftovers = await sink.leftovers(ref)
        source = await _source(edge, version)
        copied = await copy_files(source, version, sink, leftovers)
        before = await _failure(edge, ref)
        copied += await finish(source, version, sink, leftovers)
    except (Mismatch, NoRoom):
        await sink.remove(ref)
        model.fetched = Fetched()
        raise
    model.held.setdefault(sink.name, {})[ref.version] = True
    log.info("version copied", model=ref.model, version=ref.version, sink=sink.name, bytes=copied)
    return before


async def _source(edge: Edge, version: Complete) -> Assembler:
    """Return what makes the version's files of what is here: of its model, newest first, then of others."""
    own, held = version.ref.model, dict[str, Place]()
    model = edge.models[own]
    if model.fetched.fingerprint != version.fingerprint:
        model.fetched = Fetched(version.fingerprint)
    if version.pieces.of:
        whole = [
            (name != own, -number, sink.name, sink, Ref(name, number))
            for name, other in edge.models.items()
            for sink in edge.sinks
            for number, is_whole in other.held.get(sink.name, {}).items()
            if is_whole
        ]
        held = await pieces_held((sink, ref) for *_, sink, ref in sorted(whole, key=lambda one: one[:3]))
    return Assembler(edge.central, version, held, model.fetched)


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


async def _refuse(edge: Edge, offered: Offered, refused: Refused) -> None:
    """Refuse what is offered, unless it serves here and is only wanted in one more sink."""
    if edge.records.has_served(offered.ref):
        waiting = Waiting(f"it serves here, but cannot be copied again: {refused.reason}")
        edge.verdicts[offered.ref, offered.fingerprint] = waiting
    else:
        await refuse(edge, offered.ref, offered.fingerprint, refused)
