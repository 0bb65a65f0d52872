"""What is known at an edge, as frozen values; a restart may forget all but the records without harm."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

from edge_manager.model_server import State
from edge_manager.records import Refusal
from edge_manager.versions import Inspection, Offer, Offered, Ref, Standing, Waiting, worth_a_look

if TYPE_CHECKING:
    from caravan.signatures import PublicKeys

K = TypeVar("K")
V = TypeVar("V")

ModelVersions = Mapping[str, frozenset[int]]
"""By model, the versions that are to be served; none where the newest are."""

TRIES = 3
"""After so many in a row that could not bring a version, the next newest is tried as well."""


@dataclass(frozen=True)
class Rules:
    """What the settings ask for."""

    edge: str
    poll_seconds: float = 1.0
    load_seconds: float = 120.0
    keep_versions: int = 3
    compares: bool = False
    """Whether the shopper compares a new version with the one that it trusts; both are to be served then."""
    require_signature: bool = False
    keys: PublicKeys | None = None


@dataclass(frozen=True)
class Tried:
    """What came of a version when it was last to be brought.

    Attributes:
        offered: the version as it was offered then.
        inspection: what it was found to be; None if it could not be looked into.
        error: why it could not be brought; None if it was.
        failures: how often in a row it could not.
        again: clock time before which it is not tried again.

    """

    offered: Offered
    inspection: Inspection | None = None
    error: str | None = None
    failures: int = 0
    again: float = 0.0

    @property
    def reason(self) -> str | None:
        """Why it is not here yet."""
        return self.error or (self.inspection.reason if isinstance(self.inspection, Waiting) else None)

    def is_known(self, offered: Offered) -> bool:
        """Tell whether it would be found to be the same again; what was not at rest may be complete now."""
        is_same = self.inspection is not None and self.offered.fingerprint == offered.fingerprint
        may_differ = isinstance(self.inspection, Waiting) and not self.offered.is_settled
        return is_same and not (may_differ and offered.is_settled)


@dataclass(frozen=True)
class Loading:
    """A version that the model server was given.

    Attributes:
        version: which one.
        fingerprint: its own in `E-ready` when this process copied it; None if another did.
        before: how the server had failed on this number just before it was visible; that is not its failure.
        since: clock time from which the server has answered without having it; None while it is away.
        unknown_since: the same, from which it has answered that it knows no version of the model at all.
        copied: time at which it was there (nanoseconds since 1970), if this process copied it.
        trace: of the copy, to which the wait for the server belongs.

    """

    version: int = 0
    fingerprint: str | None = None
    before: State | None = None
    since: float | None = None
    unknown_since: float | None = None
    copied: int = 0
    trace: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Backoff:
    """A version that is hidden, as the model server did not load it for a reason that may pass.

    Attributes:
        fingerprint: its own in `E-ready` then.
        tries: how often it was tried.
        again: clock time from which it is tried again.
        before: the server's failure on this number that was not its own.

    """

    fingerprint: str
    tries: int
    again: float
    before: State | None = None


@dataclass(frozen=True)
class Model:
    """What is known of one model."""

    held: Mapping[str, Mapping[int, bool]] = field(default_factory=dict)
    """By sink and version, whether it is whole."""
    offer: Offer = field(default_factory=Offer)
    """What central offers of it; as of the last look while the link is down."""
    tried: Mapping[int, Tried] = field(default_factory=dict)
    """By version, of those offered."""
    bringing: int = 0
    """The version that is being brought; 0 for none."""
    states: Mapping[int, State] | None = None
    """The states of its versions at the model server; None while that is away."""
    loading: Loading = field(default_factory=Loading)
    backoffs: Mapping[int, Backoff] = field(default_factory=dict)
    told_trusted: int = 0
    """The version that the shopper was heard to trust; 0 while it was not heard."""
    fault: str | None = None
    """Why the model server does not serve the model at all, as far as that can be told from here."""
    stuck: str | None = None
    """What kept the last round from doing what was to be done."""

    @property
    def at_edge(self) -> set[int]:
        """The versions that are whole in every sink."""
        whole = [{v for v, is_whole in held.items() if is_whole} for held in self.held.values()]
        return set.intersection(*whole) if whole else set()

    @property
    def newest(self) -> int:
        """The newest of them; 0 for none."""
        return max(self.at_edge, default=0)

    @property
    def serving(self) -> int:
        """The newest version that the model server answers with; 0 if none, or if it is away."""
        return max((v for v, state in (self.states or {}).items() if state.is_available), default=0)

    @property
    def waiting(self) -> dict[int, str]:
        """Why an offered version is not complete yet, or cannot be brought."""
        return {version: tried.reason for version, tried in self.tried.items() if tried.reason}

    @property
    def trouble(self) -> str | None:
        """What is wrong with the model, here or there."""
        unlisted = None if self.offer.fault is None else f"central cannot list it: {self.offer.fault}"
        broken = max((version for version, tried in self.tried.items() if tried.failures), default=0)
        return self.stuck or self.fault or self._unloadable or unlisted or self.waiting.get(broken)

    @property
    def _unloadable(self) -> str | None:
        """Say why the newest version here does not serve; one that central does not offer stays so."""
        state = (self.states or {}).get(self.newest)
        if state is None or not state.has_failed or state == self.loading.before:
            return None
        why = state.message or state.error_code
        return f"the model server could not load version {self.newest}, the newest here: {why}"

    @property
    def is_settled(self) -> bool:
        """Whether its newest version serves, and none is on its way, waited for or tried again."""
        is_well = self.trouble is None and self.serving == self.newest
        return is_well and not (self.bringing or self.waiting or self.backoffs)

    def ready(self, refused: Mapping[Ref, str]) -> int:
        """The newest version offered that is not known to be incomplete or refused; 0 for none."""
        good = {o.ref.version for o in worth_a_look(self.offer.offered, above=0, refused=refused)}
        newest = self.newest
        older = {version for version in self.offer.versions if version <= newest}
        return max({*good - self.waiting.keys(), *older}, default=0)


@dataclass(frozen=True)
class Known:
    """What is known of all models, of central and of the model server."""

    models: Mapping[str, Model] = field(default_factory=dict)
    served: Mapping[Ref, datetime] = field(default_factory=dict)
    """Since when versions have answered here; a record keeps it."""
    refused: Mapping[Ref, Refusal] = field(default_factory=dict)
    """The versions refused; a record keeps it."""
    of_before: frozenset[Ref] = frozenset()
    """The refused versions that an earlier life refused by a look, and this one has not looked at."""
    trusted: Mapping[str, int] = field(default_factory=dict)
    """By model, the version that the shopper trusts; a record keeps it."""
    announced: frozenset[Ref] = frozenset()
    configured: Mapping[str, ModelVersions] = field(default_factory=dict)
    """By sink, what the model server was told to serve."""
    central_fault: str | None = None
    server_fault: str | None = None
    has_looked: bool = False
    """Whether a look at central has ended, well or not."""
    is_seen: bool = False
    """Whether one round has gone through after that."""

    @property
    def is_settled(self) -> bool:
        """Whether all is as it should be, and nothing on its way."""
        has_fault = self.central_fault is not None or self.server_fault is not None
        return self.is_seen and not has_fault and all(model.is_settled for model in self.models.values())

    def model(self, name: str) -> Model:
        """Return what is known of a model, which may be nothing."""
        return self.models.get(name) or Model()

    def fingerprints_refused(self, now: float) -> dict[Ref, str]:
        """Return the fingerprints of the versions refused, but for those that are to be looked at again."""
        return {
            ref: refusal.fingerprint
            for ref, refusal in self.refused.items()
            if not (ref in self.of_before or (refusal.may_pass and self._is_due(ref, now)))
        }

    def _is_due(self, ref: Ref, now: float) -> bool:
        backoff = self.model(ref.model).backoffs.get(ref.version)
        return backoff is None or now >= backoff.again  # without one it was hidden in an earlier life

    def standing(self, offered: Offered, refused: Mapping[Ref, str]) -> Standing:
        """Tell what is known of a version as it is listed."""
        if refused.get(offered.ref) == offered.fingerprint:
            return "refused"
        tried = self.model(offered.ref.model).tried.get(offered.ref.version) or Tried(offered)
        is_waiting = isinstance(tried.inspection, Waiting) and tried.is_known(offered)
        return "waiting" if is_waiting or tried.failures >= TRIES else "open"

    # --- the same, but for a change

    def with_model(self, name: str, model: Model) -> Known:
        """Change what is known of a model."""
        return replace(self, models={**self.models, name: model})

    def without(self, ref: Ref, sinks: Collection[str]) -> Known:
        """Note that nothing of a version is in these sinks, not even hidden."""
        model = self.model(ref.model)
        held = {
            sink: without(versions, ref.version) if sink in sinks else versions
            for sink, versions in model.held.items()
        }
        model = replace(model, held=held, backoffs=without(model.backoffs, ref.version))
        return replace(self.with_model(ref.model, model), served=without(self.served, ref))


def without(mapping: Mapping[K, V], key: K) -> dict[K, V]:
    """Return a mapping that lacks a key."""
    return {other: value for other, value in mapping.items() if other != key}
