"""One edge: what the route is wired to, and what it knows; a restart may forget all of it without harm."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from edge_manager.central import Central
from edge_manager.model_server import ModelServer, State
from edge_manager.records import Records
from edge_manager.sinks import Sink
from edge_manager.versions import Offered, Ref, Verdict

Post = Callable[[Mapping[str, Any]], None]
"""Posts an event for the edge's dashboard; never waits, never fails."""


@dataclass(frozen=True)
class Rules:
    """What the settings ask for."""

    edge: str
    poll_seconds: float = 1.0
    load_seconds: float = 120.0
    keep_versions: int = 3
    require_signature: bool = False
    public_key: Ed25519PublicKey | None = None


@dataclass
class Loading:
    """A version that the model server was given.

    Attributes:
        version: which one.
        fingerprint: as what it lay in `E-ready` when this process copied it; None if another did.
        before: how the server had failed on this number before it came; that failure is not this one's.
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


@dataclass
class Model:
    """What is known of one model."""

    held: dict[str, dict[int, bool]] = field(default_factory=dict)
    """By sink and version, whether it is whole."""
    offered: tuple[Offered, ...] = ()
    """What central offers, newest first; as of the last look while the link is down."""
    waiting: dict[Ref, str] = field(default_factory=dict)
    """Why an offered version is not complete yet."""
    loading: Loading | None = None
    fault: str | None = None
    """Why the model server does not serve the model at all, as far as that can be told from here."""
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

    def ready(self, refused: Mapping[Ref, str]) -> int:
        """The newest version offered that is not known to be incomplete or refused; 0 for none."""
        good = (o for o in self.offered if o.ref not in self.waiting and refused.get(o.ref) != o.fingerprint)
        return max((offer.ref.version for offer in good), default=0)


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
    is_seen: bool = False
    """Whether one round has gone through."""
    central_fault: str | None = None
    central_failures: int = 0
    next_look: float = 0.0
    seen: dict[Ref, str] = field(default_factory=dict)
    """Fingerprints at the last look."""
    settled: set[Ref] = field(default_factory=set)
    """Versions whose fingerprint was the same at the last two looks."""
    verdicts: dict[tuple[Ref, str], Verdict] = field(default_factory=dict)
    """By version and fingerprint; they stand as long as the fingerprint does."""
    configured: dict[str, frozenset[str]] = field(default_factory=dict)
    """By sink, the models that the model server was told of."""
    announced: set[Ref] = field(default_factory=set)
    server_fault: str | None = None
