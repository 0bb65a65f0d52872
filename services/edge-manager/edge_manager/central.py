"""Central's `E-ready`, and `G-ready` of the edge's group, read only: nothing here can write or delete."""

from __future__ import annotations

import asyncio
import functools
import io
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace

import obstore
import structlog
from obstore.exceptions import PreconditionError
from obstore.store import ObjectStore

from caravan import model_index, s3, telemetry, tracing
from caravan.contracts import MANIFEST, SIGNATURE, version_prefix
from caravan.errors import CaravanError, Permanent, Transient
from caravan.manifest import Shared
from caravan.model_index import Index
from caravan.retry import pause
from caravan.settings import S3_SILENT_SECONDS
from caravan.tf_index import Readable
from edge_manager.streams import stretch
from edge_manager.versions import Complete, Listed, Offer, Offered, Ref, Standing, Wanted, offers

log = structlog.get_logger()

INDEX_SECONDS = 15
TRACE_SECONDS = 3
PIECE_SECONDS = 2 * S3_SILENT_SECONDS
"""A break of the link shorter than this does not end a copy."""
IN_MEMORY = 8 * 2**20
OWN = (MANIFEST, SIGNATURE)
"""Files that a version has of its own, also where it shares the others."""

FOLDERS_A_SECOND = 100
"""Listed on average at most, files too: where there are more, they are listed less often."""
INDEXED_SECONDS = 30
"""Between two looks at all folders at least, where the index names the newest version of each model."""
LONGEST_SECONDS = 60
"""Between two looks at all folders, however many there are."""
MODELS_AT_ONCE = 8
OPEN_AT_ONCE = 2
"""Newest versions of a model that may be taken, and so are listed: older ones are not needed."""
LISTINGS = 8
"""Most versions of a model listed between two looks at all folders: the newest that are waited for."""


class CentralAway(Transient):
    """Central does not answer, or not as it should; the edge goes on without it."""


def _nowhere(group: str) -> ObjectStore:
    raise Permanent(f"nobody knows here where the group {group} has its versions")


