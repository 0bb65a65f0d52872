"""The second pass: checked images go to the edge's bucket, between the two writings of their receipt."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import structlog

from caravan import s3, times
from caravan.concurrency import for_each
from caravan.errors import BadInput, Transient
from caravan.receipts import ImageReceipt, NotAReceipt, Outcome, Receipt, receipt_key
from caravan.withdrawn import REASON as WITHDRAWN_REASON
from caravan.withdrawn import Withdrawn, read_withdrawn
from feeder.archive import RejectedEntry
from feeder.checks import Batch, Labelled
from feeder.concurrency import Budget
from feeder.stores import Stores

log = structlog.get_logger()

_REFUSED = "the object store does not take it: its name or its content is too long"
_NAMES_TAKEN = "all names that it could have are taken by other images"


class DataBuckets:
    """The data buckets of all edges.

    Args:
        stores: the bucket of each edge.
        at_once: most images of a batch that are written at once.
        buffer_bytes: most bytes of all batches in memory.

    """

    def __init__(self, stores: Stores, *, at_once: int, buffer_bytes: int) -> None:
        self._stores = stores
        self._at_once = at_once
        self._budget = Budget(buffer_bytes)

    async def screened(self, edge: str, batch: Batch) -> Batch:
        """Return a batch whose withdrawn images are rejected.

        Raises:
            Transient: if the object store is away for too long.

        """
        withdrawn = await self._stores.retried(edge, partial(self._withdrawn, edge))
        out = [image for image in batch.images if withdrawn.covers(image.key, image.sha256)]
        if not out:
            return batch
        kept = tuple(image for image in batch.images if not withdrawn.covers(image.key, image.sha256))
        rejected = tuple(RejectedEntry(image.name, WITHDRAWN_REASON) for image in out)
        return replace(batch, images=kept, rejected=batch.rejected + rejected)

    async def begin(self, edge: str, batch: Batch) -> Receipt:
        """Write what is to be stored, unless an earlier receipt says that it is; return that or this one.

        Raises:
            Transient: if the object store is away for too long.

        """
        receipt = Receipt(
            state="pending",
            edge=edge,
            batch=batch.id,
            size=batch.size,
            ignored=batch.ignored,
            uploads=0,
            received=times.now(),
            completed="",
            images=tuple(_image(image, "pending", image.key) for image in batch.images)
            + tuple(_rejected(image) for image in batch.rejected),
        )

        async def attempt() -> Receipt:
            self._stores.check_prepared(edge)
            earlier, etag = await self._receipt(edge, batch.id)
            # Another feeder may have been quicker: what is done stays done.
            if earlier is not None and earlier.state == "done":
                return earlier
            begun = receipt.following(earlier)
            await self._write(begun, etag)
            return begun

        return await self._stores.retried(edge, attempt)

    async def store(
        self, edge: str, batch: Batch, one_stored: Callable[[], None]
    ) -> tuple[ImageReceipt, ...]:
        """Put every image where it belongs; a repeat finds it there, and one that S3 refuses is rejected.

        Args:
            edge: the edge that the bucket belongs to.
            batch: the images.
            one_stored: called for each image that was not there before.

        Raises:
            Transient: if the object store is away for too long.

        """
        results: list[ImageReceipt | None] = [None] * len(batch.images)

        async def put(numbered: tuple[int, Labelled]) -> None:
            number, image = numbered
            try:
                placed = await self._put(edge, image)
            except (s3.Unstorable, s3.NamesTaken) as exc:
                log.warning("image refused by the object store", key=image.key, error=str(exc))
                reason = _REFUSED if isinstance(exc, s3.Unstorable) else _NAMES_TAKEN
                results[number] = _rejected(RejectedEntry(image.name, reason))
                return
            results[number] = _image(image, "stored" if placed.new else "duplicate", placed.key, placed.etag)
            if placed.new:
                one_stored()

        await for_each(enumerate(batch.images), put, at_once=self._at_once)
        return tuple(result for result in results if result is not None)

    async def finish(self, begun: Receipt, batch: Batch, placed: tuple[ImageReceipt, ...]) -> None:
        """Write what became of each image; two that finish the same batch are both counted.

        Raises:
            Transient: if the object store is away for too long.

        """
        receipt = Receipt(
            state="done",
            edge=begun.edge,
            batch=batch.id,
            size=batch.size,
            ignored=batch.ignored,
            uploads=1,
            received=begun.received,
            completed=times.now(),
            images=placed + tuple(_rejected(image) for image in batch.rejected),
        )

        async def attempt() -> None:
            earlier, etag = await self._receipt(begun.edge, batch.id)
            await self._write(receipt.following(earlier), etag)

        await self._stores.retried(begun.edge, attempt)

    async def _put(self, edge: str, image: Labelled) -> s3.Placed:
        async def put() -> s3.Placed:
            # Twice its size: what has the name already is read to be compared. It is given back between two
            # tries, so that a bucket that refuses is in no other's way.
            async with self._budget.take(2 * image.size, edge):
                try:
                    content = await asyncio.to_thread(image.read)
                except BadInput as exc:
                    raise Transient(f"{image.name!r} was read once and cannot be read again") from exc
                facts = {"Content-Type": image.media_type}
                return await s3.put_new(self._stores[edge], image.key, content, facts)

        return await self._stores.retried(edge, put)

    async def _receipt(self, edge: str, batch: str) -> tuple[Receipt | None, str | None]:
        """Return a receipt, and the ETag that replacing it needs."""
        try:
            raw, etag = await s3.read_with_etag(self._stores[edge], receipt_key(batch))
        except FileNotFoundError:
            return None, None
        try:
            return await asyncio.to_thread(Receipt.from_json, raw), etag
        except NotAReceipt as exc:
            log.warning("what lies in a receipt's place is replaced", batch=batch, error=str(exc))
            return None, etag

    async def _write(self, receipt: Receipt, etag: str | None) -> None:
        raw = await asyncio.to_thread(receipt.to_json)
        if not await s3.replace(self._stores[receipt.edge], receipt_key(receipt.batch), raw, etag):
            raise Transient("another feeder wrote the receipt meanwhile")

    async def _withdrawn(self, edge: str) -> Withdrawn:
        self._stores.check_prepared(edge)
        try:
            return await read_withdrawn(self._stores[edge])
        except FileNotFoundError as exc:
            raise s3.BucketMissing(f"the bucket with the data of {edge} is missing") from exc


def _image(image: Labelled, outcome: Outcome, key: str, etag: str = "") -> ImageReceipt:
    return ImageReceipt(image.name, outcome, key=key, sha256=image.sha256, size=image.size, etag=etag)


def _rejected(image: RejectedEntry) -> ImageReceipt:
    return ImageReceipt(image.name, "rejected", reason=image.reason)
