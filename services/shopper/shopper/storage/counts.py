"""How many training images wait in the bucket `data`, by product."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable

from obstore.store import ObjectStore

from caravan import s3
from caravan.contracts import IMAGES, image_of
from caravan.errors import Unavailable

LIST_SECONDS = 10.0
FRESH_SECONDS = 1.0
SHARE = 5
"""A count is kept this many times as long as it took, so that counting is a small part of the work."""


class TrainingCounts:
    """Counts by listing the bucket, at most about once a second however many ask.

    Args:
        store: the bucket `data`.
        clock: seconds, only ever growing.

    """

    def __init__(self, store: ObjectStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._one_at_a_time = asyncio.Lock()
        self._counted: Counter[str] = Counter()
        self._good_until = float("-inf")

    async def __call__(self) -> Counter[str]:
        """Return how many wait, by item.

        Raises:
            Transient: if the object store is away.

        """
        async with self._one_at_a_time:
            if self._clock() >= self._good_until:
                await self._count()
        return self._counted

    async def _count(self) -> None:
        begin = self._clock()
        counted: Counter[str] = Counter()
        try:
            async with asyncio.timeout(LIST_SECONDS):
                async for entry in s3.listing(self._store, IMAGES):
                    if place := image_of(entry["path"]):
                        counted[place[0]] += 1
        except TimeoutError as exc:
            raise Unavailable(f"the training images could not be counted in {LIST_SECONDS:.0f} s") from exc
        except FileNotFoundError as exc:
            raise Unavailable("the bucket for training images is missing") from exc
        end = self._clock()
        self._counted = counted
        self._good_until = end + max(FRESH_SECONDS, SHARE * (end - begin))