class Central:
    """The versions that central offers this edge.

    Args:
        store: `E-ready`.
        of_group: returns `G-ready` of a group, where the files lie that it shares.

    """

    def __init__(self, store: ObjectStore, of_group: Callable[[str], ObjectStore] = _nowhere) -> None:
        self._store = store
        self._of_group = functools.cache(of_group)
        self._index = Index()
        self._offers: dict[str, Offer] = {}
        self._next_folders = 0.0

    async def look(
        self, now: float, *, above: Mapping[str, int], standing: Callable[[Offered], Standing]
    ) -> Mapping[str, Offer]:
        """Return what is offered, by model.

        Most looks are one request, which is answered that the index has not changed. Then only the files
        of versions that are waited for are listed. Where the index has changed, so are those of versions
        it names anew; and every so often, of all that have a folder. One model that cannot be listed is
        that model's fault.

        Args:
            now: clock time in seconds.
            above: the newest version of each model that the edge has: those up to it are not looked at.
            standing: says of a version, as it was listed, what is known of it.

        Raises:
            CentralAway: if neither the index nor the folders can be had.

        """
        with _away():
            index = await self._read_index()
            by_folders = now >= self._next_folders
            names = {
                *index.manifests,
                *(await model_index.models(self._store) if by_folders else self._offers),
            }
        places, costs = asyncio.Semaphore(MODELS_AT_ONCE), len(names)
        shortest = INDEXED_SECONDS if index.manifests else 0
        is_news, self._index = by_folders or index != self._index, index

        async def look_at(name: str) -> Offer:
            nonlocal costs, shortest
            known = self._offers.get(name, Offer())
            async with places:
                try:
                    versions = {*index.manifests.get(name, ()), *known.versions}
                    if by_folders:
                        there = await model_index.numbers(self._store, name)
                        versions = {*index.manifests.get(name, ()), *there}
                        costs += len(versions)
                        if there and there[0] not in index.manifests.get(name, ()):
                            shortest = 0  # Others publish here, without it.
                    newest_first = tuple(sorted(versions, reverse=True))
                    wanted = [Ref(name, version) for version in newest_first if version > above.get(name, 0)]
                    offered = await self._files(wanted, known, standing, most=None if is_news else LISTINGS)
                except (CaravanError, FileNotFoundError) as exc:
                    return replace(known, fault=str(exc))
            costs += sum(len(one.files) for one in offered)
            return Offer(newest_first, offered)

        found = await asyncio.gather(*map(look_at, sorted(names)))
        self._offers = dict(zip(sorted(names), found, strict=True))
        if by_folders:
            self._next_folders = now + min(LONGEST_SECONDS, max(shortest, costs / FOLDERS_A_SECOND))
        return self._offers

    async def _read_index(self) -> Index:
        with suppress(Permanent):  # another pipeline's bucket may let the models alone be read
            async with asyncio.timeout(INDEX_SECONDS):
                return await model_index.read(self._store, self._index)
        return self._index

    async def _files(
        self,
        wanted: Collection[Ref],
        known: Offer,
        standing: Callable[[Offered], Standing],
        *,
        most: int | None,
    ) -> tuple[Offered, ...]:
        """List the files of versions, newest first, until there are enough that may be taken.

        Args:
            wanted: newest first.
            known: what was listed before.
            standing: of a version.
            most: how many are listed at most, and then none of those refused; the rest stays as it was.

        """
        before = {one.ref: one for one in known.offered}
        found: list[Offered] = []
        listed = still_open = 0
        for ref in wanted:
            now = before.get(ref)
            may_stay = most is not None and (
                listed >= most or (now is not None and standing(now) == "refused")
            )
            if not may_stay:
                now = await self.offered(ref)
                listed += 1
            if now is None:
                continue
            is_settled = not may_stay and ref in before and before[ref].fingerprint == now.fingerprint
            found.append(replace(now, is_settled=is_settled or (may_stay and now.is_settled)))
            still_open += standing(now) == "open"
            if still_open == OPEN_AT_ONCE:
                break
        return tuple(found)

    async def offered(self, ref: Ref) -> Offered | None:
        """Return a version as it lies there now, whole or not; None if nothing of it does.

        Raises:
            CaravanError: if that cannot be told.

        """
        files = await model_index.files(self._store, ref.model, ref.version)
        listing = [(entry["path"], entry["size"], entry["e_tag"]) for entry in files.values()]
        return next(iter(offers(listing).get(ref.model, ())), None)

    async def read(self, offered: Offered, file: Listed) -> bytes:
        """Read a small file whole.

        Raises:
            CentralAway: also if the file has changed since it was listed.

        """
        return b"".join([content async for content in self.pieces(offered, file, file.size)])

    async def shared(self, offered: Offered, shared: Shared) -> Offered:
        """Return a version whose manifest was read with the files that the edge's group shares.

        Raises:
            CentralAway: if they cannot be listed.

        """
        with _away():
            store = self._of_group(shared.group)
            files = await model_index.files(store, offered.ref.model, shared.version)
        listed = tuple(Listed(path, entry["size"], entry["e_tag"]) for path, entry in files.items())
        return replace(offered, files=listed, shared=shared)

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
        store, key = self._place(offered, file.path)
        with _away(), s3.translated(f"read {file.path}"):
            return obstore.open_reader(store, key, size=file.size)

    async def pieces(
        self, version: Offered | Complete, file: Listed | Wanted, end: int, start: int = 0
    ) -> AsyncIterator[bytes]:
        """Stream bytes `start` to `end` of a file of a version in one request.

        After a break it goes on where it was, until nothing comes for long.

        Raises:
            CentralAway: also if the object has changed since it was listed.

        """
        store, key = self._place(version, file.path)
        clock = asyncio.get_running_loop().time
        at, failures, last = start, 0, clock()
        while at < end:
            try:
                with s3.translated(f"read {key}"):
                    async for content in stretch(store, key, at, end, file.e_tag):
                        at += len(content)
                        yield content
                        failures, last = 0, clock()
                if at < end:
                    raise Transient(f"S3 sent less of {key} than it has")
            except (PreconditionError, FileNotFoundError) as exc:
                raise CentralAway("a file changed while it was read") from exc
            except CaravanError as exc:
                wait = pause(failures)
                if not isinstance(exc, Transient) or clock() + wait - last > PIECE_SECONDS:
                    raise CentralAway(str(exc)) from exc
                failures += 1
                telemetry.RETRIES.labels("s3-central").inc()
                log.warning("retry", to="s3-central", attempt=failures, error=str(exc))
                await asyncio.sleep(wait)

    def _place(self, version: Offered | Complete, path: str) -> tuple[ObjectStore, str]:
        if version.shared is None or path in OWN:
            return self._store, version.ref.key(path)
        prefix = version_prefix(version.ref.model, version.shared.version)
        return self._of_group(version.shared.group), prefix + path


@contextmanager
def _away(missing: str | None = None) -> Iterator[None]:
    """Translate into CentralAway; `missing` says what it means that something is not as it was."""
    try:
        yield
    except (PreconditionError, FileNotFoundError) as exc:
        raise CentralAway(missing or str(exc)) from exc
    except TimeoutError as exc:
        raise CentralAway(f"no answer within {INDEX_SECONDS} s") from exc
    except CaravanError as exc:
        raise CentralAway(str(exc)) from exc
