"""The rollout of a group's version to its edges, ring by ring, as it is kept; `training` decides on it. Pure.

A ring is the first so many edges of a group, in the order in which `EDGE_GROUPS` names them; the next one has
these and more. What an edge has is told by its `E-ready`, never by this file.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from caravan import times
from caravan.contracts import to_json
from caravan.errors import Permanent
from caravan.evidence import Differing
from caravan.names import LONGEST_REASON, cut
from caravan.strict_json import NotJson, faults_of

SCHEMA = 1

_RING = re.compile(r"([1-9][0-9]{0,4})(%?)")
_ALL = 100

State = Literal["rolling", "held", "stopped", "done"]
"""It goes on by itself, or when a person says so; it was rolled back; every edge is offered it."""


Order = Literal["hold", "promote", "stop"]
"""What a person says: no further until `promote`; on to the next ring; back to the version before."""

NO_NUMBERS: Mapping[str, int] = {}


@dataclass(frozen=True, slots=True)
class Ring:
    """So many edges, or a share of them in per cent."""

    size: int
    is_share: bool

    def of(self, edges: int) -> int:
        """Return of how many edges it is, of so many; a share is rounded up."""
        return min(edges, math.ceil(self.size * edges / _ALL) if self.is_share else self.size)


Rings = tuple[Ring, ...]
"""The rings of a rollout, the first one first; none: a version goes to all edges at once."""


def parse_rings(text: str) -> Rings:
    """Read rings, numbers of edges or shares with commas between: `1,20%,100%`.

    Raises:
        ValueError: naming what cannot be read, or cannot be meant.

    """
    words = [word.strip() for word in text.split(",")] if text.strip() else []
    matches = [_RING.fullmatch(word) for word in words]
    faults = [
        f"{word!r} is neither a number of edges nor a share of them, such as 1 or 20%"
        for word, match in zip(words, matches, strict=True)
        if match is None or (match[2] and int(match[1]) > _ALL)
    ]
    if faults:
        raise ValueError("; ".join(faults))
    rings = tuple(Ring(int(match[1]), bool(match[2])) for match in matches if match is not None)
    for is_share in (False, True):
        sizes = [ring.size for ring in rings if ring.is_share is is_share]
        if sizes != sorted(set(sizes)):
            raise ValueError(f"{text!r} has a ring that is not larger than the one before")
    if rings and rings[-1] != Ring(_ALL, is_share=True):
        raise ValueError(f"{text!r} does not end with all edges: end with 100%")
    return rings


@dataclass(frozen=True, slots=True)
class Rollout:
    """How far a version has come in its group. Versions are the group's numbers; 0 is none.

    Attributes:
        version: the one that is rolled out.
        before: the one that edges go back to if it is stopped.
        keeps: an edge beyond the ring keeps what it has up to this version.
        unwanted: but not this one, which was stopped.
        rings: as `parse_rings` reads them; a rollout keeps those that it began with.
        ring: how far it has come, from 1 on.
        state: see `State`.
        begun: ISO 8601 time, UTC.
        since: the same, of the ring or the state.
        why: what led to it, or what is waited for.
        numbers: that `why` stands on, by their names.
        differing: images that edges named, of which the version and the one before say different things.

    """

    version: Annotated[int, Field(ge=1)]
    before: Annotated[int, Field(ge=0)]
    keeps: Annotated[int, Field(ge=0)]
    rings: Annotated[str, Field(max_length=200)]
    ring: Annotated[int, Field(ge=1)] = 1
    state: State = "rolling"
    begun: str = ""
    since: str = ""
    why: Annotated[str, Field(max_length=LONGEST_REASON)] = ""
    unwanted: Annotated[int, Field(ge=0)] = 0
    numbers: Mapping[str, int] = field(default_factory=dict)
    differing: tuple[Differing, ...] = ()

    def __post_init__(self) -> None:
        parse_rings(self.rings)
        for moment in (self.begun, self.since):
            datetime.fromisoformat(moment or "1970-01-01")

    @property
    def is_live(self) -> bool:
        """Whether what edges say may still change it."""
        return self.state in {"rolling", "held"}

    @property
    def began(self) -> float:
        """When it began, seconds since 1970; 0 if it does not say."""
        return datetime.fromisoformat(self.begun).timestamp() if self.begun else 0.0

    @property
    def count(self) -> int:
        """How many rings there are."""
        return len(parse_rings(self.rings))

    def reaches(self, edges: Sequence[str]) -> tuple[str, ...]:
        """Return those of a group's edges that are offered the version."""
        if self.state == "stopped":
            return ()
        return tuple(edges) if self.state == "done" else self._first(self.ring, edges)

    def newly(self, edges: Sequence[str]) -> tuple[str, ...]:
        """Return those that no ring before reached."""
        mine = self._first(self.ring, edges)
        sizes = (len(self._first(ring, edges)) for ring in range(self.ring))
        return mine[max((size for size in sizes if size < len(mine)), default=0) :]

    def next_ring(self, edges: Sequence[str]) -> int | None:
        """Return the next ring that has more edges; None after the last one."""
        before = len(self._first(self.ring, edges))
        further = range(self.ring + 1, self.count + 1)
        return next((ring for ring in further if len(self._first(ring, edges)) > before), None)

    def changed(
        self,
        state: State,
        why: str,
        numbers: Mapping[str, int] = NO_NUMBERS,
        differing: Sequence[Differing] | None = None,
        *,
        ring: int | None = None,
    ) -> Rollout:
        """Return it in another state or ring, since now. Of one that is stopped nobody keeps anything.

        Where no images are named, those known before stay.
        """
        now = times.now()
        told = replace(
            self,
            state=state,
            ring=ring or self.ring,
            begun=self.begun or now,
            since=now,
            why=cut(why),
            numbers=dict(numbers),
            differing=self.differing if differing is None else tuple(differing),
        )
        return told if state != "stopped" else replace(told, keeps=self.before, unwanted=self.version)

    def ordered(self, what: Order, edges: Sequence[str], said: str) -> Rollout:
        """Return what becomes of it when a person says so.

        Raises:
            Permanent: if it is over.

        """
        if what == "stop" and (self.is_live or (self.state == "done" and self.before)):
            return self.changed("stopped", said)
        if not self.is_live:
            raise Permanent(f"the rollout of version {self.version} is {self.state} since {self.since}")
        if what == "hold":
            return self.changed("held", said)
        further = self.next_ring(edges)
        return self.changed("rolling" if further else "done", said, ring=further)

    def _first(self, ring: int, edges: Sequence[str]) -> tuple[str, ...]:
        rings = parse_rings(self.rings)[:ring]
        return tuple(edges[: max((each.of(len(edges)) for each in rings), default=0)])


@dataclass(frozen=True, slots=True)
class Told:
    """What central tells of a rollout on `edge-status`.

    Attributes:
        group: whose it is.
        model: name of the model.
        edges: all of the group, in their order.
        rollout: how it stands.

    """

    group: str
    model: str
    edges: tuple[str, ...]
    rollout: Rollout

    def to_json(self) -> bytes:
        """Return the message."""
        return to_json({"schema": SCHEMA, **asdict(self)})

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Told:
        """Return what a message tells.

        Raises:
            NotJson: if it tells something else; it says why, and quotes nothing.

        """
        try:
            return _TOLD.validate_python(body)
        except ValidationError as exc:
            raise NotJson(faults_of(exc)) from exc


_TOLD = TypeAdapter(Told)
