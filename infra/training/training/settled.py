"""Whether an edge's data needs training at all: not where the version of just this data serves.

The version that serves for this question is the newest trained one in `E-ready`: models that people sent
under the same name come and go beside the data.
"""

from collections.abc import Callable

import structlog

from caravan import holds, model_index, rollouts
from caravan.contracts import Event
from caravan.errors import Permanent
from caravan.manifest import Manifest
from training import versions
from training.offering import shared_with
from training.publish import Key, Published, announce_outcome, is_newest, publish_again, settle
from training.stores import Stores
from training.workspace import Settled

log = structlog.get_logger()


async def settle_data(
    stores: Stores,
    model: str,
    digest: str,
    key: Key,
    announce: Callable[[Event], None],
    *,
    run: str | None = None,
) -> Settled | None:
    """Make the version of just this data serve, if there is one that passed; None if training is needed.

    A publish that was interrupted is finished. Where a version of other data serves, because images were
    taken out since, the version of this data is published again: it passed when it was made. One that was
    rejected settles its data for as long as the version serves that it was found worse than, and one whose
    rollout was stopped until another one's begins. An edge that has left a group is offered its own again.
    """
    serving = None if await shared_with(stores.ready, model) else await _newest_trained(stores, model)
    if serving is not None and serving.lineage.data_digest == digest:
        return Settled(serving.version, "skipped", "a version of this data is there already")
    found = await versions.complete(stores.models, model)
    same = sorted(
        (m for m in found.values() if m.lineage.data_digest == digest),
        key=lambda m: (not m.is_rejected, m.version),
    )
    if not same:
        return None
    stopped = await _why_stopped(stores, same[-1])
    if stopped or same[-1].is_rejected:
        return Settled(same[-1].version, "held", stopped) if stopped else await _rejected(stores, same[-1])
    try:
        published = await _published(stores, same[-1], key, run)
    except Permanent as exc:
        log.warning("the version of this data cannot serve again: train", edge=stores.edge, error=str(exc))
        return None
    version = published.manifest.version
    if published.held is not None:
        return Settled(version, "held", published.held.reason)
    log.info("the version of this data serves again", edge=stores.edge, model=model, version=version)
    announce_outcome(stores, published, announce)
    return Settled(version, "ready", f"version {same[-1].version} is of just this data")


async def _newest_trained(stores: Stores, model: str) -> Manifest | None:
    for version in await model_index.numbers(stores.ready, model):
        manifest = await versions.whole(stores.ready, model, version)
        if manifest is not None and manifest.lineage.data_digest is not None:
            return manifest
    return None


async def _why_stopped(stores: Stores, manifest: Manifest) -> str:
    """Return why the rollout of a version was stopped; empty if it was not."""
    rollout = (await rollouts.read(stores.models, manifest.model))[0] if stores.rings else None
    if rollout is None or (rollout.state, rollout.version) != ("stopped", manifest.version):
        return ""
    return f"its rollout was stopped: {rollout.why}"


async def _rejected(stores: Stores, manifest: Manifest) -> Settled | None:
    serving = await versions.newest_complete(stores.ready, manifest.model)
    if manifest.lineage.parent != (None if serving is None else serving.version):
        return None
    reason = f"a version of this data is there already, and was rejected: {manifest.lineage.rejected}"
    return Settled(manifest.version, "skipped", reason)


async def _published(stores: Stores, manifest: Manifest, key: Key, run: str | None) -> Published:
    """Bring a version to `E-ready`: under its number if that is the newest, else under the next one."""
    if await is_newest(stores, manifest.model, manifest.version):
        return await settle(stores, manifest)
    held = await holds.read_hold(stores.models, manifest.model)
    if held is not None:
        return Published(manifest, offered=False, held=held)
    return await publish_again(stores, manifest, key, run)
