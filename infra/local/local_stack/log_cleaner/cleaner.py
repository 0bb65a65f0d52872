"""The loop over the broker's bucket: what was written since the last time is listed, the rest is known.

The broker keeps each batch that is produced as an object of its own, for ever, and lists a partition from its
beginning for every fetch that finds something. The layout is Tansu's:

    clusters/<cluster>/meta.json                                                     the topics
    clusters/<cluster>/topics/<topic>/partitions/<n>/watermark.json                  the end of a partition
    clusters/<cluster>/topics/<topic>/partitions/<n>/records/<offset>.batch          a batch
    clusters/<cluster>/groups/consumers/<group>/offsets/<topic>/partitions/<n>.json  what a group has read
"""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import obstore
import structlog
from obstore.exceptions import NotModifiedError
from obstore.store import ObjectStore
from prometheus_client import Counter, Gauge

from caravan.contracts import dead_letter
from caravan.errors import Transient
from caravan.pace import Pace
from caravan.s3 import translated
from caravan.strict_json import loads_object
from local_stack.log_cleaner.log import Retention, Segment, expendable, mergeable
from local_stack.log_cleaner.records import ApartError, merge

if TYPE_CHECKING:
    from obstore import GetOptions

log = structlog.get_logger()

BATCHES = Gauge(
    "caravan_kafka_log_batches",
    "Objects that a partition of the embedded broker consists of",
    ["topic", "partition"],
)
BYTES = Gauge("caravan_kafka_log_bytes", "Their size", ["topic", "partition"])
REMOVED = Counter(
    "caravan_kafka_log_removed_messages_total", "Messages removed by the retention", ["topic", "partition"]
)

TICK_SECONDS = 2.0
SELDOM_SECONDS = 15.0
"""How long nobody asks at most whether something came to a partition: few topics of many are busy, and each
question costs the store as much as to read a photo."""
LOOK_AGAIN_SECONDS = 5.0
"""A partition is looked at again after so long, though nothing came: it grows older."""
FEW = 10
"""So few messages between two questions are no reason to ask more often: edges tell each minute."""
OVERLAP_SECONDS = 60.0
"""A batch may appear after a later one: what was written in the last seconds is listed once more."""
STALE_SECONDS = 60.0
"""How long the cleaner stays ready without a whole round."""
AT_ONCE = 16

ODD = (ValueError, KeyError, TypeError, AttributeError)
"""What reading a document raises that is not the broker's, or of another version."""

_BATCH = re.compile(r"/([0-9]{20})\.batch\Z")


