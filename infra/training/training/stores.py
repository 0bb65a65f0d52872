"""The three buckets of an edge, or of a group of edges, and the files of a run on disk."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from obstore.store import ObjectStore

from caravan import strict_json
from caravan.concurrency import for_each
from caravan.contracts import data_bucket, models_bucket, ready_bucket
from caravan.errors import Permanent
from caravan.files import write_file
from caravan.groups import sources
from caravan.s3 import open_bucket
from caravan.withdrawn import Withdrawn, read_withdrawn
from training.settings import TrainingSettings

EDGES_AT_ONCE = 8
"""Most edges of a group that are asked or told side by side."""


@dataclass(frozen=True)
class Stores:
    """An edge's buckets at central: training images, every version, versions for the edge; and its id.

    Those of a group are named like an edge's. Images it has none of its own, but those of its `members`, to
    which a version goes by `rings` (read by `caravan.rollout`), or to all at once if there are none.

    Attributes:
        learns_from: the edges whose images are learnt from, if these are not the members, or the edge alone.
        aside: classes of its images that are not learnt from, see `caravan.groups.sources`.

    """

    data: ObjectStore
    models: ObjectStore
    ready: ObjectStore
    edge: str
    members: "tuple[Stores, ...]" = ()
    rings: str = ""
    learns_from: "tuple[Stores, ...]" = ()
    aside: frozenset[str] = frozenset()

    @property
    def member_edges(self) -> tuple[str, ...]:
        """The ids of the members, in their order."""
        return tuple(member.edge for member in self.members)

    @property
    def sources(self) -> "tuple[Stores, ...]":
        """The edges whose images are learnt from."""
        return self.learns_from or self.members or (self,)

    @property
    def own(self) -> frozenset[str]:
        """Classes that one edge has for itself, this or another: not all that is learnt from teaches them."""
        return frozenset[str]().union(*(source.aside for source in self.sources))

    async def withdrawn(self) -> Withdrawn:
        """Return what was taken out of the images, at whichever edge.

        Raises:
            Transient: if the store is away.
            FileNotFoundError: if a bucket of images is not there.

        """
        found: list[Withdrawn] = []

        async def read(source: Stores) -> None:
            found.append(await read_withdrawn(source.data))

        await for_each(self.sources, read, at_once=EDGES_AT_ONCE)
        return Withdrawn.of_all(found)


def open_stores(settings: TrainingSettings, owner: str) -> Stores:
    """Return handles on the buckets of an edge, or of a group; nothing is sent before their first use."""
    learns_from = sources(owner, settings.edge_groups, settings.edge_products)
    return replace(
        _opened(settings, owner),
        members=tuple(_opened(settings, edge) for edge in settings.sharing.get(owner, ())),
        rings=settings.rollout,
        learns_from=tuple(_opened(settings, edge, aside) for edge, aside in learns_from.items()),
    )


def _opened(settings: TrainingSettings, edge: str, aside: frozenset[str] = frozenset()) -> Stores:
    buckets = (bucket_of(edge) for bucket_of in (data_bucket, models_bucket, ready_bucket))
    data, models, ready = (open_bucket(settings.central, name) for name in buckets)
    return Stores(data, models, ready, edge, aside=aside)


def write_json(path: Path, value: Any) -> None:
    """Write JSON; it is on the disk when this returns."""
    write_file(path, json.dumps(value, indent=1, sort_keys=True).encode())


def read_json(path: Path) -> Any:
    """Read JSON; raises Permanent if the file is missing or broken: the step that writes it has to run."""
    try:
        return strict_json.loads(path.read_bytes())
    except FileNotFoundError as exc:
        raise Permanent(f"{path} is missing: run the step before this one first") from exc
    except ValueError as exc:
        raise Permanent(f"{path} cannot be read: {exc}") from exc
