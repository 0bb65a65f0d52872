"""Batches whose labels the version that serves contradicts: not learnt from until a person says so.

    quarantine/<batch>.json    in `E-data`: which images, and why
    quarantine/<batch>.html    some of their pictures, on a page that needs nothing else

    {"schema": 1, "state": "held", "batch": "9f86…", "reason": "61 of 61 photos …",
     "at": "2026-11-28T09:14:01.000+00:00", "images": [["tea-lemon", "<SHA-256>"], …]}

A batch that was released is not put there again; one that is wrong is withdrawn (`caravan withdraw`).
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Literal

from obstore.store import ObjectStore
from pydantic import Field, TypeAdapter, ValidationError

from caravan import s3, strict_json
from caravan.contracts import image_key
from caravan.errors import BadInput, Permanent, Transient
from caravan.names import as_class, cut
from caravan.strict_json import NotJson, faults_of
from caravan.withdrawn import Withdrawn, read_withdrawn, read_withdrawn_batches

SCHEMA = 1
QUARANTINE = "quarantine/"
MOST_PAGE_BYTES = 8 * 2**20
"""Most bytes of a page read into memory; our own have a quarter of it at most."""

_BATCH = re.compile(r"[0-9A-Za-z_.-]{1,200}")


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A batch, or a part of it, that is not learnt from.

    Attributes:
        batch: its id, as the feeder answered.
        reason: why, in words.
        at: ISO 8601 time, UTC.
        images: class and SHA-256 of each.
        state: `held`, or `released` once a person said that the labels are right.

    """

    batch: Annotated[str, Field(pattern=f"^{_BATCH.pattern}$")]
    reason: str
    at: str
    images: tuple[tuple[str, str], ...]
    state: Literal["held", "released"] = "held"


_QUARANTINED = TypeAdapter(Quarantined)


async def read_quarantine(store: ObjectStore) -> tuple[Quarantined, ...]:
    """Return what is or was in quarantine, given an edge's data bucket, the oldest first.

    Raises:
        Transient: if the store is away.
        Permanent: if one cannot be read: nobody knows which images it keeps back.

    """
    keys = [entry["path"] for entry in await s3.listed(store, QUARANTINE)]
    found = []
    for key in keys:
        if key.endswith(".json"):
            try:
                raw = await s3.read(store, key)
            except FileNotFoundError:
                continue
            found.append(await asyncio.to_thread(_parsed, key, raw))
    return tuple(sorted(found, key=lambda each: (each.at, each.batch)))


async def read_waiting(store: ObjectStore) -> tuple[Quarantined, ...]:
    """Return what waits for a person: neither released nor withdrawn, as a batch or image by image."""
    batches = await read_withdrawn_batches(store)
    found = [each for each in await read_quarantine(store) if each.state == "held"]
    withdrawn = await read_withdrawn(store) if found else Withdrawn()
    waiting = (_left(each, withdrawn) for each in found if each.batch not in batches)
    return tuple(each for each in waiting if each.images)


async def put_in_quarantine(store: ObjectStore, new: Quarantined, page: bytes) -> None:
    """Keep images back, perhaps more of a batch than before; write the page first, the record last.

    Raises:
        Transient: if the store is away, or somebody else changes it.

    """
    key = _key(new.batch)
    before, etag = await _read(store, key)
    if before is not None and before.state == "held":
        images = {*before.images, *new.images}
        new = replace(new, images=tuple(sorted(images)), at=before.at)
    await s3.write(store, page_key(new.batch), page)
    if not await s3.replace(store, key, await asyncio.to_thread(_to_json, new), etag):
        raise Transient(f"somebody else changes {key}")


