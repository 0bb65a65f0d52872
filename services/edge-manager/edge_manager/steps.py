"""The steps of the route `model-sync`, each of which may be repeated at any time."""

from __future__ import annotations

import time

import structlog

from caravan import retry, tracing
from caravan.contracts import model_rejected_event, pushmodel_event
from caravan.errors import Transient
from caravan.telemetry import exchange
from edge_manager import metrics
from edge_manager.central import CentralAway
from edge_manager.copy import copy_version
from edge_manager.edge import Edge, Loading, Model
from edge_manager.inspection import inspect
from edge_manager.model_server import State
from edge_manager.streams import Mismatch
from edge_manager.versions import Complete, Offered, Ref, Refused, Verdict, Waiting, surplus, worth_a_look

log = structlog.get_logger()

ROUTE = "model-sync"
UNUSED = ("END", "UNKNOWN")
"""States in which the model server has no use for a version's files."""


async def open_edge(edge: Edge) -> None:
    """Make the sinks ready and recall what was learned, once per process."""
    if not edge.is_open:
        for sink in edge.sinks:
            await sink.open()
        await edge.records.load()
        edge.is_open = True


# --- look and see -------------------------------------------------------------------------------


async def look(edge: Edge) -> None:
    """List what central offers; while it is away, less and less often."""
    if edge.clock() < edge.next_look:
        return
    try:
        offers = await edge.central.offers()
    except CentralAway as exc:
        _central_is_away(edge, exc)
        return
    if edge.central_fault is not None:
        log.info("central answers again")
    edge.central_fault, edge.central_failures = None, 0
    metrics.CENTRAL_UP.set(1)
    for name in edge.models.keys() | offers.keys():
        model = edge.models.setdefault(name, Model())
        model.offered = offers.get(name, ())
        there = {offer.ref for offer in model.offered}
        model.waiting = {ref: why for ref, why in model.waiting.items() if ref in there}
    now = {offer.ref: offer.fingerprint for versions in offers.values() for offer in versions}
    edge.settled = {ref for ref, fingerprint in now.items() if edge.seen.get(ref) == fingerprint}
    edge.seen = now
    edge.verdicts = {key: verdict for key, verdict in edge.verdicts.items() if now.get(key[0]) == key[1]}


def _central_is_away(edge: Edge, exc: CentralAway) -> None:
    if edge.central_fault is None:
        log.warning("central is away; the edge goes on with what it has", error=str(exc))
    edge.central_fault = str(exc)
    edge.central_failures += 1
    edge.next_look = edge.clock() + retry.pause(edge.central_failures)
    metrics.CENTRAL_UP.set(0)


async def see(edge: Edge) -> None:
    """List what the sinks hold."""
    holdings = {sink.name: await sink.held() for sink in edge.sinks}
    for name in edge.models.keys() | {name for held in holdings.values() for name in held}:
        model = edge.models.setdefault(name, Model())
        model.held = {sink: dict(held.get(name, {})) for sink, held in holdings.items()}


# --- sweep --------------------------------------------------------------------------------------


async def sweep(edge: Edge, name: str) -> None:
    """Remove versions that were refused but are still in a sink."""
    held = {Ref(name, v) for versions in edge.models[name].held.values() for v in versions}
    for ref in sorted(held & edge.records.refused.keys()):
        await _remove(edge, ref)


async def _remove(edge: Edge, ref: Ref) -> None:
    for sink in edge.sinks:
        await sink.remove(ref)
        edge.models[ref.model].held.get(sink.name, {}).pop(ref.version, None)
    await edge.records.gone(ref)


# --- bring --------------------------------------------------------------------------------------


async def bring(edge: Edge, name: str) -> None:
    """Copy the newest complete version that the edge lacks; refuse, on the way to it, what is wrong."""
    model = edge.models[name]
    if edge.central_fault is not None:
        return
    try:
        for offered in worth_a_look(model.offered, above=model.newest, refused=edge.records.fingerprints):
            verdict: Verdict | None = await _judge(edge, offered)
            if isinstance(verdict, Complete):
                with tracing.following(await edge.central.trace(offered)):
                    verdict = await _copy(edge, verdict)
            if verdict is None:
                break
            if isinstance(verdict, Refused):
                await _refuse_offer(edge, offered, verdict)
    except CentralAway as exc:
        _central_is_away(edge, exc)
    metrics.READY.labels(name).set(model.ready(edge.records.fingerprints))


