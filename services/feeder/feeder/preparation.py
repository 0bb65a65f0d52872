"""The buckets and topics that the feeder needs are made, and made again should someone remove them."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from functools import partial

from caravan import kafka_topics, s3
from caravan.contracts import TRIGGER, central_buckets, dead_letter, events_topic, group_buckets
from caravan.errors import Permanent, Transient
from caravan.retry import forever
from feeder.settings import FeederSettings

LOOK_AGAIN_SECONDS = 120
HANG_SECONDS = 10.0
"""After the start: then an edge whose buckets hang is waited for no more before the feeder is ready."""


class Preparation:
    """Makes them; an edge whose buckets refuse, or hang, is in no other's way.

    Attributes:
        missing: events per edge and group of edges, set as long as its buckets or topics are not there;
            whoever finds that one is gone sets it.

    """

    def __init__(self, settings: FeederSettings) -> None:
        self._settings = settings
        self._has_topics = asyncio.Event()
        self.missing = {owner: asyncio.Event() for owner in (*settings.edges, *settings.sharing)}
        for event in self.missing.values():
            event.set()
        self._untried = set(self.missing)
        self._waits_until = time.monotonic() + HANG_SECONDS

    async def check(self) -> None:
        """Check that uploads can be stored: each edge's buckets are there, or refused once, or hang.

        Raises:
            Transient: if not, or if there are those of no edge.

        """
        missing = [owner for owner, event in self.missing.items() if event.is_set()]
        is_beginning = bool(self._untried) and time.monotonic() < self._waits_until
        if is_beginning or len(missing) == len(self.missing):
            raise Transient(f"the buckets and topics are not made yet: {len(missing)} of {len(self.missing)}")

    async def run(self) -> None:
        """Make what is not there, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(forever("topics", self._keep_topics))
            for owner in self.missing:
                tasks.create_task(forever("buckets", partial(self._keep_buckets, owner)))

    async def _keep_topics(self) -> None:
        topics = [*map(events_topic, self._settings.edges)]
        while True:
            await kafka_topics.ensure_topics(self._settings, [TRIGGER, dead_letter(TRIGGER)])
            self._has_topics.set()  # events are best effort
            await kafka_topics.ensure_topics(self._settings, [*topics, *map(dead_letter, topics)])
            await asyncio.sleep(LOOK_AGAIN_SECONDS)

    async def _keep_buckets(self, owner: str) -> None:
        names = group_buckets(owner) if owner in self._settings.sharing else central_buckets(owner)
        missing = self.missing[owner]
        while True:
            try:
                await s3.ensure_buckets(self._settings.central, names)
                await self._has_topics.wait()
                missing.clear()
            except Permanent as exc:  # rights can be mended while we run
                raise Transient(str(exc)) from exc
            finally:
                self._untried.discard(owner)
            with suppress(TimeoutError):
                await asyncio.wait_for(missing.wait(), LOOK_AGAIN_SECONDS)
