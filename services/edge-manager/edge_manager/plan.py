"""What is to be done, decided purely from what is known: nothing here waits for anything, or changes it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from edge_manager import effects
from edge_manager.effects import Effect
from edge_manager.known import TRIES, Known, Model, Rules
from edge_manager.model_server import State
from edge_manager.versions import Offered, Ref, Refused, Waiting, surplus, worth_a_look

BROUGHT_AT_ONCE = 3
"""Models of which a version is on its way at one time: one that comes slowly does not hold up the others."""
FIRST_PAUSE = 30.0
LONGEST_PAUSE = 3600.0
"""Seconds until a version is tried again; doubled each time. Long enough for a server to see it vanish."""
REFUSALS_KEPT = 20
"""Refusals of versions that nobody will ask for again, for people to read."""
UNKNOWN = State("UNKNOWN")
UNUSED = ("END", UNKNOWN.name)
"""States in which the model server has no use for a version's files."""


def configure(known: Known, sinks: Iterable[str], rules: Rules) -> Iterator[Effect]:
    """Tell the model server which models there are, where that has changed.

    Only those that have a version: TensorFlow Serving waits for the others, and takes no further change.

    Where the shopper compares versions, the newest one is served beside the one that the shopper trusts,
    however many came after that: by itself a model server would keep the newest two.
    """
    trusted = dict(known.trusted)
    for name, model in known.models.items():
        if model.told_trusted in model.at_edge and model.told_trusted != trusted.get(name):
            trusted[name] = model.told_trusted
            yield effects.RememberTrusted(Ref(name, model.told_trusted))
    for sink in sinks:
        models = {
            name: _served(model, trusted.get(name, 0)) if rules.compares else frozenset[int]()
            for name, model in known.models.items()
            if any(model.held.get(sink, {}).values())
        }
        if known.configured.get(sink) != models:
            yield effects.Configure(sink, models)


def _served(model: Model, trusted: int) -> frozenset[int]:
    return frozenset({trusted, model.newest}) if trusted in model.at_edge else frozenset()


def sweep(known: Known, name: str) -> Iterator[Effect]:
    """Refuse what was found to be wrong, and remove what was refused and is still there.

    While a version of the model is being brought, that is left alone.
    """
    model = known.models[name]
    if model.bringing:
        return
    for version, tried in sorted(model.tried.items()):
        if isinstance(tried.inspection, Refused):
            yield effects.Refuse(Ref(name, version), tried.offered.fingerprint, tried.inspection)
    held = {Ref(name, version) for versions in model.held.values() for version in versions}
    for ref in sorted(held & known.refused.keys()):
        yield effects.Remove(ref)


def confirm(known: Known, name: str, now: float, rules: Rules) -> Iterator[Effect]:
    """Act on what the model server has answered about the newest version at the edge; wait if it is away."""
    model = known.models[name]
    if model.states is None:
        return
    yield from _never_to_load(known, name, model.states)
    ref = Ref(name, model.newest)
    if not ref.version:
        return
    if not model.states:
        # The version is not to blame: that is how the server was started.
        if model.fault is None and _waited(model.loading.unknown_since, now) >= rules.load_seconds:
            yield effects.Diagnose(name)
    elif model.states.get(ref.version, UNKNOWN).is_available:
        yield from _serves(known, ref, rules)
    elif ref not in known.served:
        yield from _does_not_serve(model, ref, now, rules)


def bring(known: Known, now: float) -> list[Offered]:
    """Return the versions to be brought: of each model one at a time, of all models so many at once."""
    if known.central_fault is not None:
        return []
    refused = known.fingerprints_refused(now)
    idle = [model for model in known.models.values() if not model.bringing]
    wanted = [offered for model in idle if (offered := _next(model, refused, now)) is not None]
    return wanted[: BROUGHT_AT_ONCE - (len(known.models) - len(idle))]


def _next(model: Model, refused: Mapping[Ref, str], now: float) -> Offered | None:
    """Return the newest version to be tried; an older one where that is not complete or fails for long."""
    for offered in worth_a_look(model.offer.offered, above=model.newest, refused=refused):
        tried = model.tried.get(offered.ref.version)
        if tried is None or (tried.failures and now >= tried.again):
            return offered
        if tried.failures:
            if tried.failures < TRIES:
                return None
        elif not (tried.is_known(offered) and isinstance(tried.inspection, Waiting | Refused)):
            return offered
    return None


def _never_to_load(known: Known, name: str, states: Mapping[int, State]) -> Iterator[effects.Refuse]:
    """Refuse for good what is hidden, where the server has told since that it can never load it."""
    model = known.models[name]
    for version, backoff in () if model.bringing else model.backoffs.items():
        ref, state = Ref(name, version), states.get(version, UNKNOWN)
        has_failed = state.has_failed and state != backoff.before and ref in known.refused
        if has_failed and not state.may_pass(is_first=True):
            yield effects.Refuse(ref, backoff.fingerprint, Refused("load", _failure(state)))


def _serves(known: Known, ref: Ref, rules: Rules) -> Iterator[Effect]:
    """Remember it, tell it, and clear away what is older."""
    model, states = known.models[ref.model], known.models[ref.model].states or {}
    if ref not in known.served:
        yield effects.RememberServed(ref)
    if ref not in known.announced:
        yield effects.Announce(ref)
    refused = sorted(one for one in known.refused if one.model == ref.model and one < ref)
    yield from map(effects.ForgetRefusal, refused[:-REFUSALS_KEPT])
    yield from (
        effects.Remove(Ref(ref.model, version)) for version in model.backoffs if version < ref.version
    )
    in_use = {version for version, state in states.items() if state.name not in UNUSED}
    if rules.compares:
        in_use.add(known.trusted.get(ref.model, 0))
    for sink, held in model.held.items():
        for version in surplus(held, serving=ref.version, keep=rules.keep_versions, in_use=in_use):
            yield effects.Remove(Ref(ref.model, version), sink)


def _does_not_serve(model: Model, ref: Ref, now: float, rules: Rules) -> Iterator[Effect]:
    """Wait for a version; once the server has failed on it, or takes too long, refuse or hide it."""
    loading, state = model.loading, (model.states or {}).get(ref.version, UNKNOWN)
    offered = (one.fingerprint for one in model.offer.offered if one.ref == ref)
    fingerprint = loading.fingerprint or next(offered, None)
    if fingerprint is None:
        return  # central does not offer it, so it could not be brought back
    backoff = model.backoffs.get(ref.version)
    tries = backoff.tries if backoff is not None and backoff.fingerprint == fingerprint else 0
    pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(tries, 16))
    # A slow start may need longer than it was given.
    allowed = rules.load_seconds * 2 ** min(tries, 16)
    if state.has_failed and state != loading.before:
        reason = _failure(state)
        if not state.may_pass(is_first=tries == 0):
            yield effects.Refuse(ref, fingerprint, Refused("load", reason))
            return
    elif _waited(loading.since, now) >= allowed:
        reason = f"the model server did not load it within {allowed:g} s ({state.name})"
    else:
        return
    yield effects.Hide(ref, fingerprint, reason, tries + 1, pause, loading.before)


def _waited(since: float | None, now: float) -> float:
    return 0.0 if since is None else now - since


def _failure(state: State) -> str:
    return f"the model server could not load it: {state.message or state.error_code}"
