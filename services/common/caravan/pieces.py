"""The pieces of a version's files, by which an edge knows what it holds already, wherever that lies.

`assets.extra/pieces.json` is a file of the version, so the manifest vouches for it, and who does not know
of it copies it as any other:

    {"files": {"variables/variables.data-00000-of-00001": [[7180, "<32 hex digits>"], …], …}, "schema": 1}

The pieces of a file tile it, in order. A file that is not in it is one piece. What names a piece is the first
half of its SHA-256: it only finds bytes, the manifest's SHA-256 of the whole file vouches for them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from caravan import strict_json
from caravan.errors import Permanent
from caravan.manifest import Manifest
from caravan.names import cut

PIECES = "assets.extra/pieces.json"
MOST_BYTES = 4 * 2**20
LONGEST = 4 * 2**20
"""Most bytes of a piece: one is held in memory while it is verified."""
LEAST = 16 * 2**10
"""Fewest bytes of an array that is a piece of its own; smaller neighbours form one piece."""
_SCHEMA = 1
_NAME = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes `start` to `end` of a file, and what names them."""

    start: int
    end: int
    name: str

    @property
    def size(self) -> int:
        """In bytes."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Pieces:
    """The pieces of each file of a version, by its path; `raw` is the file that says so, if there is one."""

    of: Mapping[str, tuple[Piece, ...]] = field(default_factory=dict)
    raw: bytes | None = None


def name_of(content: bytes) -> str:
    """Return what names a piece."""
    return hashlib.sha256(content).hexdigest()[:32]


def to_json(files: Mapping[str, tuple[bytes, Iterable[int]]]) -> bytes | None:
    """Return the file that tells the pieces; None where each file is one.

    Args:
        files: content, and the places where it is cut, of each file by its path.

    """
    found = {path: _tiles(content, seams) for path, (content, seams) in sorted(files.items())}
    several = {path: tiles for path, tiles in found.items() if len(tiles) > 1}
    if not several:
        return None
    body = {"schema": _SCHEMA, "files": several}
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _tiles(content: bytes, seams: Iterable[int]) -> list[tuple[int, str]]:
    places = sorted({0, len(content), *(seam for seam in seams if 0 < seam < len(content))})
    tiles = []
    for start, end in pairwise(places):
        for first in range(start, end, LONGEST):
            part = content[first : min(first + LONGEST, end)]
            tiles.append((len(part), name_of(part)))
    return tiles


def from_manifest(manifest: Manifest, raw: bytes | None) -> Pieces:
    """Return the pieces of all files of a version.

    Args:
        manifest: the version's.
        raw: its `assets.extra/pieces.json`, if it has one.

    Raises:
        Permanent: if they are not those of its files.

    """
    told = {} if raw is None else _told(raw)
    sizes = {file.path: file.size for file in manifest.files}
    if unknown := sorted(told.keys() - sizes.keys()):
        raise Permanent(f"{PIECES} is of {cut(unknown[0])!r}, which the manifest does not name")
    found = {}
    for file in manifest.files:
        if file.path in told:
            found[file.path] = _tiled(file.path, file.size, told[file.path])
        else:
            found[file.path] = (Piece(0, file.size, file.sha256.lower()[:32]),)
    return Pieces(found, raw)


def _told(raw: bytes) -> dict[str, object]:
    try:
        body = strict_json.loads_object(raw)
    except strict_json.NotJson as exc:
        raise Permanent(f"{PIECES} cannot be read: {exc}") from exc
    files = body.get("files")
    if body.get("schema") != _SCHEMA or not isinstance(files, dict):
        raise Permanent(f"{PIECES} has not schema {_SCHEMA}")
    return files


def _tiled(path: str, size: int, tiles: object) -> tuple[Piece, ...]:
    found, start = [], 0
    for tile in tiles if isinstance(tiles, list) else [None]:
        match tile:
            case [int(length), str(name)] if _is_piece(length, name):
                found.append(Piece(start, start + length, name))
                start += length
            case _:
                raise Permanent(f"{PIECES} has what is no piece of {path!r}: {cut(repr(tile), 80)}")
    if start != size:
        raise Permanent(f"the pieces of {path!r} have {start} bytes together, and the file {size}")
    return tuple(found)


def _is_piece(length: int, name: str) -> bool:
    return length is not True and 0 < length <= LONGEST and _NAME.fullmatch(name) is not None
