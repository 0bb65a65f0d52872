"""What a version was made of: kept beside it in `E-models`, and nowhere else.

    models/<model>/<version>/members.jsonl.gz

    {"schema": 1, "seed": 0, "settings": {…}, "libraries": {"tensorflow": "2.21.0", …}, …}
    ["learnt", "tea-green", "<SHA-256>"]
    ["held-out", "tea-green", "<SHA-256>"]

The first line has the facts, each other one an image: what became of it, its class, the SHA-256 of its
content. The manifest names the SHA-256 of the whole as `metrics.members`, so its signature covers that; it is
none of the manifest's files: an edge has no use for a list of all photos, nor its link for some 40 bytes for
each of them.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from obstore.store import ObjectStore

from caravan import s3, strict_json
from caravan.contracts import version_prefix
from caravan.errors import Permanent
from caravan.names import as_class

SCHEMA = 1
MEMBERS = "members.jsonl.gz"
FACT = "members"
"""Key of the members file's SHA-256 in a manifest's metrics."""
LONGEST_LINE = 2**20

Role = Literal["learnt", "held-out"]
Image = tuple[str, str]
"""Class, and SHA-256 of the content."""
Member = tuple[Role, str, str]
"""What a version did with an image: its use, its class, and the SHA-256 of its content."""

UNPACKED_AT_ONCE = 2**16


def members_key(model: str, version: int) -> str:
    """Key of the members of a version, in `E-models`."""
    return version_prefix(model, version) + MEMBERS


def write_members(
    path: Path, facts: Mapping[str, Any], learnt: Iterable[Image], asked: Iterable[Image]
) -> None:
    """Write the members of a version to a file: from which it learnt, and those that it was judged with.

    The same members give the same bytes.
    """
    roles: Mapping[Role, Iterable[Image]] = {"held-out": asked, "learnt": learnt}
    with path.open("wb") as raw, gzip.GzipFile("", "wb", 6, raw, mtime=0) as target:
        target.write(json.dumps({"schema": SCHEMA, **facts}, sort_keys=True).encode() + b"\n")
        for role, images in roles.items():
            for image in sorted(set(images)):
                member = (role, *image)
                target.write(json.dumps(member, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")


async def _lines(store: ObjectStore, key: str, sha256: str) -> AsyncIterator[list[bytes]]:
    """Yield the lines of a file of members, some thousands at a time, the first one first.

    Raises:
        FileNotFoundError: if it is not there.
        Permanent: at the end, if it is not the one with this SHA-256, or before, if it cannot be read.

    """
    digest, unpacked, rest = hashlib.sha256(), zlib.decompressobj(zlib.MAX_WBITS | 16), b""
    try:
        async for piece in s3.pieces(store, key):
            digest.update(piece)
            left = piece
            while left and not unpacked.eof:
                *lines, rest = (rest + unpacked.decompress(left, UNPACKED_AT_ONCE)).split(b"\n")
                left = unpacked.unconsumed_tail
                if len(rest) > LONGEST_LINE:
                    raise Permanent(f"{key} has a line of more than {LONGEST_LINE} bytes")
                yield lines
    except zlib.error as exc:
        raise Permanent(f"{key} cannot be unpacked: {exc}") from exc
    if digest.hexdigest() != sha256:
        raise Permanent(f"{key} is not what its manifest says")


async def find_members(store: ObjectStore, key: str, sha256: str, contents: Collection[str]) -> list[Member]:
    """Return the members with these contents, by SHA-256, out of a file with a SHA-256; in bounded memory.

    Raises:
        FileNotFoundError: if it is not there.
        Permanent: if it is not what its manifest says.

    """
    endings, found = tuple(f'"{content}"]'.encode() for content in contents), list[Member]()
    async for lines in _lines(store, key, sha256):
        found += [_member(key, line) for line in lines if line.endswith(endings)]
    return found


async def read_members(store: ObjectStore, key: str, sha256: str) -> AsyncIterator[Member]:
    """Yield the members out of a file with a SHA-256.

    Raises:
        FileNotFoundError: if it is not there.
        Permanent: if it is not what its manifest says; at the end, when all were yielded.

    """
    async for lines in _lines(store, key, sha256):
        for line in lines:
            if line.startswith(b"["):
                yield _member(key, line)


def _member(key: str, line: bytes) -> Member:
    try:
        role, item, sha256 = strict_json.loads(line)
    except (ValueError, TypeError) as exc:
        raise Permanent(f"{key} has a line that is no member") from exc
    return role, as_class(str(item)), str(sha256)
