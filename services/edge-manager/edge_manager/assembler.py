"""Puts a file together from pieces: those that the edge holds, in whatever version, and those that it lacks.

Every piece is held against its name before it is used: one that is damaged here is fetched from central.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby

import structlog

from caravan.contracts import MANIFEST
from caravan.errors import CaravanError
from caravan.manifest import Manifest
from caravan.pieces import LONGEST, MOST_BYTES, PIECES, Piece, from_manifest, name_of
from edge_manager import metrics
from edge_manager.central import Central
from edge_manager.sinks import Sink
from edge_manager.streams import Mismatch, digest_of
from edge_manager.versions import Complete, Ref, Wanted

log = structlog.get_logger()

GAP = 4 * 2**10
"""Bytes that are fetched though they are held, between two that are missing: less than a request costs."""
BLOCK = 2**20
"""Bytes of a file here that are read in one request."""
KEPT = 16 * 2**20
"""Bytes of fetched pieces that are kept in memory, for another file and for another try."""
MOST_VERSIONS = 50
"""Held versions that are looked through."""

PiecesOf = dict[tuple[str, Ref], Mapping[str, Sequence[Piece]]]
"""The pieces of each file of a version, by the name of the sink that has it."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a piece lies at the edge."""

    sink: Sink
    ref: Ref
    path: str
    piece: Piece

    @property
    def file(self) -> tuple[str, Ref, str]:
        """In which file it is."""
        return self.sink.name, self.ref, self.path

    async def read(self, start: int, end: int) -> bytes:
        """Return bytes from the start of the piece on; fewer, or none, if they are not there."""
        with suppress(CaravanError):
            return await self.sink.read(self.ref, self.path, self.piece.start + start, self.piece.start + end)
        return b""


@dataclass(slots=True)
class Fetched:
    """Pieces of one version that came from central, by their name, so that none comes twice."""

    fingerprint: str = ""
    pieces: dict[str, bytes] = field(default_factory=dict)
    size: int = 0

    def keep(self, name: str, content: bytes) -> None:
        """Keep a piece, if there is room."""
        if name not in self.pieces and self.size + len(content) <= KEPT:
            self.pieces[name] = content
            self.size += len(content)


