"""Bodies that come packed: `Content-Encoding: gzip` or `deflate`."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator

from starlette.datastructures import Headers

from caravan.errors import BadInput

TAKEN = "gzip, deflate"
STEP = 2**18
"""Bytes unpacked before other tasks get their turn."""

_EITHER, _RAW = zlib.MAX_WBITS + 32, -zlib.MAX_WBITS
_NAMES = frozenset({"gzip", "x-gzip", "deflate"})
_HEADER = 2


def encoding_of(headers: Headers) -> str:
    """Return how a body is packed by the word of its headers; empty if it comes as it is."""
    listed = ",".join(headers.getlist("content-encoding")).lower().split(",")
    return ", ".join(name for name in map(str.strip, listed) if name not in {"", "identity"})


async def unpacked(chunks: AsyncIterator[bytes], encoding: str) -> AsyncIterator[bytes]:
    """Yield a body as it was before it was packed, in parts of at most `STEP` bytes if it was.

    Args:
        chunks: the body as it comes.
        encoding: as `encoding_of` returns it.

    Raises:
        BadInput: 415 for an encoding that is not taken, 400 if the body is not what it says.

    """
    if not encoding:
        async for chunk in chunks:
            yield chunk
        return
    if encoding not in _NAMES:
        raise BadInput(
            f"a body comes as it is, or with Content-Encoding: {TAKEN}", 415, reason="wrong-encoding"
        )
    first = b""
    unpack = None
    try:
        async for chunk in chunks:
            packed = first + chunk
            if unpack is None and len(packed) < _HEADER:
                first = packed
                continue
            first = b""
            # Some send deflate without the frame that is meant by it.
            unpack = unpack or zlib.decompressobj(
                _RAW if _is_bare(packed) and encoding == "deflate" else _EITHER
            )
            while packed:
                if unpack.eof:  # gzip comes in several members too
                    unpack = zlib.decompressobj(_EITHER)
                yield unpack.decompress(packed, STEP)
                packed = unpack.unused_data if unpack.eof else unpack.unconsumed_tail
                await asyncio.sleep(0)
    except zlib.error as exc:
        raise BadInput(f"the body is not {encoding}", reason="wrong-encoding") from exc
    if first or (unpack is not None and not unpack.eof):
        raise BadInput(f"the body is not {encoding}, or not all of it", reason="wrong-encoding")


def _is_bare(packed: bytes) -> bool:
    """Tell whether there is no header of zlib's (RFC 1950, 2.2)."""
    return packed[0] & 0x0F != zlib.DEFLATED or int.from_bytes(packed[:_HEADER], "big") % 31 != 0
