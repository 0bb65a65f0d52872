"""Central's `E-ready`, read only: nothing here can write or delete."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress

import obstore
from obstore.exceptions import PreconditionError
from obstore.store import ObjectStore

from caravan import s3, tracing
from caravan.contracts import MANIFEST, MODELS
from caravan.errors import CaravanError, Transient
from caravan.retry import retried
from edge_manager.streams import PIECE, piece
from edge_manager.tf_index import Readable
from edge_manager.versions import Listed, Offered, offers

LISTING_SECONDS = 15
TRACE_SECONDS = 3
PIECE_SECONDS = 20
"""A break of the link shorter than this does not end a copy."""
IN_MEMORY = 8 * 2**20


class CentralAway(Transient):
    """Central does not answer, or not as it should; the edge goes on without it."""


class Central:
    """The versions that central offers this edge."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def offers(self) -> dict[str, tuple[Offered, ...]]:
        """Return what is offered, by model, newest first.

        Raises:
            CentralAway: if the listing is not had within the deadline.

        """
        with _away():
            async with asyncio.timeout(LISTING_SECONDS):
                return offers(
                    [
                        (entry["path"], entry["size"], entry["e_tag"])
                        async for entry in s3.listing(self._store, MODELS)
                    ]
                )

    async def read(self, offered: Offered, file: Listed) -> bytes:
        """Read a small file whole.

        Raises:
            CentralAway: also if the file has changed since it was listed.

        """
        key = offered.ref.key(file.path)
        return b"".join([content async for content in self.pieces(key, file.size, file.e_tag)])

    async def trace(self, offered: Offered) -> dict[str, str]:
        """Return what the metadata of a version's manifest say of the trace that made it; maybe nothing."""
        if not tracing.is_on():
            return {}
        with suppress(CaravanError, FileNotFoundError, TimeoutError):
            async with asyncio.timeout(TRACE_SECONDS):
                return await s3.facts(self._store, offered.ref.key(MANIFEST))
        return {}

    async def open(self, offered: Offered, file: Listed) -> Readable:
        """Open a file for reading anywhere in it, from a thread; a large one is not held in memory."""
        if file.size <= IN_MEMORY:
            return io.BytesIO(await self.read(offered, file))
        with _away(), s3.translated(f"read {file.path}"):
            return obstore.open_reader(self._store, offered.ref.key(file.path), size=file.size)

    async def pieces(self, key: str, size: int, e_tag: str | None) -> AsyncIterator[bytes]:
        """Stream an object; a piece that fails is asked for again, until its deadline.

        Raises:
            CentralAway: also if the object has changed since it was listed.

        """
        for start in range(0, size, PIECE):
            end = min(start + PIECE, size)

            async def attempt(start: int = start, end: int = end) -> bytes:
                with s3.translated(f"read {key}"):
                    return await piece(self._store, key, start, end, e_tag)

            with _away():
                content = await retried(attempt, to="s3-central", within=PIECE_SECONDS)
            yield content


@contextmanager
def _away() -> Iterator[None]:
    try:
        yield
    except (PreconditionError, FileNotFoundError) as exc:
        raise CentralAway("a file changed while it was read") from exc
    except TimeoutError as exc:
        raise CentralAway(f"no answer within {LISTING_SECONDS} s") from exc
    except CaravanError as exc:
        raise CentralAway(str(exc)) from exc