async def _refuse_offer(edge: Edge, offered: Offered, refused: Refused) -> None:
    """Refuse what is offered, unless it serves here and is only wanted in one more sink."""
    if edge.records.has_served(offered.ref):
        waiting = Waiting(f"it serves here, but cannot be copied again: {refused.reason}")
        edge.verdicts[offered.ref, offered.fingerprint] = waiting
    else:
        await _refuse(edge, offered.ref, offered.fingerprint, refused)


async def _judge(edge: Edge, offered: Offered) -> Verdict:
    ref, model = offered.ref, edge.models[offered.ref.model]
    verdict = edge.verdicts.get((ref, offered.fingerprint))
    if verdict is None:
        settled = ref in edge.settled
        verdict = await inspect(
            edge.central,
            offered,
            settled=settled,
            edge=edge.rules.edge,
            public_key=edge.rules.public_key,
            require_signature=edge.rules.require_signature,
        )
        if settled or not isinstance(verdict, Waiting):
            edge.verdicts[ref, offered.fingerprint] = verdict
    if isinstance(verdict, Waiting):
        if model.waiting.get(ref) != verdict.reason:
            log.info("version not complete", model=ref.model, version=ref.version, reason=verdict.reason)
        model.waiting[ref] = verdict.reason
    else:
        model.waiting.pop(ref, None)
    return verdict


async def _copy(edge: Edge, version: Complete) -> Refused | None:
    """Copy a version into each sink that lacks it; return what is wrong with it, if anything is."""
    ref, model = version.ref, edge.models[version.ref.model]
    # A refusal of what lay here before would have the new copy swept away.
    await edge.records.reconsider(ref)
    model.loading = Loading(ref.version, version.fingerprint, await _failure_before(edge, ref))
    with exchange(ROUTE):
        tracing.note(model=ref.model, version=ref.version)
        log.info("version on its way", model=ref.model, version=ref.version, files=len(version.files) + 1)
        for sink in edge.sinks:
            if model.held[sink.name].get(ref.version):
                continue
            try:
                copied = await copy_version(edge.central, version, sink)
            except Mismatch as exc:
                await sink.remove(ref)
                return Refused("content", str(exc))
            model.held[sink.name][ref.version] = True
            log.info("version copied", model=ref.model, version=ref.version, sink=sink.name, bytes=copied)
        model.loading.copied, model.loading.trace = time.time_ns(), tracing.headers()
    return None


async def _failure_before(edge: Edge, ref: Ref) -> State | None:
    try:
        state = (await edge.server.states(ref.model)).get(ref.version)
    except Transient:
        return None
    return state if state is not None and state.has_failed else None


# --- configure ----------------------------------------------------------------------------------


async def configure(edge: Edge) -> None:
    """Tell the model server which models there are, where that has changed.

    Only those that have a version: TensorFlow Serving waits for the others, and takes no further change.
    """
    for sink in edge.sinks:
        models = frozenset(
            n for n, model in edge.models.items() if any(model.held.get(sink.name, {}).values())
        )
        if edge.configured.get(sink.name) != models:
            await sink.configure(models)
            edge.configured[sink.name] = models
            log.info("models configured", sink=sink.name, models=sorted(models))


# --- confirm ------------------------------------------------------------------------------------


