"""What a round does, as values, and the one place where it is done: here alone the edge is changed.

What brings a version is in `bringing.py`: it takes long, and so runs beside the rounds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

import structlog

from caravan import tracing
from caravan.contracts import model_rejected_event, pushmodel_event
from edge_manager import metrics
from edge_manager.edge import Edge
from edge_manager.known import Backoff, ModelVersions, without
from edge_manager.model_server import State
from edge_manager.sinks import Sink
from edge_manager.versions import Ref, Refused

log = structlog.get_logger()


@dataclass(frozen=True)
class Configure:
    """Tell the model server, by way of a sink, which models there are, and which versions to serve."""

    sink: str
    models: ModelVersions


@dataclass(frozen=True)
class Refuse:
    """Remember that a version is refused as it is, take it away, and tell."""

    ref: Ref
    fingerprint: str
    refused: Refused


@dataclass(frozen=True)
class Hide:
    """Take a version out of the model server's sight, and bring it back after a pause; told the first time.

    A server like TensorFlow Serving gives up on a version after some tries, until it vanished and returned.
    """

    ref: Ref
    fingerprint: str
    reason: str
    tries: int
    pause: float
    before: State | None


@dataclass(frozen=True)
class Remove:
    """Take a version away, whole or not, wherever it is; or out of one sink, where it is old."""

    ref: Ref
    sink: str = ""


@dataclass(frozen=True)
class RememberServed:
    """Remember that a version has answered here."""

    ref: Ref


@dataclass(frozen=True)
class RememberTrusted:
    """Remember that the shopper trusts a version."""

    ref: Ref


@dataclass(frozen=True)
class Announce:
    """Tell that a version serves."""

    ref: Ref


@dataclass(frozen=True)
class ForgetRefusal:
    """Forget that a version was refused."""

    ref: Ref


@dataclass(frozen=True)
class Diagnose:
    """Say what to look at, as the model server does not know a model."""

    model: str


Effect = (
    Configure
    | Refuse
    | Hide
    | Remove
    | RememberServed
    | RememberTrusted
    | Announce
    | ForgetRefusal
    | Diagnose
)


async def carry_out(edge: Edge, effects: Iterable[Effect]) -> None:
    """Carry out effects in order, and note in what is known that each is done.

    Raises:
        CaravanError: if one fails; what is left of it, and the rest, the next round decides anew.

    """
    for effect in effects:
        await _carry_out(edge, effect)


async def _carry_out(edge: Edge, effect: Effect) -> None:
    match effect:
        case Configure(sink, models):
            await _named(edge, sink).configure(models)
            edge.known = replace(edge.known, configured={**edge.known.configured, sink: models})
            told = {name: sorted(versions) or "newest" for name, versions in sorted(models.items())}
            log.info("models configured", sink=sink, models=told)
        case Refuse():
            await _refuse(edge, effect)
        case Hide():
            await _hide(edge, effect)
        case Remove():
            await _remove_from(edge, effect)
        case RememberServed(ref):
            since = await edge.records.serve(ref)
            edge.known = replace(edge.known, served={**edge.known.served, ref: since})
        case RememberTrusted(ref):
            await edge.records.trust(ref)
            edge.known = replace(edge.known, trusted={**edge.known.trusted, ref.model: ref.version})
        case Announce(ref):
            _announce(edge, ref)
        case ForgetRefusal(ref):
            await edge.records.forget_refusal(ref)
            edge.known = replace(edge.known, refused=without(edge.known.refused, ref))
        case Diagnose(model):
            _diagnose(edge, model)


def _named(edge: Edge, sink: str) -> Sink:
    return next(one for one in edge.sinks if one.name == sink)


async def _refuse(edge: Edge, refuse: Refuse) -> None:
    ref, refused = refuse.ref, refuse.refused
    before = edge.known.refused.get(ref)
    await _remember_refusal(edge, ref, refuse.fingerprint, refused)
    await _remove(edge, ref, edge.sinks)
    if before is None or (before.fingerprint, before.reason) != (refuse.fingerprint, refused.reason):
        _tell(edge, ref, refused, "version refused")


async def _remember_refusal(edge: Edge, ref: Ref, fingerprint: str, refused: Refused) -> None:
    refusal = await edge.records.refuse(ref, fingerprint, refused)
    known = replace(
        edge.known, refused={**edge.known.refused, ref: refusal}, of_before=edge.known.of_before - {ref}
    )
    model = known.model(ref.model)
    # A version whose fault may pass need not be looked into again.
    tried = model.tried if refused.may_pass else without(model.tried, ref.version)
    edge.known = known.with_model(ref.model, replace(model, tried=tried))


async def _remove(edge: Edge, ref: Ref, sinks: Collection[Sink]) -> None:
    for sink in sinks:
        await sink.remove(ref)
    await _gone(edge, ref, sinks)


async def _remove_from(edge: Edge, remove: Remove) -> None:
    ref, sink = remove.ref, remove.sink
    await _remove(edge, ref, [_named(edge, sink)] if sink else edge.sinks)
    if sink:
        log.info("old version removed", model=ref.model, version=ref.version, sink=sink)


async def _gone(edge: Edge, ref: Ref, sinks: Collection[Sink]) -> None:
    """Note that a version is no longer in sinks; that it has answered here is forgotten with that."""
    if ref in edge.known.served:
        await edge.records.forget_served(ref)
    edge.known = edge.known.without(ref, [sink.name for sink in sinks])


async def _hide(edge: Edge, hide: Hide) -> None:
    ref = hide.ref
    refused = Refused("load", f"{hide.reason}; it is tried again", may_pass=True)
    await _remember_refusal(edge, ref, hide.fingerprint, refused)
    for sink in edge.sinks:
        await sink.hide(ref)
    await _gone(edge, ref, edge.sinks)
    backoff = Backoff(hide.fingerprint, hide.tries, edge.clock() + hide.pause, hide.before)
    model = edge.known.model(ref.model)
    model = replace(model, backoffs={**model.backoffs, ref.version: backoff})
    edge.known = edge.known.with_model(ref.model, model)
    if hide.tries == 1:
        _tell(edge, ref, refused, "version set aside")
    else:
        facts = {"model": ref.model, "version": ref.version, "reason": hide.reason}
        log.warning("version set aside", **facts, again_in=hide.pause)


def _announce(edge: Edge, ref: Ref) -> None:
    edge.post(pushmodel_event(ref.model, ref.version))
    known, loading = edge.known, edge.known.model(ref.model).loading
    edge.known = replace(known, announced=known.announced | {ref})
    if loading.trace:
        tracing.past("until it serves", loading.copied, loading.trace, model=ref.model, version=ref.version)
    log.info("version serves", model=ref.model, version=ref.version)


def _diagnose(edge: Edge, name: str) -> None:
    places = " or ".join(sink.models_config for sink in edge.sinks)
    fault = (
        f"the model server knows no version of it: is it started with --model_config_file={places} and "
        "--model_config_file_poll_wait_seconds=1, and is MODEL_SERVER_BASE_PATH where it sees the models?"
    )
    edge.known = edge.known.with_model(name, replace(edge.known.model(name), fault=fault))
    log.warning("the model server does not know a model", model=name, fault=fault)


def _tell(edge: Edge, ref: Ref, refused: Refused, what: str) -> None:
    metrics.REFUSALS.labels(refused.cause).inc()
    edge.post(model_rejected_event(ref.model, ref.version, refused.reason))
    log.warning(what, model=ref.model, version=ref.version, cause=refused.cause, reason=refused.reason)
