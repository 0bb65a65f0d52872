"""What a group of edges shares, offered to each of them: FROM `G-ready` → TO every member's `E-ready`.

A member gets a manifest of its own, which says that the files are in `G-ready`: they are written once. So an
edge looks at one bucket, as one without a group does; its numbers go up, whatever it joins or leaves; and
what vouches for a version vouches for the edge that it is for. Killed anywhere and run again, it completes.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import structlog
from obstore.store import ObjectStore

from caravan import s3, tracing
from caravan.concurrency import for_each
from caravan.contracts import MANIFEST, SIGNATURE, Event, model_ready_event, version_prefix
from caravan.errors import CaravanError, Transient
from caravan.groups import Groups, owner_of
from caravan.manifest import Lineage, Manifest, Shared
from caravan.signatures import PrivateKey, sign, vouches
from training import versions
from training.offering import Offering, offering, shared_with
from training.stores import EDGES_AT_ONCE, Stores

log = structlog.get_logger()


Announce = Callable[[Event], None]
"""Sends an event on Kafka `E`, best effort, without waiting."""


def to_nobody(event: Event) -> None:
    """Announce nothing."""


async def share(stores: Stores, model: str, key: PrivateKey | None, announce: Announce) -> None:
    """Offer each member of a group what it lacks, and tell it; an edge has no members.

    That is the newest version, for those that its rollout has reached. Its number there is the group's own,
    which is above all that the members had when it was made; at an edge that had gone further by itself, and
    joined later, or that goes back to an older version, it is the next one.

    Raises:
        Transient: if the store is away, or refuses us a member's bucket; the other members have it.

    """
    before = None
    # Others may carry the rollout on meanwhile: they have not seen what we offered since.
    while (offers := await offering(stores, model)) is not None and offers != before:
        before = offers
        await _to_each(stores, offers, key, announce)
        if not stores.rings:
            return


async def _to_each(stores: Stores, offers: Offering, key: PrivateKey | None, announce: Announce) -> None:
    signed = () if key is None else filter(None, (offers.newest, offers.back))
    runs = {each.version: await versions.run_of(stores.models, each.model, each.version) for each in signed}
    faults: list[str] = []

    async def offer(member: Stores) -> None:
        try:
            offered = await _offer(member, offers, key, runs)
            if offered is not None:
                announce(ready_event(offered) | {"edge": member.edge})
        except (CaravanError, FileNotFoundError) as exc:
            log.warning("a member is not offered the group's version", edge=member.edge, error=str(exc))
            faults.append(f"{member.edge}: {exc}")

    await for_each(stores.members, offer, at_once=EDGES_AT_ONCE)
    if faults:
        raise Transient(
            f"{len(faults)} edges of {stores.edge} are not offered its version, such as {faults[0]}"
        )


async def unsettled(ready: Mapping[str, ObjectStore], groups: Groups, model: str) -> set[str]:
    """Return the edges, and groups, that need a run: what an edge is offered is not of whose model it serves.

    Args:
        ready: `E-ready` of every edge, by its id.
        groups: as they are now.
        model: the one that is trained.

    Raises:
        Transient: if the store is away.

    """
    found: set[str] = set()

    async def look(edge: str) -> None:
        shared = await shared_with(ready[edge], model)
        owner = owner_of(edge, groups)
        if owner != (edge if shared is None else shared.group):
            found.add(owner)

    await for_each(ready, look, at_once=EDGES_AT_ONCE)
    return found


def ready_event(manifest: Manifest) -> Event:
    """Return the event that a version is on its way to the edge."""
    lineage = manifest.lineage
    facts: Event = facts_of(lineage)
    if lineage.upload is not None:
        facts["upload"] = lineage.upload
    if lineage.rollback_of is not None:
        facts["rollback_of"] = lineage.rollback_of
    return model_ready_event(manifest.model, manifest.version, **facts)


def facts_of(lineage: Lineage) -> Event:
    """Return what the event of a version, ready or rejected, tells of where it comes from."""
    return {
        "accuracy": lineage.metrics.get("accuracy"),
        "parent": lineage.parent,
        "data_digest": lineage.data_digest,
    }


async def _offer(
    member: Stores, offers: Offering, key: PrivateKey | None, runs: Mapping[int, str | None]
) -> Manifest | None:
    """Offer a version to a member; return its manifest there, or None if the member keeps what it has."""
    model, group = offers.newest.model, offers.group
    for _ in range(versions.ATTEMPTS):
        version = offers.to(member.edge, await shared_with(member.ready, model))
        if version is None:
            return None
        highest = await versions.highest(member, model)
        mine = _offered(member, version, group, max(version.version, highest + 1))
        begun = _offered(member, version, group, highest)
        if key is not None and highest >= version.version and await _is_signed(member, begun, key):
            mine = begun
        if (signed := await _written(member, mine, key, runs.get(version.version))) is not None:
            await versions.name(member.ready, signed)
            log.info("version shared", edge=member.edge, group=group, model=model, version=signed.version)
            return signed
    raise Transient(f"others take every version number of {member.edge} that is tried")


def _offered(member: Stores, version: Manifest, group: str, number: int) -> Manifest:
    shared = Shared(group, version.version)
    return replace(version, version=number, edge=member.edge, shared=shared, signature=None)


async def _written(
    member: Stores, mine: Manifest, key: PrivateKey | None, run: str | None
) -> Manifest | None:
    """Write a version of a member, signed; None if its number is another's.

    The first signature stays, so that beside a manifest there is none but its own: who comes second goes on
    only if that vouches for the same.
    """
    signed, signature = (mine, None) if key is None else sign(mine, key, run)
    prefix = version_prefix(mine.model, mine.version)
    if key is not None and signature is not None:
        is_first = await s3.create(member.ready, prefix + SIGNATURE, signature)
        if not is_first and not await _is_signed(member, mine, key):
            return None
    is_mine = await s3.create(member.ready, prefix + MANIFEST, signed.to_json(), tracing.headers())
    return signed if is_mine else None


async def _is_signed(member: Stores, mine: Manifest, key: PrivateKey) -> bool:
    """Tell whether a `model.sig` by this key is there, and vouches for this manifest."""
    signature = await versions.signature_of(member.ready, mine.model, mine.version)
    return signature is not None and vouches(signature, mine, key)
