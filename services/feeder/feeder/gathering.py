"""Images that came one by one, gathered into batches; pure, times are seconds."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from aiokafka import TopicPartition
from prometheus_client import Gauge

from feeder.checks import Batch, Labelled

GATHERED = Gauge("caravan_feeder_gathered_images", "Images from Kafka that wait for their batch")


@dataclass(slots=True)
class Gathered:
    """Images of one edge that wait to be fed.

    Attributes:
        edge: its id.
        due: when they are fed at the latest.
        images: in the order in which they came.
        size: bytes of all of them.
        first: the offset of the first of them in each partition.

    """

    edge: str
    due: float
    images: list[Labelled] = field(default_factory=list)
    size: int = 0
    first: dict[TopicPartition, int] = field(default_factory=dict)

    def batch(self) -> Batch:
        """Return them as a batch; its id is made of what it holds, so that a repeat has the same."""
        lines = sorted(f"{image.key} {image.sha256}\n" for image in self.images)
        digest = hashlib.sha256("".join(lines).encode()).hexdigest()
        return Batch(digest, self.size, tuple(self.images), rejected=(), ignored=0)


class Gathering:
    """A batch for each edge, which is due when it has so many images, is so old, or all have so many bytes.

    Args:
        count: images of a batch.
        seconds: from its first image to its end.
        size: bytes of all batches in memory.

    """

    def __init__(self, count: int, seconds: float, size: int) -> None:
        self._count = count
        self._seconds = seconds
        self._size = size
        self._waiting: dict[str, Gathered] = {}
        self._positions: dict[TopicPartition, int] = {}
        self._committed: dict[TopicPartition, int] = {}

    def add(self, edge: str, image: Labelled, partition: TopicPartition, offset: int, now: float) -> None:
        """Take an image, which came as this message."""
        gathered = self._waiting.setdefault(edge, Gathered(edge, due=now + self._seconds))
        gathered.images.append(image)
        gathered.size += image.size
        gathered.first.setdefault(partition, offset)
        self._tell()
        self.passed(partition, offset)

    def passed(self, partition: TopicPartition, offset: int) -> None:
        """Note that this message needs nothing more than what was added."""
        self._positions[partition] = offset + 1

    def due(self, now: float) -> list[Gathered]:
        """Return those to be fed now."""
        full = sum(gathered.size for gathered in self._waiting.values()) >= self._size
        return [
            gathered
            for gathered in self._waiting.values()
            if full or gathered.due <= now or len(gathered.images) >= self._count
        ]

    def next_due(self, now: float, *, at_most: float) -> float:
        """Return the seconds until the next is due by its age, between 0 and `at_most`."""
        return max(0.0, min([at_most, *(gathered.due - now for gathered in self._waiting.values())]))

    def fed(self, gathered: Gathered) -> None:
        """Forget a batch: it is safe."""
        del self._waiting[gathered.edge]
        self._tell()

    def _tell(self) -> None:
        GATHERED.set(sum(len(gathered.images) for gathered in self._waiting.values()))

    def to_commit(self) -> Mapping[TopicPartition, int]:
        """Return, of the partitions where that has moved, the offset before which everything is safe."""
        offsets = {
            partition: min(
                [position, *(g.first[partition] for g in self._waiting.values() if partition in g.first)]
            )
            for partition, position in self._positions.items()
        }
        moved = {p: offset for p, offset in offsets.items() if self._committed.get(p) != offset}
        self._committed |= moved
        return moved
