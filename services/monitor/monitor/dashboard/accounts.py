"""The account of promise 5 for each edge: computed when asked for, and kept for some seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from obstore.store import ObjectStore

from caravan import times
from caravan.account import read_account
from caravan.errors import Unavailable
from caravan.receipts import Account

KEPT_SECONDS = 10.0
SHARE = 20
"""An account is kept this many times as long as it took, so that accounting is a small part of the work."""
COUNT_SECONDS = 60.0
MOST_KEYS = 20


class Accounts:
    """Accounts, one at a time for each edge, however many ask.

    Args:
        stores: the data bucket of each edge.

    """

    def __init__(self, stores: Mapping[str, ObjectStore]) -> None:
        self._stores = stores
        self._counting: dict[str, asyncio.Task[dict[str, Any]]] = {}
        self._kept: dict[str, tuple[float, dict[str, Any]]] = {}

    async def of(self, edge: str) -> dict[str, Any]:
        """Return the account of an edge, as it is or was some seconds ago.

        Raises:
            Unavailable: if there is no bucket, or it takes too long; then it goes on, for who asks again.
            CaravanError: if the store is away, or refuses us.

        """
        until, answer = self._kept.get(edge, (0.0, {}))
        if asyncio.get_running_loop().time() < until:
            return answer
        counting = self._counting.get(edge)
        if counting is None:
            counting = asyncio.create_task(self._count(edge), name=f"account of {edge}")
            self._counting[edge] = counting
            counting.add_done_callback(lambda _: self._counting.pop(edge))
        done, _ = await asyncio.wait([counting], timeout=COUNT_SECONDS)
        if not done:
            raise Unavailable("the account takes long to add up, and goes on: ask again", 504)
        return counting.result()

    async def _count(self, edge: str) -> dict[str, Any]:
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            answer = as_json(edge, await read_account(self._stores[edge]))
        except FileNotFoundError as exc:
            raise Unavailable(f"the bucket with the data of {edge} is not there") from exc
        self._kept[edge] = clock() + max(KEPT_SECONDS, SHARE * (clock() - began)), answer
        return answer


def as_json(edge: str, account: Account) -> dict[str, Any]:
    """Return an account as shown: the first few keys, and their number."""
    return {
        "edge": edge,
        "at": times.now(),
        "adds_up": account.adds_up,
        "captured": account.captured,
        "stored": account.stored,
        "duplicates": account.duplicates,
        "rejected": account.rejected,
        "pending": account.pending,
        "withdrawn": account.withdrawn,
        **{kind: {"count": len(keys), "keys": keys[:MOST_KEYS]} for kind, keys in account.faults.items()},
    }
