"""Copies a version from central into a sink, verifying every byte on the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection

from caravan.contracts import MANIFEST
from caravan.errors import CaravanError, Transient
from edge_manager import metrics
from edge_manager.assembler import Assembler
from edge_manager.sinks import Sink
from edge_manager.streams import in_one, verified
from edge_manager.versions import Complete, Ref, Wanted

FILES_AT_ONCE = 2
"""With what a sink holds of each, at most some 40 MB are in memory."""


async def copy_files(source: Assembler, version: Complete, sink: Sink, leftovers: Collection[str]) -> int:
    """Copy all of a version but its manifest and its entry file.

    A file that an earlier attempt has left, by size and SHA-256, is not copied again.

    Returns:
        The bytes copied.

    Raises:
        Mismatch: if a file is not what the manifest says; it is then not to be seen in the sink.
        CentralAway: if central broke off.
        Transient: if the sink did.

    """
    # A piece that two files have in common comes with the first of them.
    ref, places = version.ref, asyncio.Semaphore(1 if version.pieces.raw else FILES_AT_ONCE)
    faults: list[CaravanError] = []

    async def in_turn(wanted: Wanted) -> int:
        async with places:
            try:
                return 0 if faults else await _copy(source, ref, wanted, sink, leftovers)
            except CaravanError as exc:
                faults.append(exc)
                return 0

    # The others are not cancelled by a fault: a write on its way could land after the version was removed.
    copied = sum(await asyncio.gather(*map(in_turn, version.files)))
    if faults:
        # A fault that stays says more than one that may pass.
        raise min(faults, key=lambda exc: isinstance(exc, Transient))
    return copied


async def finish(source: Assembler, version: Complete, sink: Sink, leftovers: Collection[str]) -> int:
    """Make a version visible, all its other files being there: copy the manifest, then the entry file.

    So a version that the model server sees is whole and has its manifest beside it, and nothing that an
    attempt at something else under its number has left.

    Returns, Raises:
        As `copy_files`.

    """
    ref = version.ref
    if not version.paths.issuperset(leftovers):
        await sink.keep_only(ref, version.paths)
    if version.manifest is not None:
        await sink.put(ref, MANIFEST, len(version.manifest), in_one(version.manifest))
    copied = await _copy(source, ref, version.entry, sink, leftovers)
    await sink.publish(ref)
    return copied


async def _copy(source: Assembler, ref: Ref, wanted: Wanted, sink: Sink, leftovers: Collection[str]) -> int:
    if wanted.path in leftovers and await sink.has(ref, wanted):
        return 0
    content = verified(source.content(wanted), wanted)
    await sink.put(ref, wanted.path, wanted.size, _counted(content, sink.name))
    return wanted.size


async def _counted(pieces: AsyncIterator[bytes], sink: str) -> AsyncIterator[bytes]:
    async for content in pieces:
        yield content
        metrics.COPIED_BYTES.labels(sink).inc(len(content))
