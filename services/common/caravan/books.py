"""The account of an edge at central: every receipt, set against every image in its data bucket."""

from __future__ import annotations

import asyncio

from obstore.store import ObjectStore

from caravan import s3
from caravan.contracts import IMAGES
from caravan.receipts import UPLOADS, Account, Receipt, account

LOOKS = 3
"""An upload that goes on between listing receipts and images blurs one look, hardly three."""
AT_ONCE = 16


async def read_account(store: ObjectStore) -> Account:
    """Add up what an edge's data bucket holds.

    Raises:
        Transient: if the store is away.
        Permanent: if a receipt cannot be read.
        FileNotFoundError: if there is no such bucket.

    """
    for _ in range(LOOKS):
        receipts = await _receipts(store)
        keys = [entry["path"] async for entry in s3.listing(store, IMAGES)]
        books = await asyncio.to_thread(account, receipts, keys)
        if books.adds_up:
            break
    return books


async def _receipts(store: ObjectStore) -> list[Receipt]:
    places = asyncio.Semaphore(AT_ONCE)

    async def receipt(key: str) -> Receipt:
        async with places:
            raw = await s3.read(store, key)
            # A hundred thousand images in one receipt take a moment.
            return await asyncio.to_thread(Receipt.from_json, raw)

    keys = [entry["path"] async for entry in s3.listing(store, UPLOADS)]
    return await asyncio.gather(*map(receipt, keys))
