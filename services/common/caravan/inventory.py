"""What an edge's data bucket lists: receipts, what is withdrawn, and the images, page by page."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import IO

from obstore.store import ObjectStore

from caravan import s3
from caravan.contracts import IMAGES
from caravan.errors import Transient
from caravan.receipts import UPLOADS, receipt_key
from caravan.withdrawn import Withdrawn, read_withdrawn


class PageFile:
    """Pages of a listing that wait in a file, 250 kB for each thousand images."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._sizes: list[int] = []

    def add(self, page: bytes) -> None:
        """Add a page. Raises Transient if there is no room for it."""
        try:
            self._sizes.append(self._file.write(page))
        except OSError as exc:
            raise Transient(f"there is no room for a listing in {tempfile.gettempdir()}: {exc}") from exc

    def __iter__(self) -> Iterator[bytes]:
        self._file.seek(0)
        return map(self._file.read, self._sizes)


@dataclass(frozen=True, slots=True)
class Inventory:
    """What a bucket lists.

    Attributes:
        receipts: tag and time of each receipt in `uploads/`, by batch.
        withdrawn: withdrawn contents.
        images: pages of their listing as the server wrote them; see `s3.raw_pages`.
        digest: hash of all of this, with ETag, size and time of each image.

    """

    receipts: Mapping[str, tuple[str, datetime]]
    withdrawn: Withdrawn
    images: PageFile
    digest: str


@asynccontextmanager
async def take_inventory(store: ObjectStore) -> AsyncIterator[Inventory]:
    """List a bucket, receipts first: an image that comes meanwhile is in one that was written before it.

    Raises:
        CaravanError: if the store is away, or refuses us.
        FileNotFoundError: if there is no such bucket.

    """
    receipts, withdrawn = await list_receipts(store), await read_withdrawn(store)
    digest = hashlib.sha256(repr((sorted(receipts.items()), withdrawn.keys)).encode())
    with tempfile.TemporaryFile() as file:
        images = PageFile(file)
        async for page in s3.raw_pages(store, IMAGES):
            digest.update(page)
            images.add(page)
        yield Inventory(receipts, withdrawn, images, digest.hexdigest())


async def list_receipts(store: ObjectStore) -> dict[str, tuple[str, datetime]]:
    """Return a tag and the time of each receipt in `uploads/`, by batch.

    Raises:
        CaravanError: if the store is away, or refuses us.
        FileNotFoundError: if there is no such bucket.

    """
    listed: dict[str, tuple[str, datetime]] = {}
    for entry in await s3.listed(store, UPLOADS):
        batch = entry["path"].removeprefix(UPLOADS).removesuffix(".json")
        if entry["path"] == receipt_key(batch):
            tag = entry["e_tag"] or f"{entry['last_modified'].isoformat()} {entry['size']}"
            listed[batch] = tag, entry["last_modified"]
    return listed
