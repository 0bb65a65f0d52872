"""What is observed, as values, and what is known with it: each is added to what was known before, purely."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from edge_manager.known import Known, Loading, Model, Tried, without
from edge_manager.model_server import State
from edge_manager.sinks import Held
from edge_manager.versions import Offer, Ref, Refused, Waiting


@dataclass(frozen=True)
class Looked:
    """What central offers, by model; or why it is away, and then what it offered stands."""

    offers: Mapping[str, Offer] = field(default_factory=dict)
    fault: str | None = None

    def added_to(self, known: Known) -> Known:
        """Forget tries of what is not offered now; where central was away, those that failed are due."""
        known, is_back = replace(known, has_looked=True), known.central_fault is not None
        if self.fault is not None:
            return replace(known, central_fault=self.fault)
        models = {
            name: _offered(known.model(name), self.offers.get(name, Offer()), is_back=is_back)
            for name in known.models.keys() | self.offers.keys()
        }
        return replace(known, models=models, central_fault=None)


def _offered(model: Model, offer: Offer, *, is_back: bool) -> Model:
    there = {offered.ref.version for offered in offer.offered}
    tried = {version: one for version, one in model.tried.items() if version in there}
    if is_back:
        tried = {version: replace(one, failures=0, again=0.0) for version, one in tried.items()}
    return replace(model, offer=offer, tried=tried)


@dataclass(frozen=True)
class Holdings:
    """What the sinks hold, by their names."""

    sinks: Mapping[str, Held]

    def added_to(self, known: Known) -> Known:
        """Take it as it is; of a version that is being brought, what its copy says counts."""
        names = known.models.keys() | {name for held in self.sinks.values() for name in held}
        return replace(known, models={name: self._held(name, known.model(name)) for name in names})

    def _held(self, name: str, model: Model) -> Model:
        held = {sink: without(listed.get(name, {}), model.bringing) for sink, listed in self.sinks.items()}
        for sink, versions in held.items():
            if model.bringing in model.held.get(sink, {}):
                versions[model.bringing] = model.held[sink][model.bringing]
        return replace(model, held=held)


@dataclass(frozen=True)
class Answered:
    """The states of a model's versions at the model server at a clock time; None and why, if it is away."""

    model: str
    at: float
    states: Mapping[int, State] | None
    fault: str | None = None

    def added_to(self, known: Known) -> Known:
        """Note since when the server has answered without the newest version, or without any."""
        model = known.model(self.model)
        version, states = model.newest, self.states or {}
        loading = model.loading if model.loading.version == version else Loading(version)
        serves = version in states and states[version].is_available
        loading = replace(
            loading,
            since=self._since(loading.since) if states and not serves else None,
            unknown_since=self._since(loading.unknown_since) if self.states == {} else None,
        )
        model = replace(
            model,
            states=self.states,
            loading=loading,
            backoffs=without(model.backoffs, version) if serves else model.backoffs,
            fault=None if states else model.fault,
        )
        return replace(known.with_model(self.model, model), server_fault=self.fault)

    def _since(self, before: float | None) -> float:
        return self.at if before is None else before


@dataclass(frozen=True)
class Trusted:
    """The version of a model that the shopper trusts."""

    model: str
    version: int

    def added_to(self, known: Known) -> Known:
        """Note it, of a model that there is."""
        if self.model not in known.models:
            return known
        return known.with_model(self.model, replace(known.model(self.model), told_trusted=self.version))


@dataclass(frozen=True)
class Reconsidered:
    """A version is no longer refused, as it has changed or is tried again."""

    ref: Ref

    def added_to(self, known: Known) -> Known:
        """Forget its refusal."""
        return replace(known, refused=without(known.refused, self.ref))


@dataclass(frozen=True)
class Brought:
    """What came of a version that was to be brought; where every sink has it, what the server is given."""

    tried: Tried
    loading: Loading | None = None

    def added_to(self, known: Known) -> Known:
        """Note it; what serves here is not refused: it was only wanted in one more sink."""
        tried, ref = self.tried, self.tried.offered.ref
        if isinstance(tried.inspection, Refused) and ref in known.served:
            reason = f"it serves here, but cannot be copied again: {tried.inspection.reason}"
            tried = replace(tried, inspection=Waiting(reason))
        model = known.model(ref.model)
        model = replace(model, bringing=0, tried={**model.tried, ref.version: tried})
        if self.loading is not None:
            held = {sink: {**versions, ref.version: True} for sink, versions in model.held.items()}
            model = replace(model, held=held, loading=self.loading)
        return known.with_model(ref.model, model)


Observation = Looked | Holdings | Answered | Trusted | Reconsidered | Brought
