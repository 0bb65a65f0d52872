"""A bucket at the edge, which the model server reads: `models/<model>/<version>/…`."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import suppress

import obstore
from obstore.store import ObjectStore

from caravan import s3, tracing
from caravan.contracts import ENTRY_FILES, MANIFEST, MODELS, MODELS_CONFIG, PRODUCTION
from edge_manager import models_config
from edge_manager.sinks import Held, NoRoom
from edge_manager.streams import stretch
from edge_manager.versions import Ref, Wanted, parse_key

WHOLE = 16 * 2**20
"""Bytes of the largest file that is written in one request, and held in memory for it."""
PART = 5 * 2**20
"""Bytes of a part of a multipart upload: the least that S3 takes."""
PARTS_AT_ONCE = 2
HIDDEN = "hidden/"
"""Before the key of a file of a version that is out of the model server's sight for a while."""


class BucketSink:
    """Versions in a bucket. The model server takes a version once its entry file is there.

    Args:
        store: the bucket.
        prepare: makes sure that the bucket is there.
        check: checks that it answers.
        base_path: of the models, as the model server sees it.
        served: how many versions of a model are to be served where none is named, the newest.

    """

    name = "bucket"

    def __init__(
        self,
        store: ObjectStore,
        prepare: Callable[[], Awaitable[None]],
        check: Callable[[], Awaitable[None]],
        base_path: str = f"s3://{PRODUCTION}/models",
        served: int = 1,
    ) -> None:
        self._store = store
        self._prepare = prepare
        self._check = check
        self._base_path = base_path
        self._served = served
        # Versions that may have left something here; of no other one a listing need ask.
        self._touched: set[Ref] = set()
        self._hidden: set[Ref] = set()

    async def open(self) -> None:
        """Make sure that the bucket is there, and clear away what was hidden before."""
        await self._prepare()
        await self._delete(HIDDEN)
        self._hidden.clear()

    async def check(self) -> None:
        """Check that the bucket answers."""
        await self._check()

    async def held(self) -> Held:
        """List the versions."""
        held: Held = defaultdict(dict)
        for entry in await s3.listed(self._store, MODELS):
            file = parse_key(entry["path"])
            if file is not None:
                ref, path = file
                versions = held[ref.model]
                versions[ref.version] = versions.get(ref.version, False) or path in ENTRY_FILES
                self._touched.add(ref)
        return dict(held)

    async def room(self, ref: Ref) -> None:
        """Return nothing: a bucket does not tell."""

    async def leftovers(self, ref: Ref) -> frozenset[str]:
        """List what lies under the version's prefix and what was hidden of it, if it may be anything."""
        prefixes = [ref.key("")] if ref in self._touched else []
        if ref in self._hidden:
            prefixes.append(HIDDEN + ref.key(""))
        return frozenset(
            [
                entry["path"].removeprefix(prefix)
                for prefix in prefixes
                async for entry in s3.listing(self._store, prefix)
            ]
        )

    async def has(self, ref: Ref, wanted: Wanted) -> bool:
        """Compare by reading the file: the edge's own disk is near. One that was hidden is put back."""
        key = ref.key(wanted.path)
        if await self._is(key, wanted):
            return True
        if not await self._is(HIDDEN + key, wanted):
            return False
        with s3.translated(f"copy {HIDDEN}{key}"):
            await obstore.copy_async(self._store, HIDDEN + key, key)
        return True

    async def _is(self, key: str, wanted: Wanted) -> bool:
        with s3.translated(f"read {key}"):
            try:
                meta = await obstore.head_async(self._store, key)
                if wanted.sha256 is None or meta["size"] != wanted.size:
                    return False
                digest = hashlib.sha256()
                async for content in stretch(self._store, key, 0, wanted.size, meta["e_tag"]):
                    digest.update(content)
            except FileNotFoundError:
                return False
        return digest.hexdigest() == wanted.sha256.lower()

    async def read(self, ref: Ref, path: str, start: int, end: int) -> bytes:
        """Read a range; a file that is shorter, or not there, has none of what is beyond its end."""
        key = ref.key(path)
        with s3.translated(f"read {key}"):
            try:
                size = (await obstore.head_async(self._store, key))["size"]
                return b"".join(
                    [content async for content in stretch(self._store, key, start, min(end, size), None)]
                    if start < size
                    else []
                )
            except FileNotFoundError:
                return b""

    async def put(self, ref: Ref, path: str, size: int, pieces: AsyncIterator[bytes]) -> None:
        """Write a file in one request, or in a multipart upload that ends only after the last piece."""
        key = ref.key(path)
        self._touched.add(ref)
        try:
            await self._put(key, path, size, pieces)
        except s3.StoreFull as exc:
            raise NoRoom(str(exc)) from exc

    async def _put(self, key: str, path: str, size: int, pieces: AsyncIterator[bytes]) -> None:
        async with s3.writing(self._store, f"write {key}"):
            if size <= WHOLE:
                content = bytearray()
                async for one in pieces:
                    content += one
                # By the manifest's metadata a model server that reads S3 goes on with the trace.
                trace = tracing.headers() if path == MANIFEST else {}
                await obstore.put_async(
                    self._store, key, content, attributes=trace or None, use_multipart=False
                )
            else:
                await obstore.put_async(
                    self._store, key, pieces, chunk_size=PART, max_concurrency=PARTS_AT_ONCE
                )

    async def keep_only(self, ref: Ref, paths: Collection[str]) -> None:
        """Delete what else lies under the version's prefix."""
        await self._delete(ref.key(""), keep={ref.key(path) for path in paths})

    async def publish(self, ref: Ref) -> None:
        """Delete what was hidden of it: writing the entry file was all that there was to do."""
        await self._delete_hidden(ref)

    async def remove(self, ref: Ref) -> None:
        """Delete the entry file, and with it the version for the model server; then the rest."""
        await self._delete(ref.key(""))
        await self._delete_hidden(ref)
        self._touched.discard(ref)

    async def hide(self, ref: Ref) -> None:
        """Copy the version aside, then delete it."""
        self._hidden.add(ref)
        async for entry in s3.listing(self._store, ref.key("")):
            with s3.translated(f"copy {entry['path']}"):
                await obstore.copy_async(self._store, entry["path"], HIDDEN + entry["path"])
        await self._delete(ref.key(""))

    async def _delete_hidden(self, ref: Ref) -> None:
        if ref in self._hidden:
            await self._delete(HIDDEN + ref.key(""))
            self._hidden.discard(ref)

    async def _delete(self, prefix: str, keep: Collection[str] = ()) -> None:
        """Delete what has a prefix, entry files first."""
        keys = [entry["path"] async for entry in s3.listing(self._store, prefix) if entry["path"] not in keep]
        await s3.delete(
            self._store, sorted(keys, key=lambda key: key.removeprefix(prefix) not in ENTRY_FILES)
        )

    @property
    def models_config(self) -> str:
        """The model server's path of `models.config`."""
        return f"{self._base_path}/{models_config.NAME}"

    async def configure(self, models: Mapping[str, Collection[int]]) -> None:
        """Write `models/models.config`, unless it says the same."""
        content = models_config.models_config(self._base_path, models, self._served)
        with suppress(FileNotFoundError):
            if await s3.read(self._store, MODELS_CONFIG) == content:
                return
        await s3.write(self._store, MODELS_CONFIG, content)
