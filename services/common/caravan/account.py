"""The account of an edge at central: every receipt, set against the content of its data bucket.

While a bucket's listing stays the same, the last account is given again. Otherwise the ledger has the sums of
older receipts, and the listing is enough for each object that still has the ETag and the size with which it
was stored. Every other object is read, and its SHA-256 compared: stores may make ETags as they like, and make
others when a bucket is copied.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import starmap
from typing import TypeVar

import structlog
from obstore.store import ObjectStore

from caravan import s3
from caravan.concurrency import for_each
from caravan.contracts import possible_keys
from caravan.errors import CaravanError, Permanent, Transient
from caravan.inventory import Inventory, list_receipts, take_inventory
from caravan.ledger import (
    BodyWriter,
    Damaged,
    Ledger,
    body_lines,
    close_receipts,
    closed_receipts,
    digest,
    read_last,
    read_ledger,
    replace_ledger,
    write_last,
)
from caravan.names import cut
from caravan.receipts import (
    Account,
    Expected,
    NotAReceipt,
    Promise,
    Receipt,
    Tally,
    parse_promise,
    place,
    promise_line,
    receipt_key,
)

log = structlog.get_logger()

T = TypeVar("T")
U = TypeVar("U")

AT_ONCE = 16
FEW_IMAGES, IMAGE_BYTES = 200, 250
"""Images of a receipt that is parsed without a thread, and bytes of a receipt per image."""
KEPT = timedelta(days=7)
"""How long a receipt stays in `uploads/` after its batch was last accepted; later it is closed."""
MOST_KEPT = 10_000
"""Most receipts in `uploads/`, however young: labelled images on Kafka may bring one every ten seconds."""
CLOSED_TOGETHER = 1000
"""Fewest receipts that are closed together."""
NEW_RECEIPTS = 100
NEW_IMAGES = 1000
"""Fewest new images for which the ledger is rewritten; fewer are read again each time."""


class _Outdated(Exception):
    """A receipt that the ledger holds says something else now, or is gone."""


@dataclass(slots=True)
class _Receipts:
    """The receipts that the ledger does not hold.

    Attributes:
        listed: tag and time of each receipt in `uploads/`, by batch.
        known: tag and digest of those that the ledger holds.
        fresh: tag and digest of each done receipt, by batch.
        images: number of images in the receipts that are added up here.
        done: sums of the done receipts.
        pending: sums of the pending receipts.
        unreadable: keys of those that are none.

    """

    listed: Mapping[str, tuple[str, datetime]]
    known: Mapping[str, tuple[str, str]]
    fresh: dict[str, tuple[str, str]] = field(default_factory=dict)
    done: Tally = field(default_factory=Tally)
    pending: Tally = field(default_factory=Tally)
    unreadable: set[str] = field(default_factory=set)
    _added: set[tuple[str, str]] = field(default_factory=set)

    async def take(self, batch: str, receipt: Receipt | None) -> None:
        """Take what was read of a batch.

        Raises:
            _Outdated: if the ledger holds it otherwise.

        """
        if receipt is None:
            self.unreadable.add(receipt_key(batch))
            return
        if receipt.state == "done":
            self.fresh[batch] = self.listed[batch][0], await _off_loop(digest, receipt, len(receipt.images))
        if batch not in self.known:
            await self.add(receipt)
        elif receipt.state == "done" and self.fresh[batch][1] != self.known[batch][1]:
            raise _Outdated(f"the receipt of {batch} has changed")

    async def add(self, receipt: Receipt) -> None:
        """Add a receipt up, once."""
        if (receipt.batch, receipt.completed) in self._added:
            return
        self._added.add((receipt.batch, receipt.completed))
        tally = self.done if receipt.state == "done" else self.pending
        await _off_loop(tally.add, receipt, len(receipt.images))


@dataclass(frozen=True, slots=True)
class _AddedUp:
    """An account, and what was learned on the way.

    Attributes:
        account: the account.
        receipts: those that were read for it.
        new: number of images that are new, or have another ETag.
        found: ETag and size of contents that were read, by key and SHA-256.
        disputed: keys to which different contents are ascribed.

    """

    account: Account
    receipts: _Receipts
    new: int
    found: Mapping[tuple[str, str], tuple[str, int]]
    disputed: Collection[str]


async def read_account(
    store: ObjectStore, *, kept: timedelta = KEPT, closed_together: int = CLOSED_TOGETHER
) -> Account:
    """Add up what an edge's data bucket holds.

    Args:
        store: the bucket; without the right to write there, all is added up each time.
        kept: age at which a receipt is closed.
        closed_together: fewest receipts of that age that are closed together.

    Raises:
        Transient: if the store is away.
        Permanent: if it refuses us.
        FileNotFoundError: if there is no such bucket.

    """
    async with take_inventory(store) as inventory:
        if account := await read_last(store, inventory.digest):
            return account
        ledger, etag = await read_ledger(store)
        try:
            sums = await _add_up(store, inventory, ledger)
            if ledger is not None:
                _check_totals(sums.account)
        except (_Outdated, Damaged) as exc:
            log.warning("the ledger is made again", reason=str(exc))
            ledger = None
            sums = await _add_up(store, inventory, None)
    try:
        await _write(store, sums, ledger, etag, _due(sums, ledger, kept, closed_together))
        if sums.account.adds_up:
            await write_last(store, inventory.digest, sums.account)
    except (CaravanError, Damaged, OSError) as exc:
        log.warning("the ledger was not written: the next account reads the same again", error=str(exc))
    return sums.account


def _check_totals(account: Account) -> None:
    if not account.adds_up and not any(account.faults.values()):
        raise _Outdated("every image is where it should be, and yet its totals do not fit")


async def promises(store: ObjectStore) -> AsyncIterator[tuple[str, Promise]]:
    """Yield every content that receipts promise, with its key; one may come repeatedly.

    Raises:
        CaravanError: if the store is away, or refuses us.
        FileNotFoundError: if there is no such bucket.

    """
    ledger, _ = await read_ledger(store)
    try:
        receipts = await _receipts(store, await list_receipts(store), ledger)
        if ledger is not None:
            async for lines in body_lines(store, ledger):
                for line in lines:
                    yield parse_promise(line)
    except (_Outdated, Damaged, ValueError):
        receipts = await _receipts(store, await list_receipts(store), None)
    for key, contents in receipts.done.promised.items():
        for promise in contents:
            yield key, promise
    for image in receipts.pending.open_images:
        for key in possible_keys(image.key, image.sha256):
            yield key, Promise(image.sha256, "", 0, 1)


async def each_receipt(store: ObjectStore, take: Callable[[Receipt], None]) -> None:
    """Hand on every receipt, closed ones too, one at a time; one may come twice.

    Raises:
        CaravanError: if the store is away, or refuses us.
        FileNotFoundError: if there is no such bucket.

    """

    async def one(_: str, receipt: Receipt | None) -> None:
        if receipt is not None:
            take(receipt)

    await _read(await list_receipts(store), store, one)
    async for key, receipt in closed_receipts(store):
        await one(key, receipt)


async def content_sha256(store: ObjectStore, key: str) -> str:
    """Return the SHA-256 of an object of any size, in hex.

    Raises:
        FileNotFoundError: if it is not there.

    """
    hashed = hashlib.sha256()
    async for piece in s3.pieces(store, key):
        hashed.update(piece)
    return hashed.hexdigest()


# --- adding up ----------------------------------------------------------------------------------


async def _add_up(store: ObjectStore, inventory: Inventory, ledger: Ledger | None) -> _AddedUp:
    receipts = await _receipts(store, inventory.receipts, ledger)
    new = receipts.done.captured
    expected = Expected(
        receipts.done.promised,
        receipts.pending.open_images,
        inventory.withdrawn,
        ledger.disputed if ledger else (),
    )
    if ledger is not None:
        async for lines in body_lines(store, ledger):
            try:
                await asyncio.to_thread(expected.take, lines)
            except ValueError as exc:
                raise Damaged(f"{ledger.body} has lines that are none") from exc
    await asyncio.to_thread(expected.settle)
    strangers = await asyncio.to_thread(_strangers, store, inventory.images, expected.places)
    unmet = await _unmet(store, ledger, receipts, expected.places) if expected.places else []
    missing: list[str] = []
    swapped: list[str] = []
    found: dict[tuple[str, str], tuple[str, int]] = {}

    async def look(each: tuple[str, str]) -> None:
        key, sha256 = each
        try:
            is_same = await content_sha256(store, key) == sha256
        except FileNotFoundError:
            missing.append(key)
            return
        if not is_same:
            swapped.append(key)
        elif key in strangers:
            found[each] = strangers[key]

    await for_each(unmet, look, at_once=AT_ONCE)
    unaccounted = strangers.keys() - {key for key, _ in unmet} - expected.allowed
    if unaccounted:
        # An image that came since the receipts were listed is in a receipt that was written before it.
        unaccounted -= await _announced(store, receipts.listed)
    account = expected.account(
        captured=(ledger.captured if ledger else 0) + receipts.done.captured + receipts.pending.captured,
        rejected=(ledger.rejected if ledger else 0) + receipts.done.rejected + receipts.pending.rejected,
        missing=missing,
        swapped=swapped,
        unaccounted=unaccounted,
        unreadable=receipts.unreadable,
    )
    return _AddedUp(account, receipts, new + len(found), found, expected.contradicted)


def _strangers(store: ObjectStore, pages: Iterable[bytes], places: set[int]) -> dict[str, tuple[str, int]]:
    """Take what is listed out of what must be; return ETag and size of all else, by key."""
    strangers: dict[str, tuple[str, int]] = {}
    for page in pages:
        met = list(map(hash, starmap(place, s3.columns(store, page))))
        if met and places.issuperset(met):
            places.difference_update(met)
            continue
        for entry in s3.objects(store, page):
            key, etag, size = entry["path"], (entry["e_tag"] or "").strip('"'), entry["size"]
            if (one := hash(place(key, etag, size))) in places:
                places.remove(one)
            else:
                strangers[key] = (etag, size)
    return strangers


async def _unmet(
    store: ObjectStore, ledger: Ledger | None, receipts: _Receipts, places: Collection[int]
) -> list[tuple[str, str]]:
    """Return key and SHA-256 of each promise that was not met by what is listed."""
    unmet = [
        (key, promise.sha256)
        for key, contents in receipts.done.promised.items()
        for promise in contents
        if hash(place(key, promise.etag, promise.size)) in places
    ]
    if ledger is not None:
        async for lines in body_lines(store, ledger):
            for line in lines:
                listed, sha256, _ = line.rsplit("\t", 2)
                if hash(listed) in places:
                    unmet.append((listed.partition("\t")[0], sha256))
    return list(dict.fromkeys(unmet))


async def _announced(store: ObjectStore, before: Mapping[str, tuple[str, datetime]]) -> set[str]:
    """Return the keys of images in receipts that were written since."""
    now = await list_receipts(store)
    keys: set[str] = set()

    async def take(_: str, receipt: Receipt | None) -> None:
        for image in receipt.images if receipt else ():
            if image.outcome != "rejected":
                keys.update((image.key, *possible_keys(image.key, image.sha256)))

    await _read([batch for batch in now if now[batch] != before.get(batch)], store, take)
    return keys


# --- receipts -----------------------------------------------------------------------------------


async def _receipts(
    store: ObjectStore, listed: Mapping[str, tuple[str, datetime]], ledger: Ledger | None
) -> _Receipts:
    """Read the receipts that a ledger does not hold; without one, the closed ones too."""
    receipts = _Receipts(listed, ledger.receipts if ledger else {})
    closed = ledger.closed if ledger else {}
    if gone := receipts.known.keys() - receipts.listed.keys():
        raise _Outdated(f"{len(gone)} receipts are gone")
    wanted = [
        batch
        for batch, (tag, _) in receipts.listed.items()
        if receipts.known.get(batch, ("", ""))[0] != tag and closed.get(batch) != tag
    ]
    read = await _read(wanted, store, receipts.take)
    if ledger is not None and read < len(wanted):
        raise _Outdated("another has closed receipts meanwhile")
    if ledger is None:
        async for key, receipt in closed_receipts(store):
            if receipt is None:
                receipts.unreadable.add(key)
            else:
                await receipts.add(receipt)
    return receipts


async def _read(
    batches: Collection[str],
    store: ObjectStore,
    take: Callable[[str, Receipt | None], Awaitable[None]],
) -> int:
    """Read receipts, hand each on by itself, None for one that is none; return how many there were."""
    there = 0
    # Of a hundred thousand images, one takes ten times its bytes.
    one_at_a_time = asyncio.Lock()

    async def one(batch: str) -> None:
        nonlocal there
        try:
            raw = await s3.read(store, receipt_key(batch))
        except FileNotFoundError:
            return
        there += 1
        async with one_at_a_time:
            try:
                receipt = await _off_loop(partial(_parsed, batch), raw, len(raw) // IMAGE_BYTES)
            except Permanent as exc:
                log.warning("a receipt cannot be read", batch=batch, error=str(exc))
                receipt = None
            await take(batch, receipt)

    await for_each(batches, one, at_once=AT_ONCE)
    return there


async def _off_loop(call: Callable[[T], U], what: T, images: int) -> U:
    """Call in a thread, if that takes more than a moment; for a few images the thread would."""
    return call(what) if images <= FEW_IMAGES else await asyncio.to_thread(call, what)


def _parsed(batch: str, raw: bytes) -> Receipt:
    receipt = Receipt.from_json(raw)
    if receipt.batch != batch:
        raise NotAReceipt(f"it is that of batch {cut(receipt.batch)}")
    return receipt


# --- the ledger ---------------------------------------------------------------------------------


def _due(sums: _AddedUp, ledger: Ledger | None, kept: timedelta, together: int) -> list[str]:
    """Return the batches whose receipts are to be closed: the old ones, if there are enough of them."""
    known = {**(ledger.receipts if ledger else {}), **sums.receipts.fresh}
    times = sorted((changed, batch) for batch, (_, changed) in sums.receipts.listed.items() if batch in known)
    before = datetime.now(UTC) - kept
    beyond = len(times) - MOST_KEPT
    due = [batch for number, (changed, batch) in enumerate(times) if changed < before or number < beyond]
    return due if len(due) >= together else []


async def _write(
    store: ObjectStore, sums: _AddedUp, old: Ledger | None, etag: str | None, due: Collection[str]
) -> None:
    """Write the ledger again if there is enough that is new, and close the receipts that are due."""
    listed, fresh = sums.receipts.listed, sums.receipts.fresh
    left = {
        batch: tag for batch, tag in (old.closed if old else {}).items() if listed.get(batch, ("",))[0] == tag
    }
    if left:
        await s3.delete(store, [receipt_key(batch) for batch in left])
    if old and not due and len(fresh) < NEW_RECEIPTS and sums.new < NEW_IMAGES:
        return
    known = {**(old.receipts if old else {}), **fresh}
    if due:
        await _close(store, due)
    with closing(BodyWriter()) as body:
        await _write_body(store, sums, old, body)
        ledger = Ledger(
            await body.store(store),
            captured=(old.captured if old else 0) + sums.receipts.done.captured,
            rejected=(old.rejected if old else 0) + sums.receipts.done.rejected,
            receipts={batch: each for batch, each in known.items() if batch not in due},
            closed=left | {batch: known[batch][0] for batch in due},
            disputed=tuple(sorted(sums.disputed)),
        )
    if await replace_ledger(store, ledger, old, etag):
        await s3.delete(store, [receipt_key(batch) for batch in due])


async def _close(store: ObjectStore, due: Collection[str]) -> None:
    receipts: list[Receipt] = []

    async def take(_: str, receipt: Receipt | None) -> None:
        if receipt is not None:
            receipts.append(receipt)

    await _read(due, store, take)
    if len(receipts) < len(due):
        raise Transient("another closes receipts, too")
    await close_receipts(store, receipts, datetime.now(UTC))


async def _write_body(store: ObjectStore, sums: _AddedUp, old: Ledger | None, body: BodyWriter) -> None:
    here = sums.receipts.done.promised  # also what the old body says of the same keys

    def newest(key: str, promise: Promise) -> str:
        etag, size = sums.found.get((key, promise.sha256), (promise.etag, promise.size))
        return promise_line(key, Promise(promise.sha256, etag, size, promise.mentions))

    def carry(lines: Iterable[str]) -> None:
        kept = [line for line in lines if line.partition("\t")[0] not in here]
        body.write([newest(*parse_promise(line)) for line in kept] if sums.found else kept)

    if old is not None:
        async for lines in body_lines(store, old):
            await asyncio.to_thread(carry, lines)
    await asyncio.to_thread(
        body.write, (newest(key, promise) for key, contents in here.items() for promise in contents)
    )
