"""The step of the route `model-sync` that asks the model server, and acts on its answer."""

from __future__ import annotations

import structlog

from caravan import tracing
from caravan.contracts import pushmodel_event
from caravan.errors import Transient
from edge_manager import metrics
from edge_manager.edge import Edge, Loading, Model
from edge_manager.model_server import State
from edge_manager.refusing import refuse, set_aside, tried
from edge_manager.versions import Ref, Refused, surplus

log = structlog.get_logger()

UNUSED = ("END", "UNKNOWN")
"""States in which the model server has no use for a version's files."""


async def confirm(edge: Edge, name: str) -> None:
    """Ask the model server about the newest version at the edge, and act on its answer."""
    model = edge.models[name]
    version = model.newest
    if model.loading is None or model.loading.version != version:
        model.loading = Loading(version)
    loading = model.loading
    try:
        states = await edge.server.states(name)
    except Transient as exc:
        if edge.server_fault is None:
            log.warning("the model server is away; it is waited for", error=str(exc))
        edge.server_fault = str(exc)
        loading.since, loading.unknown_since = None, None
        _is_serving(name, model, 0)
        return
    if edge.server_fault is not None:
        log.info("the model server answers again")
        edge.server_fault = None
    _is_serving(name, model, max((v for v, state in states.items() if state.is_available), default=0))
    await _judge_aside(edge, name, states)
    if version == 0:
        return
    if not states:
        _is_unknown(edge, name, loading)
        return
    model.fault, loading.unknown_since = None, None
    ref, state = Ref(name, version), states.get(version, State("UNKNOWN"))
    if state.is_available:
        loading.since = None
        await _serves(edge, ref, states)
    elif not edge.records.has_served(ref):
        await _does_not_serve(edge, ref, loading, state)


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


async def _does_not_serve(edge: Edge, ref: Ref, loading: Loading, state: State) -> None:
    """Wait for a version; once the server has failed on it, or takes too long, refuse it or set it aside."""
    has_failed = state.has_failed and state != loading.before
    if loading.since is None:
        loading.since = edge.clock()
    waited = edge.clock() - loading.since
    if not has_failed and waited < edge.rules.load_seconds:
        return
    fingerprint = loading.fingerprint or _fingerprint(edge.models[ref.model], ref)
    if fingerprint is None:
        return
    tries = tried(edge, ref, fingerprint)
    # A slow start may need longer than it was given.
    allowed = edge.rules.load_seconds * 2 ** min(tries, 16)
    if has_failed and state.may_pass(is_first=tries == 0):
        await set_aside(edge, ref, fingerprint, _failure(state), loading)
    elif has_failed:
        await refuse(edge, ref, fingerprint, Refused("load", _failure(state)))
    elif waited >= allowed:
        reason = f"the model server did not load it within {allowed:g} s ({state.name})"
        await set_aside(edge, ref, fingerprint, reason, loading)


async def _judge_aside(edge: Edge, name: str, states: dict[int, State]) -> None:
    """Refuse for good what was set aside, where the server has told since that it can never load it."""
    model = edge.models[name]
    for version, aside in [] if model.is_bringing else list(model.aside.items()):
        ref, state = Ref(name, version), states.get(version, State("UNKNOWN"))
        has_failed = state.has_failed and state != aside.before and ref in edge.records.refused
        if has_failed and not state.may_pass(is_first=True):
            await refuse(edge, ref, aside.fingerprint, Refused("load", _failure(state)))


def _failure(state: State) -> str:
    return f"the model server could not load it: {state.message or state.error_code}"


def _fingerprint(model: Model, ref: Ref) -> str | None:
    """Return a version's fingerprint at central; None if central does not offer it, and it has to stay."""
    return next((offered.fingerprint for offered in model.offered if offered.ref == ref), None)


async def _serves(edge: Edge, ref: Ref, states: dict[int, State]) -> None:
    await edge.records.serves(ref)
    model = edge.models[ref.model]
    if ref not in edge.announced:
        edge.post(pushmodel_event(ref.model, ref.version))
        edge.announced.add(ref)
        loading = model.loading
        if loading is not None and loading.trace:
            tracing.past(
                "until it serves", loading.copied, loading.trace, model=ref.model, version=ref.version
            )
        log.info("version serves", model=ref.model, version=ref.version)
        await edge.records.forget(ref)
    for version in [version for version in model.aside if version <= ref.version]:
        del model.aside[version]
        if version < ref.version:
            for sink in edge.sinks:
                await sink.remove(Ref(ref.model, version))
    in_use = {version for version, state in states.items() if state.name not in UNUSED}
    for sink in edge.sinks:
        held = model.held.get(sink.name, {})
        for version in surplus(held, serving=ref.version, keep=edge.rules.keep_versions, in_use=in_use):
            old = Ref(ref.model, version)
            await sink.remove(old)
            await edge.records.gone(old)
            held.pop(version, None)
            log.info("old version removed", model=old.model, version=old.version, sink=sink.name)
