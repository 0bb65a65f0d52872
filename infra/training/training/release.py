"""The end of a hold: of what passed the gate while a rollback held, the newest goes to `E-ready`.

Killed anywhere and run again, it completes: the hold keeps nothing back from the first write on, and is there
until the last one.
"""

from collections.abc import AsyncIterator

from caravan import holds, model_index, times
from caravan.manifest import Manifest
from caravan.uploads import Verdict, read_upload, write_verdict
from training import versions
from training.made import learnt_from_withdrawn
from training.publish import Key, Published, announce_outcome, settle
from training.sharing import Announce, share, to_nobody
from training.stores import Stores


async def release(stores: Stores, model: str, key: Key, announce: Announce = to_nobody) -> Published | None:
    """End a hold, and bring the newest version that it kept back to `E-ready`; None if it kept none.

    Raises:
        Permanent: if there is no hold.
        Transient: if a store is away; call it again.

    """
    releasing = await holds.begin_release(stores.models, model)
    kept = [manifest async for manifest in _kept(stores, model)]
    for older in kept[1:]:
        await _tell_sender(stores, older, f"version {kept[0].version} came after it: send it again")
    published = await settle(stores, kept[0]) if kept else None
    if published is not None and published.held is None:
        await _tell_sender(stores, kept[0])
    if published is not None:
        announce_outcome(stores, published, announce)
    await share(stores, model, key, announce)
    await holds.end_release(stores.models, model, releasing)
    return published


async def _kept(stores: Stores, model: str) -> AsyncIterator[Manifest]:
    """Yield the versions that passed and are not older than the one in `E-ready`, newest first.

    A rollback that was cut short is none of them, nor is what learnt from images that were withdrawn since.
    """
    ready = await versions.newest_complete(stores.ready, model)
    for version in await model_index.numbers(stores.models, model):
        if ready is not None and version < ready.version:
            return
        manifest = await versions.whole(stores.models, model, version)
        if (
            manifest is not None
            and not manifest.is_rejected
            and manifest.lineage.rollback_of is None
            and not await learnt_from_withdrawn(stores, manifest)
        ):
            yield manifest


async def _tell_sender(stores: Stores, manifest: Manifest, refused: str = "") -> None:
    """Write the last word on a version that a person sent: it is ready, or why it is not."""
    if manifest.lineage.upload is None:
        return
    upload = await read_upload(stores.models, manifest.model, manifest.lineage.upload)
    if upload is not None:
        version = None if refused else manifest.version
        classes, at = manifest.lineage.classes, times.now("milliseconds")
        verdict = Verdict("rejected" if refused else "ready", upload.id, version, classes, refused, at)
        await write_verdict(stores.models, upload, verdict)
