"""One edge: its ports, and what is known, which changes by what is observed and by what the rounds do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import structlog

from caravan import retry, strict_json
from caravan.contracts import MODEL_READY, TRUSTED
from caravan.errors import Transient
from caravan.pace import Pace
from caravan.strict_json import NotJson
from edge_manager import metrics
from edge_manager.assembler import Fetched, PiecesOf
from edge_manager.central import Central, CentralAway
from edge_manager.known import Known, Model, Rules
from edge_manager.model_server import ModelServer
from edge_manager.observations import Answered, Holdings, Looked, Observation, Trusted
from edge_manager.records import Records
from edge_manager.sinks import Sink
from edge_manager.versions import BY_A_LOOK, Ref

log = structlog.get_logger()

HINT = f'"{MODEL_READY}"'.encode()
TRUST = f'"{TRUSTED}"'.encode()
TOLD_SECONDS = 120.0
"""Between two looks at central of an edge at rest that is told of versions."""

Post = Callable[[Mapping[str, Any]], None]
"""Posts an event for the edge's dashboard; never waits, never fails."""


@dataclass
class Edge:
    """The ports of the route, and what is known.

    What runs beside the rounds reads what is known, and puts what it observes into the inbox, out of which it
    is taken between two rounds: within one, what is known changes by that round alone.
    """

    central: Central
    sinks: tuple[Sink, ...]
    server: ModelServer
    records: Records
    post: Post
    rules: Rules
    clock: Callable[[], float]

    known: Known = field(default_factory=Known)
    inbox: asyncio.Queue[Observation] = field(default_factory=asyncio.Queue)
    is_open: bool = False
    fetched: dict[str, Fetched] = field(default_factory=dict)
    """By model, what came of the version that is being brought, for the next try; a cache, no more."""
    pieces: PiecesOf = field(default_factory=dict)
    """The pieces of versions that are here, a cache too: each is held against its name before it is used."""
    pace: Pace = field(init=False)
    hint: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when central is to be looked at now."""
    is_told: bool = False
    """Whether a hint has come in this life: then more are expected."""

    def __post_init__(self) -> None:
        """Begin at the pace that the rules ask for."""
        self.pace = Pace(self.rules.poll_seconds, self.clock)

    async def open(self) -> None:
        """Make the sinks ready and recall what was learned, once per process."""
        if not self.is_open:
            for sink in self.sinks:
                await sink.open()
            served, refused, trusted = await self.records.load()
            of_before = frozenset(ref for ref, why in refused.items() if why.cause in BY_A_LOOK)
            self.known = replace(
                self.known, served=served, refused=refused, of_before=of_before, trusted=trusted
            )
            self.is_open = True

    # --- what is heard

    def hear(self, event: bytes) -> None:
        """Take an event of the edge, as JSON: one that tells of a version is a hint to look at central.

        Where versions are compared, the shopper tells which one it trusts.
        """
        if HINT in event:  # a false one costs a look
            self.is_told = True
            self.hint.set()
        if self.rules.compares and TRUST in event:
            trusted = _trusted(event)
            if trusted and self.known.model(trusted.model).told_trusted != trusted.version:
                self.inbox.put_nowait(trusted)

    async def wait_for_hint(self, failures: int) -> None:
        """Wait until central is to be looked at again: for the pause, or at least `POLL_SECONDS` and a hint.

        Args:
            failures: looks in a row to which central did not answer.

        """
        shortest = self.rules.poll_seconds
        longest = self.pace.pause
        if failures:
            longest = max(longest, retry.pause(failures))
        elif self.is_told and self.pace.is_at_rest:
            longest = max(longest, TOLD_SECONDS)
        await asyncio.sleep(shortest)
        with suppress(TimeoutError):
            async with asyncio.timeout(longest - shortest):
                await self.hint.wait()
                self.pace.stir()
        # Not after the look: what is published while that goes on, it may not have seen.
        self.hint.clear()

    # --- what is observed

    async def look(self) -> Looked:
        """Ask central what it offers."""
        known, now = self.known, self.clock()
        refused = known.fingerprints_refused(now)
        # A version that has not served yet may have to be refused, and so is looked at.
        above = {
            name: model.newest - (Ref(name, model.newest) not in known.served)
            for name, model in known.models.items()
        }
        try:
            offers = await self.central.look(
                now, above=above, standing=lambda offered: known.standing(offered, refused)
            )
        except CentralAway as exc:
            return Looked(fault=str(exc))
        return Looked(offers)

    async def list(self) -> Holdings:
        """List what the sinks hold.

        Raises:
            Transient: if one is away.

        """
        return Holdings({sink.name: await sink.held() for sink in self.sinks})

    async def ask(self, model: str) -> Answered:
        """Ask the model server about a model."""
        try:
            states = await self.server.states(model)
        except Transient as exc:
            return Answered(model, self.clock(), None, str(exc))
        return Answered(model, self.clock(), states)

    def learn(self, observation: Observation) -> bool:
        """Add an observation to what is known, and tell of the change; return whether there is one."""
        before, self.known = self.known, observation.added_to(self.known)
        _tell(before, self.known)
        return self.known != before

    def catch_up(self) -> bool:
        """Learn what came in beside the rounds; return whether it is news."""
        is_news = False
        while not self.inbox.empty():
            is_news |= self.learn(self.inbox.get_nowait())
        return is_news

    async def pause(self) -> None:
        """Wait for news, at most for `POLL_SECONDS`, or five times as long where nothing happens for long."""
        if not self.known.is_settled:
            self.pace.stir()
        with suppress(TimeoutError):
            async with asyncio.timeout(self.pace.pause):
                while not self.learn(await self.inbox.get()):
                    pass
            self.pace.stir()


def _trusted(event: bytes) -> Trusted | None:
    """Return which version the shopper says that it trusts; None if the event says something else."""
    try:
        told = strict_json.loads_object(event)
    except NotJson:
        return None
    model, version = told.get("model"), told.get("version")
    # `true` is a number to isinstance.
    if told.get("name") == TRUSTED and isinstance(model, str) and type(version) is int and version > 0:
        return Trusted(model, version)
    return None


def _tell(before: Known, after: Known) -> None:
    """Log what changed, and show it as metrics."""
    if before.central_fault is None and after.central_fault is not None:
        log.warning("central is away; the edge goes on with what it has", error=after.central_fault)
    elif before.central_fault is not None and after.central_fault is None:
        log.info("central answers again")
    if before.server_fault is None and after.server_fault is not None:
        log.warning("the model server is away; it is waited for", error=after.server_fault)
    elif before.server_fault is not None and after.server_fault is None:
        log.info("the model server answers again")
    if after.has_looked:
        metrics.CENTRAL_UP.set(after.central_fault is None)
    known = before.models
    for name, model in [one for one in after.models.items() if one[1] is not known.get(one[0])]:
        _tell_of(name, before.model(name), model)


def _tell_of(name: str, before: Model, after: Model) -> None:
    if before.offer.fault is None and after.offer.fault is not None:
        log.warning("a model cannot be listed; the others go on", model=name, error=after.offer.fault)
    for version, reason in after.waiting.items():
        if before.waiting.get(version) != reason:
            log.info("version is waited for", model=name, version=version, reason=reason)
    if before.serving not in {0, after.serving}:
        metrics.INFO.remove(name, str(before.serving))
    if after.serving not in {0, before.serving}:
        metrics.INFO.labels(name, str(after.serving)).set(1)
    metrics.SERVING.labels(name).set(after.serving)
