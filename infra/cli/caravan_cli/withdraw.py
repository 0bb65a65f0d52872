"""Taking images out of an edge's data for good: a tombstone first, then the objects.

An image is taken out wherever it lies. A batch is taken out as far as it alone brought its images: of what
another batch brought too, the class is believed that the other gave. So an honest batch loses nothing with a
bad one, and batches that were all withdrawn leave nothing behind.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from obstore.store import ObjectStore

from caravan import s3, times
from caravan.account import content_sha256, each_receipt, promises
from caravan.concurrency import for_each
from caravan.contracts import IMAGES, class_of
from caravan.errors import BadInput
from caravan.names import is_sha256
from caravan.receipts import Receipt, receipt_key
from caravan.withdrawn import batch_tombstone_key, read_withdrawn_batches, tombstone_key

AT_ONCE = 16
EVERYWHERE = ""
"""Stands for all classes."""

Targets = dict[str, set[str]]
"""The classes that content is withdrawn from, by its SHA-256."""


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """What was taken out.

    Attributes:
        contents: SHA-256 of each.
        removed: the keys of the objects that were there.
        kept: of a batch, the keys of images that stay as they are, because another batch brought them too.

    """

    contents: tuple[str, ...]
    removed: tuple[str, ...]
    kept: tuple[str, ...] = ()


async def withdraw_everywhere(
    stores: Iterable[ObjectStore], what: str, *, reason: str, label_only: bool
) -> Withdrawal:
    """Take an image or a batch out of the data of several edges, as `withdraw` does of one's.

    Raises:
        BadInput: 404 if none of them knows it.
        CaravanError: if the store is away, or refuses us; call it again.
        FileNotFoundError: if there is no such bucket.

    """
    done: list[Withdrawal] = []
    unknown: BadInput | None = None
    for store in stores:
        try:
            done.append(await withdraw(store, what, reason=reason, label_only=label_only))
        except BadInput as exc:
            unknown = exc
    if not done and unknown is not None:
        raise unknown
    contents = {sha256 for each in done for sha256 in each.contents}
    return Withdrawal(
        tuple(sorted(contents)),
        tuple(key for each in done for key in each.removed),
        tuple(key for each in done for key in each.kept),
    )


async def withdraw(store: ObjectStore, what: str, *, reason: str, label_only: bool) -> Withdrawal:
    """Take an image or a batch out, and leave word that it is not to come back.

    Killed at any moment and called again, it completes. An image that someone has removed by hand is
    withdrawn, too: by its key, as receipts tell what was there.

    Args:
        store: the edge's data bucket.
        what: the key of an image, the SHA-256 of its content, or the id of a batch.
        reason: why; kept in the tombstones, for people.
        label_only: from the class alone that it was given, for wrong labels: it may come again under another.
            A single image is then given by its key.

    Raises:
        BadInput: 404 if neither the bucket nor a receipt knows it.
        CaravanError: if the store is away, or refuses us.
        FileNotFoundError: if there is no such bucket.

    """
    if not is_sha256(what):
        return await _withdraw_key(store, what, reason, label_only=label_only)
    if await _has_receipt(store, what):
        return await _withdraw_batch(store, what, reason, label_only=label_only)
    try:
        return await _withdraw_content(store, what, reason, label_only=label_only)
    except BadInput as exc:
        # Receipts that are closed are read for nothing but this.
        try:
            return await _withdraw_batch(store, what, reason, label_only=label_only)
        except BadInput:
            raise exc from None


async def contents_at(store: ObjectStore, key: str) -> set[str]:
    """Return the SHA-256 of what is under a key; where nothing is, of all that receipts say was."""
    there = await _content_or_none(store, key)
    if there is not None:
        return {there}
    return {promise.sha256 async for promised, promise in promises(store) if promised == key}


async def classes_left(sources: Iterable[tuple[ObjectStore, Collection[str]]]) -> set[str]:
    """Return which classes still have images, two of them at most: with these a model can be trained.

    Args:
        sources: the data buckets that a model learns from, and of each the classes that it passes over.

    Raises:
        CaravanError: if the store is away, or refuses us.
        FileNotFoundError: if there is no such bucket.

    """
    found: set[str] = set()
    for store, passed_over in sources:
        async for entry in s3.listing(store, IMAGES):
            found |= {class_of(entry["path"])} - {"", *passed_over}
            if len(found) > 1:
                return found
    return found


async def _withdraw_key(store: ObjectStore, key: str, reason: str, *, label_only: bool) -> Withdrawal:
    item = class_of(key)
    if not item:
        raise BadInput(
            f"an image is named by its key ({IMAGES}<class>/<file>) or the SHA-256 of its content, "
            "a batch by the id that the feeder answered"
        )
    contents = await contents_at(store, key)
    if not contents:
        raise _unknown(key)
    targets = {sha256: {item if label_only else EVERYWHERE} for sha256 in contents}
    return await _take_out(store, targets, reason, also={sha256: {key} for sha256 in contents})


async def _withdraw_content(store: ObjectStore, sha256: str, reason: str, *, label_only: bool) -> Withdrawal:
    if label_only:
        raise BadInput(
            "a label is taken off by the image's key, or a whole batch's: content may have several"
        )
    if not [key async for key, promise in promises(store) if promise.sha256 == sha256]:
        raise _unknown(sha256)
    return await _take_out(store, {sha256: {EVERYWHERE}}, reason)


async def _withdraw_batch(store: ObjectStore, batch: str, reason: str, *, label_only: bool) -> Withdrawal:
    own: Targets = {}
    others: Targets = {}
    is_known = False
    withdrawn = await read_withdrawn_batches(store)

    def take_own(receipt: Receipt) -> None:
        nonlocal is_known
        if receipt.batch == batch:
            is_known = True
            _add(own, receipt)

    def take_other(receipt: Receipt) -> None:
        if receipt.batch != batch and receipt.batch not in withdrawn:
            _add(others, receipt, among=own)

    await each_receipt(store, take_own)
    if not is_known:
        raise _unknown(batch)
    await each_receipt(store, take_other)
    targets: Targets = {}
    for sha256, items in own.items():
        brought = others.get(sha256, set())
        out = items - brought
        if out:
            targets[sha256] = out if brought or label_only else {EVERYWHERE}
    kept = {(sha256, item) for sha256, items in own.items() for item in items & others.get(sha256, set())}
    done = await _take_out(store, targets, reason)
    body = {"batch": batch, "images": len(targets), "kept": len(kept), "reason": reason, "at": times.now()}
    await s3.write(store, batch_tombstone_key(batch), json.dumps(body).encode())
    return Withdrawal(done.contents, done.removed, tuple(sorted(f"{item}/{sha256}" for sha256, item in kept)))


def _add(found: Targets, receipt: Receipt, among: Collection[str] | None = None) -> None:
    for image in receipt.images:
        if image.sha256 and (among is None or image.sha256 in among):
            found.setdefault(image.sha256, set()).add(class_of(image.key))


async def _take_out(
    store: ObjectStore,
    targets: Mapping[str, set[str]],
    reason: str,
    also: Mapping[str, set[str]] | None = None,
) -> Withdrawal:
    """Write the tombstones, then remove every object with such content in such a class.

    Args:
        store: the edge's data bucket.
        targets: what is taken out of which classes.
        reason: why.
        also: keys beside those that receipts name, by content.

    """
    keys: Targets = {sha256: set(more) for sha256, more in (also or {}).items()}
    async for key, promise in promises(store):
        items = targets.get(promise.sha256, ())
        if EVERYWHERE in items or class_of(key) in items:
            keys.setdefault(promise.sha256, set()).add(key)
    at = times.now()

    async def bury(each: tuple[str, str]) -> None:
        sha256, item = each
        body = {"sha256": sha256, "keys": sorted(keys.get(sha256, ())), "reason": reason, "at": at}
        await s3.write(store, tombstone_key(sha256, item), json.dumps(body).encode())

    await for_each(_pairs(targets), bury, at_once=AT_ONCE)
    contents: Targets = {}
    for sha256, key in _pairs(keys):
        contents.setdefault(key, set()).add(sha256)
    removed: list[str] = []

    async def look(key: str) -> None:
        if await _content_or_none(store, key) in contents[key]:
            removed.append(key)

    await for_each(contents, look, at_once=AT_ONCE)
    await s3.delete(store, removed)
    return Withdrawal(tuple(sorted(targets)), tuple(sorted(removed)))


def _pairs(several: Mapping[str, set[str]]) -> Iterable[tuple[str, str]]:
    return ((one, each) for one, many in several.items() for each in sorted(many))


async def _has_receipt(store: ObjectStore, batch: str) -> bool:
    try:
        await s3.facts(store, receipt_key(batch))
    except FileNotFoundError:
        return False
    return True


async def _content_or_none(store: ObjectStore, key: str) -> str | None:
    try:
        return await content_sha256(store, key)
    except FileNotFoundError:
        return None


def _unknown(what: str) -> BadInput:
    return BadInput(f"neither the bucket nor a receipt knows {what}", 404, reason="no-such-image")
