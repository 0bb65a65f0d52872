"""A partition's log as the broker keeps it: which of its objects go, and which become one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

SETTLED_SECONDS = 5.0
"""What was written in the last seconds is left alone: consumers are reading it, producers fill its gaps."""
MERGE_FROM = 300
"""Fewest small objects that are worth a merge. A fetch lists them all: 1,000 cost it 20 ms."""
SHORTEST_RUN = 8
SMALL_BYTES, SMALL_MESSAGES = 512 * 1024, 500
MERGED_BYTES, MERGED_MESSAGES = 2**20, 2000
"""Most of a merged object; ordinary consumers ask for 1 MiB at once."""
MOST_OBJECTS = 5000
"""Most objects of a partition whose messages were read: it bounds what a fetch lists."""


@dataclass(frozen=True, slots=True)
class Retention:
    """What a partition keeps at least, of what every group has read; `seconds` holds for the rest as well."""

    seconds: float
    bytes: int
    messages: int
    objects: int = MOST_OBJECTS


@dataclass(frozen=True, slots=True)
class Segment:
    """An object of the log, with the messages from an offset on to the next object's.

    `written` is in seconds since 1970, when the object was written, and not always its messages: merging
    writes anew.
    """

    offset: int
    size: int
    written: float


def expendable(
    log: Sequence[Segment], end: int, limits: Retention, now: float, unread: int | None = None
) -> int:
    """Return how many of the oldest objects are to go.

    The broker takes a log's earliest offset from the object that was written first. So the log is cut only
    before one that was written no later than all that follow, and the last object stays.

    Args:
        log: the objects by offset.
        end: the offset after the last message.
        limits: what is kept.
        now: seconds since 1970.
        unread: the first offset that some consumer group has not read.

    """
    if not log:
        return 0
    # Merging may write an object anew after younger ones: a message is no younger than what follows it.
    youngest = list(accumulate((segment.written for segment in reversed(log)), min))[::-1]
    size = sum(segment.size for segment in log)
    cut = 0
    for index, (segment, following) in enumerate(pairwise(log)):
        size -= segment.size
        expired = youngest[index] < now - limits.seconds
        over = (
            size >= limits.bytes
            or end - following.offset >= limits.messages
            or len(log) - index > limits.objects
        )
        is_read = unread is None or following.offset <= unread
        if not expired and not (over and is_read):
            break
        if following.written <= youngest[index + 1]:
            cut = index + 1
    return cut


def mergeable(log: Sequence[Segment], now: float, apart: frozenset[int] = frozenset()) -> Iterator[slice]:
    """Yield the ranges of objects that each become one; none before enough has come together.

    Never the first object: written anew it would no longer be the earliest.

    Args:
        log: the objects by offset.
        now: seconds since 1970.
        apart: offsets of objects that cannot be merged.

    """
    runs: list[range] = []
    start = 1
    for index in range(1, len(log)):
        segment = log[index]
        if (
            index == len(log) - 1
            or segment.written > now - SETTLED_SECONDS
            or segment.size >= SMALL_BYTES
            or log[index + 1].offset - segment.offset >= SMALL_MESSAGES
            or segment.offset in apart
        ):
            runs.append(range(start, index))
            start = index + 1
    runs = [run for run in runs if len(run) >= SHORTEST_RUN]
    if sum(map(len, runs)) >= MERGE_FROM:
        for run in runs:
            yield from _groups(log, run)


def _groups(log: Sequence[Segment], run: range) -> Iterator[slice]:
    start, size = run.start, 0
    for index in run:
        size += log[index].size
        messages = log[index + 1].offset - log[start].offset
        if index > start and (size > MERGED_BYTES or messages > MERGED_MESSAGES):
            if index - start > 1:
                yield slice(start, index)
            start, size = index, log[index].size
    if run.stop - start > 1:
        yield slice(start, run.stop)
