"""Training images on their way to central: collected, sent, and only then taken out of the bucket."""

from __future__ import annotations

import asyncio
import tempfile
import zipfile
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, NoReturn, Protocol

import structlog
from obstore.store import ObjectStore

from caravan import s3, tracing
from caravan.contracts import IMAGES, REJECTED, image_of
from caravan.errors import CaravanError, Permanent, Transient
from caravan.names import metadata
from caravan.retry import pause
from shopper import events, metrics
from shopper.ports import Post
from shopper.storage.feeder import BrokenOff, FeederAnswer, Unfit

log = structlog.get_logger()

PENDING = "push/requested.json"
LOOK_SECONDS = 60.0
UNREAD_IN_A_ROW = 3
"""Unreadable images in a row after which the store counts as away."""
LEAST_AT_ONCE = 2**18
"""Bytes of images that are sent at once over the worst link: half a minute of 64 kbit/s."""
MOST_UNFIT = 20
"""Most images of one push that are rejected because central refused a ZIP for them."""


class Feeder(Protocol):
    """Takes ZIPs of training images."""

    async def ping(self) -> None:
        """Check that the link is up."""
        ...

    async def upload(self, archive: IO[bytes], size: int) -> FeederAnswer:
        """Send a ZIP; on return its images are durable."""
        ...


