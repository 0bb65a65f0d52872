"""Models that people send: checked for their shape, kept in `E-models` until the pipeline has judged them."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor
from contextlib import suppress
from typing import BinaryIO

from caravan import s3, times
from caravan.errors import BadInput, Transient
from caravan.model_zips import ModelZip, ModelZipLimits, read_model_zip
from caravan.uploads import (
    Upload,
    Verdict,
    drop_verdict,
    read_upload,
    read_verdict,
    upload_id,
    uploads_of,
    zip_key,
)
from feeder.spool import Spooled
from feeder.stores import Stores

POLL_SECONDS = 0.5
LISTED = 100
"""Latest uploads listed per model."""


class ModelChecks:
    """Checks zipped models in threads: their shape and every checksum; they are loaded elsewhere."""

    def __init__(self, pool: Executor, limits: ModelZipLimits) -> None:
        self._pool = pool
        self._limits = limits

    async def check(self, model: str, classes: tuple[str, ...], zipped: Spooled) -> Upload:
        """Return what is to be kept of a ZIP; class names given with the request go before its own.

        Raises:
            BadInput: if it is no ZIP, or holds no model, or is refused whole.

        """
        if not zipped.size:
            raise BadInput("the body is empty: send a ZIP", reason="not-a-zip")
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._pool, self._read, zipped.file)
        return Upload(
            model=model,
            id=upload_id(zipped.sha256, classes),
            sha256=zipped.sha256,
            size=zipped.size,
            entry=found.entry,
            classes=classes or found.labels,
            ignored=found.ignored,
            received=times.now("milliseconds"),
        )

    def _read(self, file: BinaryIO) -> ModelZip:
        found = read_model_zip(file, self._limits)
        found.verify()
        return found


class ModelBuckets:
    """The models buckets of all edges, and of all groups of edges."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores

    async def keep(self, edge: str, upload: Upload, file: BinaryIO) -> tuple[Upload, Verdict | None]:
        """Make an upload durable: the ZIP, then what was said of it.

        Returns:
            The upload, as it was first received unless it was rejected, and the verdict if there is one;
            what was rejected before is pending again.

        Raises:
            Transient: if the object store is away for too long.

        """
        store = self._stores[edge]

        async def attempt() -> tuple[Upload, Verdict | None]:
            self._stores.check_prepared(edge)
            earlier = await read_upload(store, upload.model, upload.id)
            verdict = None if earlier is None else await read_verdict(store, earlier)
            if earlier is not None and (verdict is None or verdict.state != "rejected"):
                return earlier, verdict
            # Of an earlier upload it may be gone by now.
            await s3.upload(store, zip_key(upload.model, upload.sha256), file, upload.size)
            if earlier is not None:
                await drop_verdict(store, upload)
                return upload, None
            if not await s3.create(store, upload.key, upload.to_json()):
                raise Transient("the same model was sent twice at once")
            return upload, None

        return await self._stores.retried(edge, attempt)

    async def verdict(self, edge: str, upload: Upload, seconds: float) -> Verdict | None:
        """Wait for what the pipeline says of an upload; None if it has said nothing after so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while True:
                    # The upload is durable: a store that is away for a moment is no reason to say otherwise.
                    with suppress(Transient):
                        verdict = await read_verdict(self._stores[edge], upload)
                        if verdict is not None:
                            return verdict
                    await asyncio.sleep(POLL_SECONDS)
        return None

    async def upload(self, edge: str, model: str, upload: str) -> tuple[Upload, Verdict | None]:
        """Return one upload, with its verdict if there is one.

        Raises:
            BadInput: 404 if there is no such upload.
            Transient: if the object store is away.

        """
        kept = await read_upload(self._stores[edge], model, upload)
        if kept is None:
            raise BadInput(f"there is no such upload of {model}", 404, reason="no-such-upload")
        return kept, await read_verdict(self._stores[edge], kept)

    async def uploads(self, edge: str, model: str) -> list[tuple[Upload, Verdict | None]]:
        """Return the latest uploads of a model, each with its verdict if there is one, the latest first.

        Raises:
            Transient: if the object store is away.

        """
        store = self._stores[edge]
        found: list[tuple[Upload, Verdict | None]] = []
        for listed in (await uploads_of(store, model))[: -LISTED - 1 : -1]:
            upload = await read_upload(store, model, listed.id)
            if upload is not None:
                found.append((upload, await read_verdict(store, upload) if listed.is_judged else None))
        return found
