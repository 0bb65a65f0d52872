"""One edge: what the route is wired to, and what it knows; a restart may forget all of it without harm."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from caravan.pace import Pace
from edge_manager.assembling import Fetched
from edge_manager.central import Central
from edge_manager.model_server import ModelServer, State
from edge_manager.records import Records
from edge_manager.sinks import Sink
from edge_manager.versions import Inspection, Offered, Ref, worth_a_look

if TYPE_CHECKING:
    from caravan.signatures import PublicKeys

Post = Callable[[Mapping[str, Any]], None]
"""Posts an event for the edge's dashboard; never waits, never fails."""

BROUGHT_AT_ONCE = 3
"""Models of which a version is on its way at one time: one that comes slowly does not hold up the others."""


@dataclass(frozen=True)
class Rules:
    """What the settings ask for."""

    edge: str
    poll_seconds: float = 1.0
    load_seconds: float = 120.0
    keep_versions: int = 3
    require_signature: bool = False
    keys: PublicKeys | None = None


@dataclass
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

    version: int
    fingerprint: str | None = None
    before: State | None = None
    since: float | None = None
    unknown_since: float | None = None
    copied: int = 0
    trace: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Aside:
    """A version that the model server did not load for a reason that may pass.

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


@dataclass
class Model:
    """What is known of one model."""

    held: dict[str, dict[int, bool]] = field(default_factory=dict)
    """By sink and version, whether it is whole."""
    versions: tuple[int, ...] = ()
    """The versions that central names, newest first; as of the last look while the link is down."""
    offered: tuple[Offered, ...] = ()
    """Those above the edge's own that were looked at, newest first."""
    waiting: dict[Ref, str] = field(default_factory=dict)
    """Why an offered version is not complete yet, or cannot be brought."""
    failures: dict[Ref, int] = field(default_factory=dict)
    """How often in a row a version could not be brought."""
    next_try: float = 0.0
    """Clock time before which nothing of it is brought."""
    arriving: int = 0
    """The version that is being copied; 0 for none."""
    is_bringing: bool = False
    fetched: Fetched = field(default_factory=Fetched)
    """What came of the version that is being copied, for the next try."""
    loading: Loading | None = None
    aside: dict[int, Aside] = field(default_factory=dict)
    fault: str | None = None
    """Why the model server does not serve the model at all, as far as that can be told from here."""
    stuck: str | None = None
    """What kept the last round from going through its steps here."""
    unlisted: str | None = None
    """Why it cannot be listed at central, which answers for others."""
    serving: int = 0
    """The newest version that the model server answers with; 0 if none, or if it is away."""

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
    def trouble(self) -> str | None:
        """What is wrong with the model, here or there."""
        broken = max(self.failures, default=None)
        return self.stuck or self.fault or self.unlisted or (self.waiting.get(broken) if broken else None)

    @property
    def is_settled(self) -> bool:
        """Whether its newest version serves, and none is on its way, waited for or tried again."""
        is_well = self.trouble is None and self.serving == self.newest
        return is_well and not (self.is_bringing or self.waiting or self.failures or self.aside)

    def ready(self, refused: Mapping[Ref, str]) -> int:
        """The newest version offered that is not known to be incomplete or refused; 0 for none."""
        good = {o.ref.version for o in worth_a_look(self.offered, above=0, refused=refused)}
        waiting = {ref.version for ref in self.waiting}
        return max({*good - waiting, *(v for v in self.versions if v <= self.newest)}, default=0)


@dataclass
class Edge:
    """The ports of the route, and its memory."""

    central: Central
    sinks: tuple[Sink, ...]
    server: ModelServer
    records: Records
    post: Post
    rules: Rules
    clock: Callable[[], float]

    models: dict[str, Model] = field(default_factory=dict)
    is_open: bool = False
    has_looked: bool = False
    is_seen: bool = False
    """Whether one round has gone through, after a look at central."""
    central_fault: str | None = None
    central_failures: int = 0
    next_look: float = 0.0
    verdicts: dict[tuple[Ref, str], Inspection] = field(default_factory=dict)
    """By version and fingerprint; they stand as long as the fingerprint does."""
    configured: dict[str, frozenset[str]] = field(default_factory=dict)
    """By sink, the models that the model server was told of."""
    announced: set[Ref] = field(default_factory=set)
    server_fault: str | None = None
    news: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when there is something to do before the next round is due."""
    places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(BROUGHT_AT_ONCE))
    pace: Pace = field(init=False)

    def __post_init__(self) -> None:
        """Begin at the pace that the rules ask for."""
        self.pace = Pace(self.rules.poll_seconds, self.clock)

    @property
    def is_settled(self) -> bool:
        """Whether all is as it should be, and nothing on its way."""
        return (
            self.is_seen
            and self.central_fault is None
            and self.server_fault is None
            and all(model.is_settled for model in self.models.values())
        )

    def refused(self) -> dict[Ref, str]:
        """Return the fingerprints of the versions refused, but for those that are due to be tried again."""
        return {
            ref: refusal.fingerprint
            for ref, refusal in self.records.refused.items()
            if not (refusal.may_pass and self._is_due(ref))
        }

    def _is_due(self, ref: Ref) -> bool:
        model = self.models.get(ref.model)
        aside = model.aside.get(ref.version) if model else None
        # It was set aside in an earlier life.
        return aside is None or self.clock() >= aside.again
