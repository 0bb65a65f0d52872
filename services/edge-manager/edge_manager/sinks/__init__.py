"""Where versions go at the edge: a bucket, a directory, or both."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from typing import Protocol

from caravan.errors import Transient
from edge_manager.versions import Ref, Wanted

Held = dict[str, dict[int, bool]]
"""By model and version, whether the version is whole, that is, whether its entry file is there."""


class NoRoom(Transient):
    """A version does not fit into a sink now."""


class Sink(Protocol):
    """A place for versions. Every call may be repeated, and raises `Transient` where the place is away."""

    @property
    def name(self) -> str:
        """Name for logs and metrics."""
        ...

    @property
    def models_config(self) -> str:
        """Where the model server finds which models there are."""
        ...

    async def open(self) -> None:
        """Make the place ready, once, before anything else."""
        ...

    async def check(self) -> None:
        """Check that the place can be reached."""
        ...

    async def held(self) -> Held:
        """Return the versions in place, whole or not; what is staged or hidden aside is not among them."""
        ...

    async def room(self, ref: Ref) -> int | None:
        """Return how many bytes a version may have, with what is there of it; None if that is not known."""
        ...

    async def leftovers(self, ref: Ref) -> frozenset[str]:
        """Return the paths of what earlier attempts have left of a version that is not visible."""
        ...

    async def has(self, ref: Ref, wanted: Wanted) -> bool:
        """Tell whether a file is there with the right size and SHA-256, from an attempt that broke off."""
        ...

    async def read(self, ref: Ref, path: str, start: int, end: int) -> bytes:
        """Return bytes of a file of a version that is visible; fewer, or none, where the file has no more."""
        ...

    async def put(self, ref: Ref, path: str, size: int, pieces: AsyncIterator[bytes]) -> None:
        """Write one file; nothing is to be seen of it if `pieces` raises.

        Raises:
            NoRoom: if it does not fit.

        """
        ...

    async def keep_only(self, ref: Ref, paths: Collection[str]) -> None:
        """Remove what else lies there of a version that is not visible yet."""
        ...

    async def publish(self, ref: Ref) -> None:
        """Make the version visible, all its files being there."""
        ...

    async def remove(self, ref: Ref) -> None:
        """Remove a version, whole or not, so that it is never seen in part."""
        ...

    async def hide(self, ref: Ref) -> None:
        """Take a version out of sight, as if it were not there; `has` finds its files again."""
        ...

    async def configure(self, models: Mapping[str, Collection[int]]) -> None:
        """Tell the model server which models there are, at once and only if that is new.

        With each go the versions that it is to serve; where none is named, it takes the newest.
        """
        ...