@dataclass
class PushAccount:
    """What became of the images of one push.

    `left` were no images, too large or not to be read, and stay; `unfit` are those of the rejected that kept
    central from taking others. `warnings` say what to do better, and are told where there are some.
    """

    status: str = "empty"
    files: int = 0
    zips: int = 0
    stored: int = 0
    duplicates: int = 0
    left: int = 0
    unfit: int = 0
    rejected: list[dict[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Return it as callers get it."""
        return {name: fact for name, fact in asdict(self).items() if fact or name != "warnings"}


class TrainingPush:
    """Sends the bucket `data` to the feeder, one push at a time.

    A call first writes into the bucket that it is pending, so that it outlives the link, this process and the
    machine; calls that come while a push runs share the next one. An image leaves the bucket after
    the feeder has accounted for it. A crash in between sends it again, and the feeder knows it already. What
    broke off comes again whole: so after each break half as much is sent at once, until a push is done.

    Args:
        store: the bucket `data`.
        feeder: receives the ZIPs.
        post: takes the dashboard's events.
        scratch: folder for one ZIP at a time.
        max_bytes: most bytes of one ZIP, and so the disk that a push needs.
        max_images: most images of one ZIP.

    """

    def __init__(
        self,
        store: ObjectStore,
        feeder: Feeder,
        post: Post,
        *,
        scratch: Path,
        max_bytes: int,
        max_images: int,
    ) -> None:
        self._store = store
        self._feeder = feeder
        self._post = post
        self._scratch = scratch
        self._max_bytes = max_bytes
        self._at_once = max_bytes
        self._max_images = max_images
        self._callers: list[asyncio.Future[dict[str, Any]]] = []
        self._called = asyncio.Event()
        self._trace: dict[str, str] = {}

    async def __call__(self) -> dict[str, Any]:
        """Push what there is; `{"status": "done" | "empty" | "queued", …}`, queued if the link is down.

        Raises:
            Transient: if the object store is away.
            Refused: if the feeder refuses; the images stay.

        """
        caller: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._callers.append(caller)
        self._trace = tracing.headers()
        self._called.set()
        return await caller

    async def run(self) -> NoReturn:
        """Serve calls, and the pending one of an earlier process, until each is done; to be run as a task."""
        failures = 0
        while True:
            self._called.clear()
            failures = 0 if await self._round() else failures + 1
            try:
                async with asyncio.timeout(pause(failures) if failures else LOOK_SECONDS):
                    await self._called.wait()
            except TimeoutError:
                continue

    async def _round(self) -> bool:
        """Serve those who have called by now; tell whether nothing is left to do."""
        callers, self._callers = self._callers, []
        trace, self._trace = self._trace, {}
        try:
            if callers:
                await self._write_pending()
            elif not await self._has_pending():
                return True
        except CaravanError as exc:
            _fail(callers, exc)
            return False
        try:
            with tracing.following(trace), tracing.span("push"):
                outcome: PushAccount | Permanent = await self._push()
        except (Transient, OSError) as exc:  # the disk is full, say
            log.warning("push put off", error=str(exc))
            _answer(callers, {"status": "queued"})
            return False
        except Permanent as exc:
            # Asking again will not help; the images stay until someone has mended it and asks.
            log.warning("push refused", error=str(exc))
            outcome = exc
        ended = await self._end_pending()
        if isinstance(outcome, Permanent):
            _fail(callers, outcome)
        else:
            log.info("push done", files=outcome.files, zips=outcome.zips)
            _answer(callers, outcome.as_json())
        return ended

    async def _write_pending(self) -> None:
        try:
            await s3.write(self._store, PENDING, f'{{"at":"{datetime.now(UTC).isoformat()}"}}'.encode())
        except FileNotFoundError as exc:
            raise Transient("the bucket for training images is missing") from exc

    async def _has_pending(self) -> bool:
        try:
            await s3.read(self._store, PENDING)
        except FileNotFoundError:
            return False
        return True

    async def _end_pending(self) -> bool:
        try:
            await s3.delete(self._store, [PENDING])
        except CaravanError as exc:
            log.warning("the push stays pending, and will find nothing to do", error=str(exc))
            return False
        return True

    # --- one push -------------------------------------------------------------------------------

    async def _push(self) -> PushAccount:
        account = PushAccount()
        async for batch in self._batches(account):
            if not account.zips:
                await self._feeder.ping()  # before anything is packed for nothing
            await self._send(batch, account)
        self._at_once = self._max_bytes
        return account

    async def _send(self, keys: Sequence[str], account: PushAccount) -> None:
        """Send some images; find those that keep others from being taken by halving, and reject them."""
        packed, answer = await self._upload(keys, account)
        if not packed:
            return
        if isinstance(answer, Unfit):
            await self._send_apart(packed, answer.detail, account)
            return
        reasons = {each.name: each.reason for each in answer.rejected if each.name in packed}
        accounted = answer.stored + answer.duplicates + len(reasons)
        unnamed = answer.ignored + len(answer.rejected) - len(reasons)
        if accounted + unnamed < len(packed) or accounted > len(packed):
            message = f"the feeder accounts for {accounted} of {len(packed)} images: all stay here"
            raise Permanent(message)
        if accounted < len(packed):
            reason = answer.rejected[0].reason if answer.rejected else "central passes it over"
            await self._send_apart(packed, reason, account)
            return
        self._post(events.zipsend(len(packed)))
        await self._settle(packed, reasons)
        account.status = "done"
        account.files += len(packed)
        account.zips += 1
        account.stored += answer.stored
        account.duplicates += answer.duplicates
        account.rejected += [each.model_dump() for each in answer.rejected]
        account.warnings += answer.warnings

    async def _upload(
        self, keys: Sequence[str], account: PushAccount
    ) -> tuple[Sequence[str], FeederAnswer | Unfit]:
        """Return the keys of those images that are still there, and what the feeder says of them."""
        # Without a name, so that nothing is left of it however the process ends.
        with await asyncio.to_thread(_temporary_file, self._scratch) as archive:
            packed = await self._pack(keys, archive, account)
            if not packed:
                return (), FeederAnswer(stored=0, duplicates=0)
            self._post(events.zipdata(len(packed)))
            size = await asyncio.to_thread(_size, archive)
            try:
                return packed, await self._feeder.upload(archive, size)
            except Unfit as exc:
                return packed, exc
            except BrokenOff:
                self._at_once = max(LEAST_AT_ONCE, size // 2)
                raise

    async def _send_apart(self, keys: Sequence[str], reason: str, account: PushAccount) -> None:
        if len(keys) > 1:
            await self._send(keys[: len(keys) // 2], account)
            await self._send(keys[len(keys) // 2 :], account)
            return
        if account.unfit == MOST_UNFIT:
            raise Permanent(f"central takes none of {MOST_UNFIT} images, and says: {reason}")
        account.status = "done"
        account.files += 1
        account.unfit += 1
        account.rejected.append({"name": keys[0], "reason": reason})
        await self._settle(keys, {keys[0]: reason})

    async def _batches(self, account: PushAccount) -> AsyncIterator[list[str]]:
        batch: list[str] = []
        size = 0
        async for entry in s3.listing(self._store, IMAGES):
            if image_of(entry["path"]) is None or entry["size"] > self._max_bytes:
                account.left += 1
                continue
            if batch and (size + entry["size"] > self._at_once or len(batch) == self._max_images):
                yield batch
                batch, size = [], 0
            batch.append(entry["path"])
            size += entry["size"]
        if batch:
            yield batch

    async def _pack(self, keys: Sequence[str], target: IO[bytes], account: PushAccount) -> list[str]:
        """Pack the readable images; an unreadable one stays and holds back no other.

        Raises:
            CaravanError: if it gives none of several in a row.

        """
        packed: list[str] = []
        unread = 0
        # Photos are compressed already: stored as they are. Dated as no clock says, which may be before 1980.
        with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
            for key in keys:
                try:
                    content = await s3.read(self._store, key)
                except FileNotFoundError:
                    continue  # someone took it out since it was listed
                except CaravanError as exc:
                    unread += 1
                    if unread >= UNREAD_IN_A_ROW or (key == keys[-1] and not packed):
                        raise
                    log.warning("a training image cannot be read, and stays", key=key, error=str(exc))
                    account.left += 1
                    continue
                unread = 0
                await asyncio.to_thread(archive.writestr, zipfile.ZipInfo(key), content)
                packed.append(key)
        return packed

    async def _settle(self, keys: Sequence[str], reasons: Mapping[str, str]) -> None:
        """Remove the images that central has; move those that it rejects to `rejected/`."""
        for key, reason in reasons.items():
            await self._move_to_rejected(key, reason)
        await s3.delete(self._store, keys)
        metrics.IMAGES_PUSHED.labels("rejected").inc(len(reasons))
        metrics.IMAGES_PUSHED.labels("accepted").inc(len(keys) - len(reasons))

    async def _move_to_rejected(self, key: str, reason: str) -> None:
        try:
            content = await s3.read(self._store, key)
        except FileNotFoundError:
            return
        await s3.put_new(self._store, f"{REJECTED}{key}", content, metadata({"reason": reason}))
        log.warning("training image rejected by central", key=key, reason=reason)


def _temporary_file(folder: Path) -> IO[bytes]:
    return tempfile.TemporaryFile(dir=folder)


def _size(file: IO[bytes]) -> int:
    return file.seek(0, 2)


def _answer(callers: Sequence[asyncio.Future[dict[str, Any]]], account: dict[str, Any]) -> None:
    for caller in callers:
        if not caller.done():
            caller.set_result(account)


def _fail(callers: Sequence[asyncio.Future[dict[str, Any]]], exc: CaravanError) -> None:
    for caller in callers:
        if not caller.done():
            caller.set_exception(exc)
