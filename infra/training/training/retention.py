"""How many versions are kept: the oldest are removed from `E-models`, `E-ready` and every member's.

What may be wanted stays, however old: what a hold points to, the version that serves, the one before it, the
newest that was trained here, and of a group what the two newest of any member point to, and what its edges go
back to if its rollout stops. Of a version its entry file goes first and its manifest last: killed on the way,
it leaves nothing that is whole, and by the manifest the next run finds the rest. Numbers are never used
again: the newest version has the highest.
"""

from collections.abc import Collection, Iterable, Mapping

import structlog
from obstore.store import ObjectStore

from caravan import holds, model_index, rollouts, s3
from caravan.concurrency import for_each
from caravan.contracts import ENTRY_FILES, MANIFEST, version_prefix
from caravan.manifest import Manifest
from training import versions
from training.stores import EDGES_AT_ONCE, Stores

log = structlog.get_logger()

AT_EDGES = 2
"""The newest versions that edges may be fetching; as many stay in `E-ready` at least."""


async def keep_newest(stores: Stores, model: str, keep: int) -> None:
    """Remove the oldest versions of a model beyond so many; 0 keeps them all.

    In `E-models` so many stay that passed, to which an operator can roll back, and so many that were
    rejected. What others wrote into `E-ready`, without a manifest, is theirs.

    Raises:
        Transient: if a store is away; what is left goes the next time.
        Permanent: if nobody can tell what a hold, or a rollout, points to.

    """
    if not keep:
        return
    held = await holds.read_hold(stores.models, model)
    ready = await model_index.numbers(stores.ready, model)
    rollout = (await rollouts.read(stores.models, model))[0] if stores.rings else None
    old = set(ready[max(keep, AT_EDGES) :])
    needed = await _serving(stores.ready, model, ready) if old else set(ready[:AT_EDGES])
    needed |= set() if rollout is None else {rollout.version, rollout.before}
    needed |= await _tidy_members(stores, model, keep, old - needed)
    await _remove_ready(stores, model, old - needed)
    if held is not None:
        needed.add(held.to)
    await _tidy_models(stores, model, keep, needed)


def surplus(found: Mapping[int, Manifest | None], keep: int, needed: Collection[int]) -> list[int]:
    """Return which versions of `E-models` go, the oldest first.

    Args:
        found: their manifests, by number; None for one without, which is under way, or was cut short.
        keep: how many that passed, and how many that were rejected.
        needed: those that stay.

    """
    numbers = sorted(found, reverse=True)
    passed = [n for n in numbers if (each := found[n]) is not None and not each.is_rejected]
    rejected = [n for n in numbers if (each := found[n]) is not None and each.is_rejected]
    oldest = passed[keep - 1] if len(passed) >= keep else 0
    cut_short = [n for n in numbers if found[n] is None and n < oldest]
    return sorted({*passed[keep:], *rejected[keep:], *cut_short}.difference(needed))


async def _serving(ready: ObjectStore, model: str, numbers: Iterable[int]) -> set[int]:
    """Return the newest whole versions in `E-ready`, and the newest of them that was trained."""
    found: set[int] = set()
    for number in numbers:
        manifest = await versions.whole(ready, model, number)
        if manifest is None:
            continue
        is_trained = manifest.lineage.data_digest is not None
        if len(found) < AT_EDGES or is_trained:
            found.add(number)
        if len(found) >= AT_EDGES and is_trained:
            break
    return found


async def _tidy_members(stores: Stores, model: str, keep: int, old: Collection[int]) -> set[int]:
    """Remove what is too old at the members of a group, and what points to what is going to be.

    Returns:
        Of the group's versions that are `old`, those that a member's newest ones point to.

    """
    there: dict[str, list[int]] = {}
    pointed: set[int] = set()

    async def look(member: Stores) -> None:
        there[member.edge] = await model_index.numbers(member.ready, model)
        for number in there[member.edge][:AT_EDGES] if old else ():
            manifest = await versions.read_manifest(member.ready, model, number)
            if manifest is not None and manifest.shared is not None and manifest.shared.group == stores.edge:
                pointed.add(manifest.shared.version)

    async def tidy(member: Stores) -> None:
        numbers = there[member.edge]
        gone = set(old) - pointed
        await _remove_ready(
            member, model, {*numbers[max(keep, AT_EDGES) :], *gone.intersection(numbers[AT_EDGES:])}
        )

    await for_each(stores.members, look, at_once=EDGES_AT_ONCE)
    await for_each(stores.members, tidy, at_once=EDGES_AT_ONCE)
    return pointed.intersection(old)


async def _tidy_models(stores: Stores, model: str, keep: int, needed: Collection[int]) -> None:
    numbers = await model_index.numbers(stores.models, model)
    if len(numbers) <= keep:
        return
    found: dict[int, Manifest | None] = {}

    async def read(number: int) -> None:
        found[number] = await versions.read_manifest(stores.models, model, number)

    await for_each(numbers, read, at_once=EDGES_AT_ONCE)
    for number in surplus(found, keep, needed):
        was_there = await _remove(stores.models, model, number)
        await versions.forget_claim(stores.models, model, number)
        if was_there:  # SeaweedFS names its folder for minutes after.
            log.info("version removed", edge=stores.edge, model=model, version=number, kept=keep)


async def _remove_ready(stores: Stores, model: str, numbers: Collection[int]) -> None:
    """Remove versions from `E-ready`, if they have a manifest; the index no longer names them then."""
    ours = [n for n in sorted(numbers) if await versions.read_manifest(stores.ready, model, n) is not None]
    if ours:
        await model_index.remove(stores.ready, model, ours)
    for number in ours:
        await _remove(stores.ready, model, number)


async def _remove(store: ObjectStore, model: str, number: int) -> bool:
    """Remove what there is of a version; tell whether there was anything."""
    prefix = version_prefix(model, number)
    paths = await model_index.files(store, model, number)
    in_order = sorted(paths, key=lambda path: (path == MANIFEST, path not in ENTRY_FILES))
    await s3.delete(store, [prefix + path for path in in_order])
    return bool(in_order)
