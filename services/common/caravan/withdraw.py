"""Taking images out of an edge's data for good: a tombstone first, then the objects."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime

from obstore.store import ObjectStore

from caravan import s3
from caravan.books import content_sha256, promises
from caravan.contracts import IMAGES, class_of
from caravan.errors import BadInput
from caravan.names import is_sha256
from caravan.withdrawn import tombstone_key


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """What was taken out: SHA-256 of the contents, and the keys of the objects that were there."""

    contents: tuple[str, ...]
    removed: tuple[str, ...]


async def withdraw(store: ObjectStore, image: str, *, reason: str, label_only: bool) -> Withdrawal:
    """Take an image out, wherever it lies, and leave word that it is not to come back.

    Killed at any moment and called again, it completes. An image that someone has removed by hand is
    withdrawn, too: by its key, as receipts tell what was there.

    Args:
        store: the edge's data bucket.
        image: its key, or the SHA-256 of its content.
        reason: why; kept in the tombstone, for people.
        label_only: from this class alone, for a wrong label: the image may come again under another. The
            image is then given by its key.

    Raises:
        BadInput: 404 if neither the bucket nor a receipt knows the image.
        CaravanError: if the store is away, or refuses us.
        FileNotFoundError: if there is no such bucket.

    """
    is_content = is_sha256(image)
    item = class_of(image)
    if not is_content and not item:
        raise BadInput(f"an image is named by its key ({IMAGES}<class>/<file>) or the SHA-256 of its content")
    if label_only and is_content:
        raise BadInput("a label is taken off by the image's key: its content may have several")
    contents = {image} if is_content else await contents_at(store, image)
    keys = {image} - contents
    known = bool(keys) and bool(contents)
    async for key, promise in promises(store):
        if promise.sha256 in contents:
            known = True
            if not label_only or class_of(key) == item:
                keys.add(key)
    if not known:
        raise BadInput(f"neither the bucket nor a receipt knows {image}", 404, reason="no-such-image")
    for sha256 in sorted(contents):
        body = {"sha256": sha256, "keys": sorted(keys), "reason": reason, "at": _now()}
        await s3.write(store, tombstone_key(sha256, item if label_only else ""), json.dumps(body).encode())
    removed = [key for key in sorted(keys) if await _content_or_none(store, key) in contents]
    await s3.delete(store, removed)
    return Withdrawal(tuple(sorted(contents)), tuple(removed))


async def contents_at(store: ObjectStore, key: str) -> set[str]:
    """Return the SHA-256 of what is under a key; where nothing is, of all that receipts say was."""
    there = await _content_or_none(store, key)
    if there is not None:
        return {there}
    return {promise.sha256 async for promised, promise in promises(store) if promised == key}


async def _content_or_none(store: ObjectStore, key: str) -> str | None:
    try:
        return await content_sha256(store, key)
    except FileNotFoundError:
        return None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