async def release_batch(store: ObjectStore, batch: str) -> Quarantined:
    """Let a batch be learnt from, and remove its page; a repeat changes nothing.

    Returns:
        The batch, with those of its images that were not withdrawn.

    Raises:
        BadInput: 404 if it is in no quarantine, or was withdrawn.
        Transient: if the store is away, or somebody else changes it.

    """
    before, etag = await _read(store, _key(batch))
    if before is None or batch in await read_withdrawn_batches(store):
        raise _unknown(batch)
    left = _left(before, await read_withdrawn(store))
    if not left.images:
        raise _unknown(batch)
    after = replace(before, state="released")
    if after != before and not await s3.replace(
        store, _key(batch), await asyncio.to_thread(_to_json, after), etag
    ):
        raise Transient(f"somebody else changes {_key(batch)}")
    await s3.delete(store, [page_key(batch)])
    return replace(after, images=left.images)


async def forget_pictures(store: ObjectStore, found: Iterable[Quarantined], withdrawn: Withdrawn) -> None:
    """Remove the pages that may show what was withdrawn."""
    if len(withdrawn):
        await s3.delete(store, [page_key(each.batch) for each in found if _may_show(each, withdrawn)])


async def read_page(store: ObjectStore, batch: str) -> bytes:
    """Return the page with some of a batch's pictures.

    Raises:
        BadInput: 404 if it waits for nobody, or its pictures may not be shown; the message says which.
        Transient: if the store is away.

    """
    found = (await _read(store, _key(batch)))[0] if _BATCH.fullmatch(batch) else None
    if found is None or found.state != "held" or batch in await read_withdrawn_batches(store):
        raise _unknown(batch)
    # A run removes such a page, but what was withdrawn is not shown until then either.
    if _may_show(found, await read_withdrawn(store)):
        raise _without_page(f"images of batch {batch} were withdrawn: its pictures are not shown")
    try:
        page = await s3.read_changed(store, page_key(batch), None, most=MOST_PAGE_BYTES)
    except FileNotFoundError as exc:
        raise _without_page(f"batch {batch} is in quarantine, but without a page of its pictures") from exc
    if page is None or page.content is None:
        raise _without_page(f"the page is too large to be shown: fetch {page_key(batch)} from the bucket")
    return page.content


def page_key(batch: str) -> str:
    """Key of the page with some of a batch's pictures."""
    return f"{QUARANTINE}{batch}.html"


async def _read(store: ObjectStore, key: str) -> tuple[Quarantined | None, str | None]:
    try:
        raw, etag = await s3.read_with_etag(store, key)
    except FileNotFoundError:
        return None, None
    return await asyncio.to_thread(_parsed, key, raw), etag


def _parsed(key: str, raw: bytes) -> Quarantined:
    try:
        body = strict_json.loads_object(raw)
        known = body.pop("schema", None) == SCHEMA
        found = _QUARANTINED.validate_python(body)
    except (ValidationError, NotJson) as exc:
        fault = faults_of(exc) if isinstance(exc, ValidationError) else str(exc)
        raise Permanent(cut(f"{key} cannot be read: mend or remove it: {fault}")) from exc
    if not known or key != _key(found.batch):
        raise Permanent(f"{key} is of another schema or batch: mend or remove it")
    return replace(found, images=tuple((as_class(item), sha256) for item, sha256 in found.images))


def _key(batch: str) -> str:
    return f"{QUARANTINE}{batch}.json"


def _to_json(quarantined: Quarantined) -> bytes:
    return json.dumps({"schema": SCHEMA, **asdict(quarantined)}, sort_keys=True, ensure_ascii=False).encode()


def _may_show(each: Quarantined, withdrawn: Withdrawn) -> bool:
    """Tell whether a batch's page may show what was withdrawn."""
    return _left(each, withdrawn).images != each.images


def _left(each: Quarantined, withdrawn: Withdrawn) -> Quarantined:
    """Return a batch without its images that were withdrawn."""
    images = (image for image in each.images if not withdrawn.covers(image_key(*image), image[1]))
    return replace(each, images=tuple(images))


def _unknown(batch: str) -> BadInput:
    return BadInput(cut(f"no batch {batch} is in quarantine"), 404, reason="no-such-batch")


def _without_page(why: str) -> BadInput:
    return BadInput(why, 404, reason="no-page")
