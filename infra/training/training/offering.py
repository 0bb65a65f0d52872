"""Who of a group's members is offered what: all the newest version, or as far as its rollout has come.

A rollout is written before the first member is offered its version; what each has is told by its `E-ready`.
So whoever shares next goes on where the last one was killed.
"""

from collections.abc import Collection
from dataclasses import dataclass

import structlog
from obstore.store import ObjectStore

from caravan import model_index, rollouts
from caravan.concurrency import for_each
from caravan.errors import CaravanError, Transient
from caravan.manifest import Manifest, Shared
from caravan.rollout import Rollout
from training import versions
from training.stores import EDGES_AT_ONCE, Stores

log = structlog.get_logger()


@dataclass(frozen=True)
class Offering:
    """What the members of a group are offered.

    Attributes:
        newest: the group's newest version.
        rollout: of it, or of the one before it that was stopped; None if there are no rings.
        reached: the edges that are offered it.
        back: what another one is given that has what it is not to keep, or nothing of the group's yet.

    """

    group: str
    newest: Manifest
    rollout: Rollout | None
    reached: Collection[str]
    back: Manifest | None

    def to(self, edge: str, there: Shared | None) -> Manifest | None:
        """Return the version that an edge is offered, given what it has; None if it keeps that."""
        has = there.version if there is not None and there.group == self.group else 0
        if self.rollout is None or edge in self.reached:
            return self.newest if has < self.newest.version else None
        is_kept = 0 < has <= self.rollout.keeps and has != self.rollout.unwanted
        return None if self.back is None or is_kept or has == self.back.version else self.back


async def offering(stores: Stores, model: str) -> Offering | None:
    """Return what a group offers its members now, a rollout begun if there is none of its newest version.

    Returns:
        None if it has no version, or no members.

    Raises:
        Transient: if the store is away.

    """
    newest = await versions.newest_complete(stores.ready, model) if stores.members else None
    if newest is None:
        return None
    edges = stores.member_edges
    rollout = await _rollout(stores, newest) if stores.rings else None
    if rollout is None:
        return Offering(stores.edge, newest, None, edges, None)
    reached = rollout.reaches(edges)
    back = None
    if len(reached) < len(edges):
        back = newest if _is_way_back(newest, rollout) else await _before(stores, model, rollout)
    return Offering(stores.edge, newest, rollout, reached, back)


async def shared_with(ready: ObjectStore, model: str) -> Shared | None:
    """Return what of a group's the newest version in an edge's `E-ready` is; None if it is the edge's own."""
    for number in await model_index.numbers(ready, model):
        manifest = await versions.read_manifest(ready, model, number)
        if manifest is not None:
            return manifest.shared
    return None


async def _before(stores: Stores, model: str, rollout: Rollout) -> Manifest | None:
    found = await versions.whole(stores.ready, model, rollout.before) if rollout.before else None
    if found is None and rollout.before:
        log.warning("the version before is gone", group=stores.edge, model=model, version=rollout.before)
    return found


def _is_way_back(manifest: Manifest, rollout: Rollout) -> bool:
    """Tell whether a version is the one before a stopped one, published again."""
    is_again = manifest.lineage.rollback_of == rollout.before and manifest.version > rollout.version
    return rollout.state == "stopped" and is_again


async def _rollout(stores: Stores, newest: Manifest) -> Rollout:
    """Return the rollout that the newest version is in, or left; begin it where there is none."""
    model = newest.model
    for _ in range(rollouts.ATTEMPTS):
        found, etag = await rollouts.read(stores.models, model)
        if found is not None and (found.version >= newest.version or _is_way_back(newest, found)):
            return found
        begun = await _begun(stores, newest, found)
        if await rollouts.write(stores.models, model, begun, etag):
            log.info(
                "a rollout begins", group=stores.edge, model=model, version=begun.version, state=begun.state
            )
            return begun
    raise Transient(f"others change the rollout of {model} at the same time, again and again")


async def _begun(stores: Stores, newest: Manifest, found: Rollout | None) -> Rollout:
    """Return the rollout of a version that has none, given the last one."""
    version, again = newest.version, newest.lineage.rollback_of
    have = await _there(stores, newest.model)
    highest = max(have, default=0)

    def begun(before: int, keeps: int, unwanted: int = 0) -> Rollout:
        began = Rollout(version, before, keeps, stores.rings, unwanted=unwanted)
        if again is not None:
            return began.changed("done", f"an operator rolled back to version {again}")
        if highest >= version:
            return began.changed("done", "edges had it before there were rings")
        return began.changed("rolling", "it passed the gate")

    if found is None:
        return begun(highest, highest)
    if found.state == "stopped":
        last = await _older(stores, newest)
        if last is not None and _is_way_back(last, found):
            return begun(last.version, last.version, found.version)
        if highest <= found.version:
            return begun(found.before, found.before, found.version)
    elif highest <= found.version:
        return begun(found.version if found.state == "done" else found.before, found.version, found.unwanted)
    return begun(highest, highest)  # While there were no rings, versions went to all.


async def _older(stores: Stores, newest: Manifest) -> Manifest | None:
    for number in await model_index.numbers(stores.ready, newest.model):
        if number < newest.version:
            manifest = await versions.whole(stores.ready, newest.model, number)
            if manifest is not None:
                return manifest
    return None


async def _there(stores: Stores, model: str) -> list[int]:
    """Return which of the group's versions its members have; who cannot be asked is left out."""
    found: list[int] = []

    async def look(member: Stores) -> None:
        try:
            shared = await shared_with(member.ready, model)
        except (CaravanError, FileNotFoundError):
            return
        if shared is not None and shared.group == stores.edge:
            found.append(shared.version)

    await for_each(stores.members, look, at_once=EDGES_AT_ONCE)
    return found
