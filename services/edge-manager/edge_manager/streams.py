"""Objects as streams of pieces: bounded memory, and an end to every silence."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import obstore
from obstore.store import ObjectStore

from caravan.errors import Permanent
from edge_manager.versions import Wanted

if TYPE_CHECKING:
    from obstore import GetOptions

PIECE = 2**16
"""Bytes that are handed on at once: what a link that breaks loses at most, 8 s of one of 64 kbit/s."""


HASHED_HERE = 2**19
"""Bytes that are hashed without a thread, to hand which over takes as long as hashing 300 kB does."""


class Mismatch(Permanent):
    """The bytes are not those that were promised."""


async def stretch(
    store: ObjectStore, key: str, start: int, end: int, e_tag: str | None
) -> AsyncIterator[bytes]:
    """Stream bytes `start` to `end` of an object in one request, provided that it still has this ETag."""
    options: GetOptions = {"range": (start, end)}
    if e_tag is not None:
        options["if_match"] = e_tag
    result = await obstore.get_async(store, key, options=options)
    async for content in result.stream(min_chunk_size=PIECE):
        yield bytes(content)


async def verified(pieces: AsyncIterator[bytes], wanted: Wanted) -> AsyncIterator[bytes]:
    """Pass pieces on while hashing them.

    Raises:
        Mismatch: at the end, before the consumer could finish, if size or SHA-256 differ; a stream that is
            too long is cut at once.

    """
    digest, size = hashlib.sha256(), 0
    async for content in pieces:
        size += len(content)
        if size > wanted.size:
            break
        await _hash(digest, content)
        yield content
    if size != wanted.size:
        raise Mismatch(f"{wanted.path!r} is not of {wanted.size} bytes")
    if wanted.sha256 is not None and digest.hexdigest() != wanted.sha256.lower():
        raise Mismatch(f"{wanted.path!r} has SHA-256 {digest.hexdigest()}; the manifest says {wanted.sha256}")


async def _hash(digest: hashlib._Hash, content: bytes) -> None:
    if len(content) > HASHED_HERE:
        await asyncio.to_thread(digest.update, content)
    else:
        digest.update(content)


async def digest_of(pieces: AsyncIterator[bytes]) -> str:
    """Return the SHA-256 of a stream, in hex."""
    digest = hashlib.sha256()
    async for content in pieces:
        await _hash(digest, content)
    return digest.hexdigest()


async def in_one(content: bytes) -> AsyncIterator[bytes]:
    """Give content that is in memory as a stream."""
    yield content