async def confirm(edge: Edge, name: str) -> None:
    """Ask the model server about the newest version at the edge, and act on its answer."""
    model = edge.models[name]
    version = model.newest
    if model.loading is None or model.loading.version != version:
        model.loading = Loading(version)
    try:
        states = await edge.server.states(name)
    except Transient as exc:
        if edge.server_fault is None:
            log.warning("the model server is away; it is waited for", error=str(exc))
        edge.server_fault = str(exc)
        model.loading.since, model.loading.unknown_since = None, None
        _is_serving(name, model, 0)
        return
    if edge.server_fault is not None:
        log.info("the model server answers again")
        edge.server_fault = None
    _is_serving(name, model, max((v for v, state in states.items() if state.is_available), default=0))
    if version == 0:
        return
    if not states:
        _is_unknown(edge, name, model.loading)
        return
    model.fault, model.loading.unknown_since = None, None
    ref, state = Ref(name, version), states.get(version, State("UNKNOWN"))
    if state.is_available:
        model.loading.since = None
        await _serves(edge, ref, states)
    elif not edge.records.has_served(ref):
        fault, fingerprint = _load_fault(edge, model.loading, state), _fingerprint(model, ref)
        if fault is not None and fingerprint is not None:
            await _refuse(edge, ref, fingerprint, Refused("load", fault))


def _is_serving(name: str, model: Model, version: int) -> None:
    """Note which version serves, 0 for none."""
    if version != model.serving:
        if model.serving:
            metrics.INFO.remove(name, str(model.serving))
        if version:
            metrics.INFO.labels(name, str(version)).set(1)
    model.serving = version
    metrics.SERVING.labels(name).set(version)


def _is_unknown(edge: Edge, name: str, loading: Loading) -> None:
    """Wait for the model server to know a model, and say what to look at: the version is not to blame."""
    loading.since = None
    if loading.unknown_since is None:
        loading.unknown_since = edge.clock()
    model = edge.models[name]
    if model.fault is None and edge.clock() - loading.unknown_since >= edge.rules.load_seconds:
        places = " or ".join(sink.models_config for sink in edge.sinks)
        model.fault = (
            f"the model server knows no version of it: is it started with --model_config_file={places} and "
            "--model_config_file_poll_wait_seconds=1, and is MODEL_SERVER_BASE_PATH where it sees the models?"
        )
        log.warning("the model server does not know a model", model=name, fault=model.fault)


def _load_fault(edge: Edge, loading: Loading, state: State) -> str | None:
    """Tell why the server will not serve a version, or None while it still may."""
    if state.has_failed and state != loading.before:
        return f"the model server could not load it: {state.message or state.error_code}"
    if loading.since is None:
        loading.since = edge.clock()
    if edge.clock() - loading.since >= edge.rules.load_seconds:
        return f"the model server did not load it within {edge.rules.load_seconds:g} s ({state.name})"
    return None


def _fingerprint(model: Model, ref: Ref) -> str | None:
    """Return as what a version lies in `E-ready`; None if it does not, and must not be removed here."""
    if model.loading is not None and model.loading.fingerprint is not None:
        return model.loading.fingerprint
    return next((offer.fingerprint for offer in model.offered if offer.ref == ref), None)


async def _serves(edge: Edge, ref: Ref, states: dict[int, State]) -> None:
    await edge.records.serves(ref)
    if ref not in edge.announced:
        edge.post(pushmodel_event(ref.model, ref.version))
        edge.announced.add(ref)
        loading = edge.models[ref.model].loading
        if loading is not None and loading.trace:
            tracing.past(
                "until it serves", loading.copied, loading.trace, model=ref.model, version=ref.version
            )
        log.info("version serves", model=ref.model, version=ref.version)
    in_use = {version for version, state in states.items() if state.name not in UNUSED}
    model = edge.models[ref.model]
    for sink in edge.sinks:
        held = model.held[sink.name]
        for version in surplus(held, serving=ref.version, keep=edge.rules.keep_versions, in_use=in_use):
            old = Ref(ref.model, version)
            await sink.remove(old)
            await edge.records.gone(old)
            del held[version]
            log.info("old version removed", model=old.model, version=old.version, sink=sink.name)


async def _refuse(edge: Edge, ref: Ref, fingerprint: str, refused: Refused) -> None:
    """Remember that a version is refused, take it away, and tell."""
    await edge.records.refuse(ref, fingerprint, refused)
    await _remove(edge, ref)
    metrics.REFUSALS.labels(refused.cause).inc()
    edge.post(model_rejected_event(ref.model, ref.version, refused.reason))
    log.warning(
        "version refused", model=ref.model, version=ref.version, cause=refused.cause, reason=refused.reason
    )