class LogCleaner:
    """Keeps every partition of a cluster short."""

    def __init__(
        self, store: ObjectStore, cluster: str, limits: Retention, clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._root = f"clusters/{cluster}"
        self._limits = limits
        self._clock = clock
        self._meta = _Document(store, f"{self._root}/meta.json")
        self._partitions: dict[str, _Partition] = {}
        self._pace = Pace(TICK_SECONDS)
        self._last = float("-inf")
        """When the last round ended, by the loop's clock, which nobody sets."""

    async def run(self) -> None:
        """Go round for ever.

        Raises:
            Transient: if the store is away.

        """
        while True:
            await self.round(patient=True)
            await asyncio.sleep(self._pace.pause)

    async def round(self, *, patient: bool = False) -> None:
        """Look at each partition once; if `patient`, not at those that have been quiet and were just asked.

        Raises:
            Transient: if the store is away.

        """
        with translated("look after Kafka's log"):
            try:
                if await self._meta.changed():
                    await self._find()
            except ODD as exc:
                log.warning("the topics cannot be told: those known go on", error=repr(exc))
            for partition in self._partitions.values():
                if patient and not partition.is_due:
                    continue
                await partition.clean_or_tell(self._limits, self._clock())
                if partition.is_busy:
                    self._pace.stir()
        self._last = asyncio.get_running_loop().time()

    async def ping(self) -> None:
        """Check that the last round is not long ago.

        Raises:
            Transient: if it is.

        """
        if asyncio.get_running_loop().time() - self._last > STALE_SECONDS:
            raise Transient(f"no round within {STALE_SECONDS:.0f} s")

    async def _find(self) -> None:
        """Find the partitions; a topic that was made anew is another one."""
        topics: dict[str, Any] = self._meta.content.get("topics", {})
        found: dict[str, _Partition] = {}
        for name, topic in topics.items():
            for number in range(topic["topic"]["num_partitions"]):
                key = f"{topic['id']}/{number}"
                found[key] = self._partitions.get(key) or _Partition(self._store, self._root, name, number)
        for key in self._partitions.keys() - found.keys():
            self._partitions[key].forget()
        self._partitions = found


class _Partition:
    """What is known of a partition's log."""

    def __init__(self, store: ObjectStore, root: str, topic: str, number: int) -> None:
        self._store = store
        self._groups = f"{root}/groups/consumers/"
        self._path = f"{topic}/partitions/{number:010}"
        self._records = f"{root}/topics/{self._path}/records/"
        self._watermark = _Document(store, f"{root}/topics/{self._path}/watermark.json")
        self._labels = (topic, str(number))
        self._is_dead_letters = topic.endswith(dead_letter(""))
        self._log: list[Segment] = []
        self._apart: frozenset[int] = frozenset()
        self._looked = 0.0
        self._pace = Pace(TICK_SECONDS, longest=SELDOM_SECONDS)
        self._asked = -math.inf
        self.is_busy = False
        """Whether more than a few messages had come when it was last looked at."""
        self._is_odd = False
        self._tell()

    @property
    def is_due(self) -> bool:
        """Whether it is time to ask again whether something came."""
        return time.monotonic() >= self._asked + self._pace.pause

    @property
    def _end(self) -> int:
        """The offset after the last message."""
        end: int = self._watermark.content.get("high") or 0
        return end

    async def clean_or_tell(self, limits: Retention, now: float) -> None:
        """Remove and merge; what cannot be understood here leaves the other partitions alone."""
        try:
            await self.clean(limits, now)
        except ODD as exc:
            if not self._is_odd:
                log.warning(
                    "a log cannot be understood, and stays as it is", partition=self._path, error=repr(exc)
                )
            self._is_odd = True
        else:
            self._is_odd = False

    async def clean(self, limits: Retention, now: float) -> None:
        """Remove and merge, if something came or grew old."""
        self._asked = time.monotonic()
        before = self._end
        is_new = await self._watermark.changed()
        self.is_busy = is_new and self._end > before + FEW
        if self.is_busy:
            self._pace.stir()
        if is_new:
            await self._list()
        elif now < self._looked + LOOK_AGAIN_SECONDS:
            return
        self._looked = now
        try:
            await self._remove(limits, now)
            await self._merge(now)
        except FileNotFoundError:  # someone else removes too, perhaps the topic
            self._log, self._looked = [], 0.0
            self._watermark.forget()
        self._tell()

    def _tell(self) -> None:
        BATCHES.labels(*self._labels).set(len(self._log))
        BYTES.labels(*self._labels).set(sum(segment.size for segment in self._log))

    def forget(self) -> None:
        """Tell nothing more of it."""
        for metric in (BATCHES, BYTES):
            metric.remove(*self._labels)

    async def _list(self) -> None:
        """List what is new."""
        known = next(
            (
                index
                for index, segment in enumerate(self._log)
                if segment.written > self._looked - OVERLAP_SECONDS
            ),
            len(self._log),
        )
        del self._log[known:]
        after = self._key(self._log[-1]) if self._log else None
        async for page in self._store.list(self._records, offset=after):
            self._log.extend(
                Segment(offset, entry["size"], entry["last_modified"].timestamp())
                for entry in page
                if (offset := _offset(entry["path"])) is not None
            )
        self._log.sort(key=lambda segment: segment.offset)

    async def _remove(self, limits: Retention, now: float) -> None:
        if self._is_dead_letters:
            limits = replace(limits, seconds=math.inf)
        if not expendable(self._log, self._end, limits, now):
            return
        count = expendable(self._log, self._end, limits, now, await self._unread())
        if count:
            await self._delete(self._log[:count])
            messages = self._log[count].offset - self._log[0].offset
            del self._log[:count]
            self._apart &= {segment.offset for segment in self._log}
            REMOVED.labels(*self._labels).inc(messages)
            log.info("retention", partition=self._path, messages=messages, begins=self._log[0].offset)

    async def _unread(self) -> int | None:
        """Return the first offset that a group has not read; None if no group has read here.

        Dead letters wait for the group that sends them again, though it has read none yet.
        """
        groups = await obstore.list_with_delimiter_async(self._store, self._groups)
        offsets = await asyncio.gather(*(self._committed(group) for group in groups["common_prefixes"]))
        nobody = 0 if self._is_dead_letters else None
        return min((offset for offset in offsets if offset is not None), default=nobody)

    async def _committed(self, group: str) -> int | None:
        try:
            found = await _read(self._store, f"{group}/offsets/{self._path}.json")
        except FileNotFoundError:
            return None
        try:
            return int(loads_object(found)["offset"])
        except ODD as exc:
            log.warning("what a group has read cannot be told", group=group, error=repr(exc))
            return 0

    async def _merge(self, now: float) -> None:
        gone = 0
        for part in list(mergeable(self._log, now, self._apart)):
            start, stop = part.start - gone, part.stop - gone
            segments = self._log[start:stop]
            raw = await self._contents(segments)
            batches = [(segment.offset, content) for segment, content in zip(segments, raw, strict=True)]
            try:
                merged = await asyncio.to_thread(merge, batches, self._log[stop].offset)
            except ApartError as exc:
                log.info("left as it is", partition=self._path, reason=str(exc))
                self._apart |= {exc.offset}
                continue
            # Whoever dies in between leaves messages twice, not too few; the next merge finds them covered.
            await obstore.put_async(self._store, self._key(segments[0]), merged)
            await self._delete(segments[1:])
            self._log[start:stop] = [Segment(segments[0].offset, len(merged), now)]
            gone += len(segments) - 1

    async def _contents(self, segments: Sequence[Segment]) -> list[bytes]:
        places = asyncio.Semaphore(AT_ONCE)

        async def content(segment: Segment) -> bytes:
            async with places:
                return await _read(self._store, self._key(segment))

        return await asyncio.gather(*map(content, segments))

    async def _delete(self, segments: Sequence[Segment]) -> None:
        await obstore.delete_async(self._store, [self._key(segment) for segment in segments])

    def _key(self, segment: Segment) -> str:
        return f"{self._records}{segment.offset:020}.batch"


class _Document:
    """A JSON object of the broker's that is read again when it has changed."""

    def __init__(self, store: ObjectStore, path: str) -> None:
        self._store = store
        self._path = path
        self._tag: str | None = None
        self.content: dict[str, Any] = {}

    async def changed(self) -> bool:
        """Read it; tell whether it is another one than the last time."""
        options: GetOptions = {"if_none_match": self._tag} if self._tag else {}
        try:
            result = await obstore.get_async(self._store, self._path, options=options)
        except NotModifiedError:
            return False
        except FileNotFoundError:
            was, self._tag, self.content = self._tag, None, {}
            return was is not None
        self._tag = result.meta["e_tag"]
        self.content = loads_object(bytes(await result.bytes_async()))
        return True

    def forget(self) -> None:
        """Have it be read again."""
        self._tag = None


async def _read(store: ObjectStore, key: str) -> bytes:
    return bytes(await (await obstore.get_async(store, key)).bytes_async())


def _offset(key: str) -> int | None:
    """Return the offset that an object is named for; None for what others put there."""
    match = _BATCH.search(key)
    return int(match[1]) if match else None
