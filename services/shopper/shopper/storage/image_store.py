"""Keeping images: in the object store, or on the local disk until it is back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import NoReturn

import structlog
from obstore.store import ObjectStore

from caravan import s3
from caravan.contracts import image_key
from caravan.errors import Permanent, Transient
from caravan.retry import forever
from caravan.telemetry import CIRCUIT_OPEN
from shopper import metrics
from shopper.ports import Capture
from shopper.storage.spool import ImageSpool

log = structlog.get_logger()

AWAY_SECONDS = 5.0
"""Seconds for which a store that failed is not tried."""

_ITS_OWN_FAULT = (s3.Unstorable, s3.NamesTaken)

MILLISECOND = timedelta(milliseconds=1)
MOST_AHEAD = timedelta(seconds=10)
"""How far a name's time may lie ahead of the clock, as with a thousand images a second."""


def key(capture: Capture) -> str:
    """Return `images/<item>/<YYYY-MM-DD_HH-MM-SS-mmm>.jpg`, in UTC."""
    return image_key(capture.item, f"{_stamp(capture.at)}.jpg")


class BufferedImageStore:
    """Puts images into the edge's buckets; each is created once and never overwritten.

    When the store does not take an image within the deadline, this one and those of the next seconds go to
    the spool, so that a store that is away slows nobody down. The loop `drain` empties the spool, and by
    that finds out sooner that the store is back. An image that went both ways is one object: same key, same
    content. One that the store refuses for its own sake stays in the spool's folder under another name.

    Args:
        buckets: stores by bucket.
        make_buckets: makes those that are missing.
        spool: keeps images on the disk while the store is away.
        within: seconds that a sender waits for the store.

    """

    def __init__(
        self,
        buckets: Mapping[str, ObjectStore],
        make_buckets: Callable[[], Awaitable[None]],
        spool: ImageSpool,
        within: float,
    ) -> None:
        self._buckets = buckets
        self._make_buckets = make_buckets
        self._spool = spool
        self._within = within
        self._away_until = 0.0
        self._buckets_missing = True
        self._latest = datetime.min.replace(tzinfo=UTC)

    async def keep(self, capture: Capture) -> str:
        """Return the image's key once it is in its bucket, or on the disk.

        Raises:
            Unavailable: 507 if the store is away and the spool is full.

        """
        capture = replace(capture, at=self._own_millisecond(capture.at))
        name = key(capture)
        clock = asyncio.get_running_loop().time
        if clock() >= self._away_until:
            try:
                async with asyncio.timeout(self._within):
                    await self._put(name, capture)
            except _ITS_OWN_FAULT:
                pass  # Nothing is wrong with the store; `drain` puts this one aside.
            except (Transient, Permanent, TimeoutError) as exc:
                self._away_until = clock() + AWAY_SECONDS
                CIRCUIT_OPEN.labels("s3").set(1)
                log.warning("object store away, images go to the spool", error=str(exc) or repr(exc))
            else:
                CIRCUIT_OPEN.labels("s3").set(0)
                metrics.IMAGES_KEPT.labels(capture.bucket, "store").inc()
                return name
        await self._spool.add(capture)
        metrics.IMAGES_KEPT.labels(capture.bucket, "spool").inc()
        return name

    async def drain(self) -> NoReturn:
        """Carry the spool into the buckets whenever the store answers; to be run as a task."""
        await forever("spool", self._drain)

    async def _drain(self) -> None:
        try:
            if self._buckets_missing:
                await self._reach()
                await self._make_buckets()
                self._buckets_missing = False
            while True:
                name, capture = await self._spool.oldest()
                try:
                    await self._put(key(capture), capture)
                except _ITS_OWN_FAULT as exc:
                    await self._spool.refuse(name, str(exc))
                    metrics.IMAGES_KEPT.labels(capture.bucket, "refused").inc()
                else:
                    await self._spool.remove(name)
                self._away_until = 0.0
                CIRCUIT_OPEN.labels("s3").set(0)
                if not len(self._spool):
                    log.info("spool is empty again")
        except (Permanent, OSError) as exc:
            # Rights, and a disk, can be mended while we run; until then the images are safe here.
            raise Transient(str(exc)) from exc

    async def _reach(self) -> None:
        # Making buckets is costly to try; so not while nobody answers.
        with suppress(FileNotFoundError):
            await s3.read(next(iter(self._buckets.values())), "ping")

    def _own_millisecond(self, at: datetime) -> datetime:
        # Two of this process never ask for one key: stores let one of them wait a second for the other.
        # With another process they may, and then the content decides.
        at = at.replace(microsecond=at.microsecond // 1000 * 1000)
        follows = self._latest + MILLISECOND
        # A clock that was ahead once, and was set back, must not name all that comes after.
        self._latest = at if follows - at > MOST_AHEAD else max(at, follows)
        return self._latest

    async def _put(self, name: str, capture: Capture) -> None:
        if capture.bucket not in self._buckets:
            raise s3.Unstorable(f"there is no bucket {capture.bucket!r} here")
        attributes = {"Content-Type": "image/jpeg", **capture.facts}
        try:
            await s3.put_new(self._buckets[capture.bucket], name, capture.image, attributes)
        except s3.BucketMissing:
            self._buckets_missing = True
            raise


def _stamp(at: datetime) -> str:
    return f"{at:%Y-%m-%d_%H-%M-%S}-{at.microsecond // 1000:03}"
