"""What has been added up of an edge's receipts, kept in `E-data` so that the account reads only what is new.

    accounts/last.json                         the account that was given last, and a digest of what it was of
    accounts/ledger.json                       totals, the receipts in them, and the name of the body
    accounts/promises/<SHA-256>.tsv            its body, a line for each promise
    accounts/receipts/<month>/<SHA-256>.jsonl  closed receipts, a thousand or more, one a line

The ledger is replaced on condition that it is the one that was read, so of two who write one does; bodies
and closed receipts are named by their content and never change. It can always be made again: of the closed
receipts and of those in `uploads/`. What is missing, damaged or of another schema is as good as none.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import tempfile
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Self

import structlog
from obstore.store import ObjectStore

from caravan import s3, strict_json
from caravan.errors import Permanent
from caravan.receipts import Account, Receipt

log = structlog.get_logger()

SCHEMA = 1
ACCOUNTS = "accounts/"
LAST = f"{ACCOUNTS}last.json"
LEDGER = f"{ACCOUNTS}ledger.json"
BODIES = f"{ACCOUNTS}promises/"
CLOSED = f"{ACCOUNTS}receipts/"
LINES_AT_ONCE = 5000


class Damaged(Exception):
    """The body of the ledger is not what it was, or is gone: add up without it."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """The totals of the receipts that were added up.

    Attributes:
        body: key of the object with their promises, by the SHA-256 of its content.
        captured: images in them.
        rejected: number of captured images refused with a reason.
        receipts: tag of each batch's receipt, and the digest of its content; see `digest`.
        closed: of each batch whose receipt is among the closed ones and may still be in `uploads/`, its tag.
        disputed: keys to which they ascribe different contents.

    """

    body: str
    captured: int
    rejected: int
    receipts: Mapping[str, tuple[str, str]]
    closed: Mapping[str, str]
    disputed: tuple[str, ...]

    def to_json(self) -> bytes:
        """Return the bytes to store."""
        return json.dumps({"schema": SCHEMA, **asdict(self)}).encode()

    @classmethod
    def from_json(cls, raw: bytes) -> Self:
        """Read what `to_json` made.

        Raises:
            ValueError, KeyError, TypeError: if it is something else.

        """
        body = strict_json.loads_object(raw)
        if body.pop("schema") != SCHEMA:
            raise ValueError("another schema")
        receipts = {batch: (str(tag), str(digest)) for batch, (tag, digest) in body["receipts"].items()}
        numbers, key = (body["captured"], body["rejected"]), body["body"]
        if not all(type(number) is int for number in numbers) or not str(key).startswith(BODIES):
            raise ValueError("no totals or no body")
        return cls(key, *numbers, receipts, dict(body["closed"]), tuple(map(str, body["disputed"])))


async def read_ledger(store: ObjectStore) -> tuple[Ledger | None, str | None]:
    """Return the ledger, None where there is no sound one, and the ETag that replacing it needs.

    Raises:
        CaravanError: if the store is away, or refuses us.

    """
    try:
        raw, etag = await s3.read_with_etag(store, LEDGER)
    except FileNotFoundError:
        return None, None
    try:
        return await asyncio.to_thread(Ledger.from_json, raw), etag
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        log.warning("the ledger cannot be read: all receipts are added up", error=str(exc))
        return None, etag


async def read_last(store: ObjectStore, digest: str) -> Account | None:
    """Return the account that was given last, if it was of what has this digest.

    Raises:
        CaravanError: if the store is away, or refuses us.

    """
    try:
        body = strict_json.loads_object(await s3.read(store, LAST))
        is_same = (body["schema"], body["of"]) == (SCHEMA, digest)
        return Account.from_totals(body["totals"]) if is_same else None
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None


async def write_last(store: ObjectStore, digest: str, account: Account) -> None:
    """Keep an account that adds up, and the digest of what it is of.

    Raises:
        CaravanError: if the store is away, or refuses us.

    """
    body = {"schema": SCHEMA, "of": digest, "totals": account.totals}
    await s3.write(store, LAST, json.dumps(body).encode())


async def body_lines(store: ObjectStore, ledger: Ledger) -> AsyncIterator[list[str]]:
    """Yield the lines of a ledger's body, some thousands at a time.

    Raises:
        Damaged: at the end, if it was not what the ledger names; or at once, if it is gone.

    """
    digest, rest = hashlib.sha256(), b""
    try:
        async for piece in s3.pieces(store, ledger.body):
            digest.update(piece)
            *lines, rest = (rest + piece).split(b"\n")
            yield [line.decode(errors="replace") for line in lines]
    except FileNotFoundError as exc:
        raise Damaged(f"{ledger.body} is gone") from exc
    if rest or ledger.body != _body_key(digest.hexdigest()):
        raise Damaged(f"{ledger.body} has other content")


class BodyWriter:
    """Writes the body of a ledger aside, line by line, and stores it under the name of its content."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        self._digest = hashlib.sha256()
        self._size = 0

    def write(self, lines: Iterable[str]) -> None:
        """Add lines; use a thread."""
        rest = iter(lines)
        while some := list(islice(rest, LINES_AT_ONCE)):
            raw = "".join(f"{line}\n" for line in some).encode()
            self._digest.update(raw)
            self._size += len(raw)
            self._file.write(raw)

    async def store(self, store: ObjectStore) -> str:
        """Return the key of the body, once it is stored."""
        key = _body_key(self._digest.hexdigest())
        await s3.upload(store, key, self._file, self._size)
        return key

    def close(self) -> None:
        """Drop what is written."""
        self._file.close()


