"""Buckets of one kind, by owner: calls to them are tried again, and one that is gone is told of."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from obstore.store import ObjectStore

from caravan import s3
from caravan.errors import Transient
from caravan.retry import retried

T = TypeVar("T")


class Stores:
    """Buckets by their owners.

    Args:
        stores: the bucket of each owner.
        missing: events per owner, set as long as its buckets or topics are not there; told if one is gone.
        retry_seconds: seconds for which a call is tried while the object store is away.

    """

    def __init__(
        self, stores: Mapping[str, ObjectStore], missing: Mapping[str, asyncio.Event], retry_seconds: float
    ) -> None:
        self._stores = stores
        self._missing = missing
        self._retry_seconds = retry_seconds

    def __getitem__(self, owner: str) -> ObjectStore:
        """Return the bucket of an edge or group."""
        return self._stores[owner]

    def check_prepared(self, owner: str) -> None:
        """Check that buckets and topics of an owner are there.

        Raises:
            Transient: if not.

        """
        if self._missing[owner].is_set():
            raise Transient("the buckets and topics are not made yet")

    async def retried(self, owner: str, call: Callable[[], Awaitable[T]]) -> T:
        """Return what a call to an owner's bucket gives; one that finds it gone has it made again.

        Raises:
            Transient: if the object store is away for too long.

        """

        async def noticing() -> T:
            try:
                return await call()
            except s3.BucketMissing:
                self._missing[owner].set()  # and so it is made again
                raise

        return await retried(noticing, to="s3", within=self._retry_seconds)
