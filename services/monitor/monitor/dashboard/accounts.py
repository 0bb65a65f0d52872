"""The account of promise 5 for each edge: computed when asked for, and kept for some seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from obstore.store import ObjectStore

from caravan.books import read_account
from caravan.errors import Unavailable
from caravan.receipts import Account

KEPT_SECONDS = 10.0
COUNT_SECONDS = 60.0
MOST_KEYS = 20


class Accounts:
    """Accounts, one at a time for each edge, however many ask.

    Args:
        stores: the data bucket of each edge.

    """

    def __init__(self, stores: Mapping[str, ObjectStore]) -> None:
        self._stores = stores
        self._turns = {edge: asyncio.Lock() for edge in stores}
        self._kept: dict[str, tuple[float, dict[str, Any]]] = {}

    async def of(self, edge: str) -> dict[str, Any]:
        """Return the account of an edge, as it is or was some seconds ago.

        Raises:
            Unavailable: if there is no bucket, or it takes too long.
            CaravanError: if the store is away, or a receipt cannot be read.

        """
        async with self._turns[edge]:
            clock = asyncio.get_running_loop().time
            until, answer = self._kept.get(edge, (0.0, {}))
            if clock() >= until:
                try:
                    async with asyncio.timeout(COUNT_SECONDS):
                        answer = as_json(edge, await read_account(self._stores[edge]))
                except FileNotFoundError as exc:
                    raise Unavailable(f"the bucket with the data of {edge} is not there") from exc
                except TimeoutError as exc:
                    raise Unavailable("the account takes too long to add up", 504) from exc
                self._kept[edge] = clock() + KEPT_SECONDS, answer
            return answer


def as_json(edge: str, books: Account) -> dict[str, Any]:
    """Return what is shown of an account; of keys the first few, and how many there are."""
    return {
        "edge": edge,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "adds_up": books.adds_up,
        "captured": books.captured,
        "stored": books.stored,
        "duplicates": books.duplicates,
        "rejected": books.rejected,
        "pending": books.pending,
        "withdrawn": books.withdrawn,
        **{kind: {"count": len(keys), "keys": keys[:MOST_KEYS]} for kind, keys in books.faults.items()},
    }
