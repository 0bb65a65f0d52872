"""Review: lists the images that wait for a word from people, and carries out what they say."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, Protocol
from weakref import WeakValueDictionary

import structlog
from obstore.store import ObjectStore

from caravan import s3
from caravan.contracts import DATA, IMAGES, OTHER, REJECTED, UNCLASSIFIED, image_key
from caravan.errors import Unavailable
from shopper import metrics
from shopper.quality.notes import Audit
from shopper.review.decisions import BUCKETS, Decision, RecordedOpinion, Ref, Waiting, facts, is_image, why

log = structlog.get_logger()

LOOK_SECONDS = 20.0
MOST_LOOKED_AT = 1000
"""Most images whose metadata is read for one page; a page may be shorter, and names the next."""
AT_ONCE = 32
"""Metadata requests side by side."""
MOST_REMEMBERED = 50_000
"""Most images remembered as not needing review."""
MOVED_AT_ONCE = 4
"""Most images in memory while decisions are carried out."""

Outcome = Literal["taught", "discarded", "gone"]


class Audits(Protocol):
    """The answers that were drawn to be looked at, whatever they were."""

    async def audits(self) -> list[Audit]:
        """Return those that wait for a label."""
        ...

    async def said(self, image: str, item: str) -> None:
        """Note what an image shows; `other` where it is no product."""
        ...


@dataclass(frozen=True, slots=True)
class ReviewPage:
    """Images that wait: audits, then by product, oldest first; `last` is where to go on, None at the end."""

    waiting: Sequence[Waiting]
    last: Ref | None


class ReviewQueue:
    """Reads the buckets `unclassified` and `valid`, and moves out of them what was decided.

    An image is written where it belongs first, under the name it had, and only then taken out: a crash in
    between shows it once more, and deciding it again the same way changes nothing.

    Args:
        stores: stores of the buckets `data`, `valid` and `unclassified`, by name.
        model: the one that training images are for.
        certain_score: least score of a known answer that needs no review, 0..1.
        audits: knows which answers were drawn; they come first, their product not told.

    """

    def __init__(
        self, stores: Mapping[str, ObjectStore], model: str, certain_score: float, audits: Audits
    ) -> None:
        self._stores = stores
        self._model = model
        self._certain_score = certain_score
        self._audits = audits
        self._not_wanted: OrderedDict[Ref, None] = OrderedDict()
        self._deciding: WeakValueDictionary[Ref, asyncio.Lock] = WeakValueDictionary()
        self._moving = asyncio.Semaphore(MOVED_AT_ONCE)

    async def page(self, after: Ref | None, most: int) -> ReviewPage:
        """Return at most `most` images after one of an earlier page, from the first on where it is None.

        Raises:
            Transient: if the object store is away, or too slow.

        """
        looked_at = 0
        last: Ref | None = None
        async with _in_time():
            drawn = {Ref.parse(audit.image): audit for audit in await self._audits.audits()}
            # Half of the first page: there is always a way on to the others.
            found = await self._drawn(drawn, most // 2) if after is None else []
            async for entries in self._batches(after, drawn):
                looked_at += len(entries)
                for ref, waiting in zip(entries, await self._look(entries), strict=True):
                    last = ref
                    if waiting is not None:
                        found.append(waiting)
                    if len(found) == most:
                        return ReviewPage(found, last)
                if looked_at >= MOST_LOOKED_AT:
                    return ReviewPage(found, last)
        return ReviewPage(found, None)

    async def image(self, ref: Ref) -> bytes:
        """Return an image as it is kept.

        Raises:
            FileNotFoundError: if it waits no longer.
            Transient: if the object store is away, or too slow.

        """
        async with _in_time():
            return await s3.read(self._stores[ref.bucket], ref.key)

    async def decide(self, decisions: Sequence[Decision], who: str, at: datetime) -> list[Outcome]:
        """Carry decisions out; `gone` are images that someone decided before.

        Raises:
            Transient: if the object store is away, or too slow; some may be done then, and to send all of
                them again does no harm.

        """
        moves = (self._carry_out(decision, who, at) for decision in decisions)
        async with _in_time():
            outcomes = await asyncio.gather(*moves, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        return [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]

    # --- looking ------------------------------------------------------------------------------------

    async def _batches(self, after: Ref | None, drawn: Collection[Ref]) -> AsyncIterator[dict[Ref, datetime]]:
        buckets = BUCKETS[BUCKETS.index(after.bucket) :] if after else BUCKETS
        for bucket in buckets:
            start = after.key if after and after.bucket == bucket else ""
            batch: dict[Ref, datetime] = {}
            async for entry in s3.listing(self._stores[bucket], IMAGES, after=start):
                ref = Ref(bucket, entry["path"])
                if is_image(ref.key) and ref not in self._not_wanted and ref not in drawn:
                    batch[ref] = entry["last_modified"]
                if len(batch) == AT_ONCE:
                    yield batch
                    batch = {}
            if batch:
                yield batch

    async def _drawn(self, drawn: Mapping[Ref, Audit], most: int) -> list[Waiting]:
        found: list[Waiting] = []
        for ref, audit in drawn.items():
            if len(found) == most:
                break
            try:
                opinion = RecordedOpinion.of(await s3.facts(self._stores[ref.bucket], ref.key))
            except FileNotFoundError:
                continue  # decided, or still on its way to the store
            found.append(
                Waiting(ref, datetime.fromtimestamp(audit.at, UTC), audit.why, opinion, audit.answers)
            )
        return found

    async def _look(self, entries: Mapping[Ref, datetime]) -> list[Waiting | None]:
        return await asyncio.gather(*(self._look_at(ref, at) for ref, at in entries.items()))

    async def _look_at(self, ref: Ref, at: datetime) -> Waiting | None:
        try:
            opinion = RecordedOpinion.of(await s3.facts(self._stores[ref.bucket], ref.key))
        except FileNotFoundError:
            return None  # someone decided it since it was listed
        reason = why(ref, opinion, self._model, self._certain_score)
        if reason is None:
            self._not_wanted[ref] = None
            while len(self._not_wanted) > MOST_REMEMBERED:
                self._not_wanted.popitem(last=False)
            return None
        return Waiting(ref, at, reason, opinion)

    # --- deciding -----------------------------------------------------------------------------------

    async def _carry_out(self, decision: Decision, who: str, at: datetime) -> Outcome:
        ref, product = decision.ref, decision.product
        # Two people at one image: the second finds it gone.
        async with self._deciding.setdefault(ref, asyncio.Lock()), self._moving:
            try:
                content, before = await s3.read_with_facts(self._stores[ref.bucket], ref.key)
            except FileNotFoundError:
                return "gone"
            bucket, key = (
                (DATA, image_key(product.item, ref.file)) if product else (UNCLASSIFIED, REJECTED + ref.key)
            )
            attributes = {"Content-Type": before.get("Content-Type", "image/jpeg")}
            attributes |= facts(decision, before, who, at)
            try:
                await s3.put_new(self._stores[bucket], key, content, attributes)
            except s3.BucketMissing as exc:
                raise Unavailable(f"bucket {bucket} is missing") from exc
            await s3.delete(self._stores[ref.bucket], [ref.key])
        await self._audits.said(str(ref), product.item if product else OTHER)
        outcome: Outcome = "taught" if product else "discarded"
        metrics.IMAGES_REVIEWED.labels(outcome).inc()
        log.info("image reviewed", image=str(ref), outcome=outcome, by=who)
        return outcome


@asynccontextmanager
async def _in_time() -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            yield
    except TimeoutError as exc:
        raise Unavailable(f"the images were not there within {LOOK_SECONDS:.0f} s") from exc