async def replace_ledger(store: ObjectStore, ledger: Ledger, old: Ledger | None, etag: str | None) -> bool:
    """Put a ledger in place of the one with this ETag; tell whether that was still there.

    Bodies of earlier ones go, but for that of the last: someone may be reading it.
    """
    if not await s3.replace(store, LEDGER, await asyncio.to_thread(ledger.to_json), etag):
        return False
    needed = {ledger.body, old.body if old else ""}
    # Nor is a body removed that another has just written, and not yet named.
    before = datetime.now(UTC) - timedelta(hours=1)
    bodies = [entry["path"] async for entry in s3.listing(store, BODIES) if entry["last_modified"] < before]
    await s3.delete(store, [body for body in bodies if body not in needed])
    return True


# --- closed receipts ----------------------------------------------------------------------------


async def close_receipts(store: ObjectStore, receipts: Iterable[Receipt], now: datetime) -> None:
    """Store receipts together; once the ledger says so, too, they may leave `uploads/`."""
    lines = [await asyncio.to_thread(_one_line, receipt) for receipt in receipts]
    raw = b"".join(lines)
    await s3.write(store, f"{CLOSED}{now:%Y-%m}/{hashlib.sha256(raw).hexdigest()}.jsonl", raw)


async def closed_receipts(store: ObjectStore) -> AsyncIterator[tuple[str, Receipt | None]]:
    """Yield the closed receipts, None for one that cannot be read, and the key of the object that has it.

    One may come twice, where two closed it at once.
    """
    async for entry in s3.listing(store, CLOSED):
        rest = b""
        async for piece in s3.pieces(store, entry["path"]):
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                yield entry["path"], await asyncio.to_thread(_receipt, line)
        if rest:
            yield entry["path"], None


def _receipt(line: bytes) -> Receipt | None:
    try:
        return Receipt.from_json(line)
    except Permanent:
        return None


def digest(receipt: Receipt) -> str:
    """Return a digest of all in a done receipt that counts: a repeat of the batch has the same."""
    lines = sorted(f"{image.key}\t{image.sha256}\t{image.etag}\t{image.size}" for image in receipt.images)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _one_line(receipt: Receipt) -> bytes:
    return receipt.to_json().replace(b"\n", b"") + b"\n"


def _body_key(sha256: str) -> str:
    return f"{BODIES}{sha256}.tsv"