class Assembler:
    """Makes the files of one version.

    Args:
        central: where it is offered.
        version: which one.
        held: where the pieces are that the edge holds, by their name.
        fetched: what came of it before.

    """

    def __init__(
        self, central: Central, version: Complete, held: Mapping[str, Place], fetched: Fetched
    ) -> None:
        self._central = central
        self._version = version
        self._held = held
        self._fetched = fetched

    async def content(self, wanted: Wanted) -> AsyncIterator[bytes]:
        """Stream a file.

        Raises:
            Mismatch: if a piece that central sent is not what it is said to be.
            CentralAway: if central broke off.

        """
        pieces = self._version.pieces
        if wanted.path == PIECES and pieces.raw is not None:
            yield pieces.raw
            return
        for is_here, run in groupby(
            self._planned(pieces.of.get(wanted.path, ()), wanted), lambda one: one[1]
        ):
            parts = [piece for piece, _ in run]
            if not is_here:
                async for content in self._fetch(wanted, parts):
                    yield content
                continue
            for stretch in self._stretches(parts):
                async for content in self._taken(wanted, stretch):
                    yield content

    def _planned(self, pieces: Collection[Piece], wanted: Wanted) -> list[tuple[Piece, bool]]:
        """Tell of each piece whether it is taken from here."""
        if not pieces:
            return [(Piece(0, wanted.size, ""), False)]
        here = [(piece, piece.name in self._fetched.pieces or piece.name in self._held) for piece in pieces]
        planned: list[tuple[Piece, bool]] = []
        for is_here, run in groupby(here, lambda one: one[1]):
            parts = [piece for piece, _ in run]
            is_gap = parts[0].start > 0 and parts[-1].end < wanted.size
            is_gap = is_gap and parts[-1].end - parts[0].start <= GAP
            planned += [(piece, is_here and not is_gap) for piece in parts]
        return planned

    def _stretches(self, parts: Iterable[Piece]) -> list[list[Piece]]:
        """Gather pieces that lie beside each other here, so that they are read at once."""
        found: list[list[Piece]] = []
        for piece in parts:
            if found and self._are_beside(found[-1], piece):
                found[-1].append(piece)
            else:
                found.append([piece])
        return found

    def _are_beside(self, before: list[Piece], piece: Piece) -> bool:
        first, last, place = (self._place(one) for one in (before[0], before[-1], piece))
        if first is None or last is None or place is None or place.file != last.file:
            return False
        return place.piece.start == last.piece.end and place.piece.end - first.piece.start <= LONGEST

    def _place(self, piece: Piece) -> Place | None:
        return None if piece.name in self._fetched.pieces else self._held.get(piece.name)

    async def _taken(self, wanted: Wanted, parts: list[Piece]) -> AsyncIterator[bytes]:
        """Stream pieces that are here, beside each other; from central what is here no longer."""
        place = self._place(parts[0])
        if place is None:
            yield self._fetched.pieces[parts[0].name]
            return
        if place.piece.size > LONGEST:
            # A whole file that was never cut is read twice rather than held in memory.
            if await digest_of(_blocks(place)) == (wanted.sha256 or "").lower():
                async for content in _blocks(place):
                    yield content
                return
            raw = b""
        else:
            raw = await place.read(0, parts[-1].end - parts[0].start)
        for piece in parts:
            content = raw[piece.start - parts[0].start : piece.end - parts[0].start]
            if name_of(content) == piece.name:
                yield content
                continue
            log.warning("piece damaged at the edge, fetched", version=str(place.ref), path=place.path)
            async for fresh in self._fetch(wanted, [piece]):
                yield fresh

    async def _fetch(self, wanted: Wanted, parts: list[Piece]) -> AsyncIterator[bytes]:
        """Stream pieces that lie beside each other from central, in one request."""
        stream = self._central.pieces(self._version, wanted, parts[-1].end, parts[0].start)
        if any(piece.size > LONGEST or not piece.name for piece in parts):
            async for content in stream:  # a whole file, which is held against its SHA-256
                metrics.FETCHED_BYTES.inc(len(content))
                yield content
            return
        left, some = deque(parts), bytearray()
        async for content in stream:
            metrics.FETCHED_BYTES.inc(len(content))
            some += content
            while left and len(some) >= left[0].size:
                piece = left.popleft()
                whole = bytes(some[: piece.size])
                del some[: piece.size]
                if name_of(whole) == piece.name:
                    self._fetched.keep(piece.name, whole)
                elif piece.size != wanted.size:  # what is wrong with a whole file, its SHA-256 tells
                    where = f"bytes {piece.start} to {piece.end} of {wanted.path!r}"
                    raise Mismatch(f"{where} are not the piece that {PIECES} names")
                yield whole


async def _blocks(place: Place) -> AsyncIterator[bytes]:
    for start in range(0, place.piece.size, BLOCK):
        yield await place.read(start, min(start + BLOCK, place.piece.size))


async def pieces_held(versions: Iterable[tuple[Sink, Ref]], known: PiecesOf) -> dict[str, Place]:
    """Return where the pieces of versions are, by their name; of what cannot be read there are none.

    Args:
        versions: whole ones, in the order in which they are tried.
        known: the pieces of versions that were read before; it is brought up to date.

    """
    held = {(sink.name, ref): sink for sink, ref in list(versions)[:MOST_VERSIONS]}
    for gone in known.keys() - held.keys():
        del known[gone]
    found: dict[str, Place] = {}
    for (name, ref), sink in held.items():
        if (name, ref) not in known:
            with suppress(CaravanError):
                raw = await sink.read(ref, MANIFEST, 0, MOST_BYTES)
                told = await sink.read(ref, PIECES, 0, MOST_BYTES)
                known[name, ref] = from_manifest(Manifest.from_json(raw), told or None).of
        for path, parts in known.get((name, ref), {}).items():
            for piece in parts:
                found.setdefault(piece.name, Place(sink, ref, path, piece))
    return found
