"""Images that an operator took out of an edge's data, for privacy or for a wrong label: they stay out.

A tombstone in `E-data` says so for good, and its key says it all; what is in it is for people.

    withdrawn/<SHA-256>.json            this content, under whatever name
    withdrawn/<class>/<SHA-256>.json    this content under this class; under another it may come again
    withdrawn-batches/<batch>.json      this batch vouches for no image any more

The feeder rejects such content, with this reason; the account counts it as withdrawn, wherever a receipt
mentions it; training passes it over and forgets what it kept of it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from obstore.store import ObjectStore

from caravan import s3
from caravan.contracts import class_of
from caravan.names import as_class

WITHDRAWN = "withdrawn/"
BATCHES = "withdrawn-batches/"
REASON = "withdrawn by an operator"

_TOMBSTONE = re.compile(rf"{WITHDRAWN}(?:([^/]+)/)?([0-9a-f]{{64}})\.json")


class Withdrawn:
    """Contents that were taken out.

    Args:
        everywhere: SHA-256 of those that are withdrawn under whatever name.
        labels: class and SHA-256 of those that are withdrawn from one class.

    """

    def __init__(self, everywhere: Collection[str] = (), labels: Collection[tuple[str, str]] = ()) -> None:
        self.everywhere = frozenset(everywhere)
        self.labels = frozenset(labels)

    @classmethod
    def of_all(cls, several: Iterable[Withdrawn]) -> Withdrawn:
        """Return what any of them has."""
        found = list(several)
        return cls(
            {sha256 for each in found for sha256 in each.everywhere},
            {label for each in found for label in each.labels},
        )

    def __len__(self) -> int:
        return len(self.everywhere) + len(self.labels)

    @property
    def keys(self) -> list[str]:
        """The keys of their tombstones, in order."""
        labels = [tombstone_key(sha256, item) for item, sha256 in self.labels]
        return sorted([*map(tombstone_key, self.everywhere), *labels])

    def covers(self, key: str, sha256: str) -> bool:
        """Tell whether content under a key is withdrawn."""
        return sha256 in self.everywhere or (bool(self.labels) and (class_of(key), sha256) in self.labels)

    def gone(self, there: Collection[str]) -> frozenset[str]:
        """Return the contents of which nothing is to be kept, given those that are still there."""
        return self.everywhere.union(sha256 for _, sha256 in self.labels if sha256 not in there)


def tombstone_key(sha256: str, item: str = "") -> str:
    """Key of the tombstone of content: everywhere, or in one class."""
    return f"{WITHDRAWN}{item}/{sha256}.json" if item else f"{WITHDRAWN}{sha256}.json"


def batch_tombstone_key(batch: str) -> str:
    """Key of the tombstone of a batch."""
    return f"{BATCHES}{batch}.json"


async def read_withdrawn_batches(store: ObjectStore) -> frozenset[str]:
    """Return the ids of the batches that were withdrawn.

    Raises:
        Transient: if the store is away.
        FileNotFoundError: if there is no such bucket.

    """
    keys = [entry["path"] for entry in await s3.listed(store, BATCHES)]
    return frozenset(key.removeprefix(BATCHES).removesuffix(".json") for key in keys)


async def read_withdrawn(store: ObjectStore) -> Withdrawn:
    """Return what was taken out of an edge's data; none of it is read, the keys are enough.

    Raises:
        Transient: if the store is away.
        FileNotFoundError: if there is no such bucket.

    """
    everywhere: set[str] = set()
    labels: set[tuple[str, str]] = set()
    for entry in await s3.listed(store, WITHDRAWN):
        match = _TOMBSTONE.fullmatch(entry["path"])
        if match is None:
            continue
        if match[1]:
            labels.add((as_class(match[1]), match[2]))
        else:
            everywhere.add(match[2])
    return Withdrawn(everywhere, labels)
