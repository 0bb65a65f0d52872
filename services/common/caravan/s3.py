"""Object stores: obstore where objects move, `s3_listing` for buckets and listings.

Every call has a deadline, and its errors are translated: `Transient` where the store is away or the bucket
is gone, `Unstorable` where it refuses one object for its own sake, `Refused` where it refuses us. A missing
object is Python's own `FileNotFoundError`.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import hashlib
import json
import re
import time
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, NoReturn

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    GenericError,
    InvalidPathError,
    NotModifiedError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import ObjectStore, S3Store

from caravan import strict_json
from caravan.contracts import possible_keys
from caravan.errors import CaravanError, Permanent, Refused, Transient
from caravan.s3_signature import SKEWED, refusal
from caravan.settings import S3_CONNECT_SECONDS, S3_SILENT_SECONDS, S3Address

if TYPE_CHECKING:
    from obstore import GetOptions
    from obstore.store import ClientConfig

LONGEST = timedelta(days=1)
"""Deadline of a request as a whole, which has to have one: 100 MB over a phone's 64 kbit/s take 4 hours."""
FAREWELL_SECONDS = 0.25
KEEP_SECONDS = 30
MOST_PINGED = 5
PIECE = 8 * 2**20
"""Bytes of a large object per request, and so in memory."""
STREAMED = 2**18
"""Least bytes of a piece of an object that is streamed by one request."""


class Bucket(S3Store):
    """A handle on a bucket that can also list it, whatever its keys are."""

    address: S3Address
    name: str


@functools.lru_cache(256)
def open_bucket(address: S3Address, bucket: str) -> Bucket:
    """Return the handle on a bucket, which takes 10 ms to make; nothing is sent before its first use."""
    options: ClientConfig = {
        "allow_http": True,
        "connect_timeout": f"{S3_CONNECT_SECONDS}s",
        "read_timeout": f"{S3_SILENT_SECONDS}s",
        "timeout": LONGEST,
    }
    _part_from_threads()
    if address.ca is not None:
        options["root_certificate"] = address.ca.read_bytes()
    store = Bucket(
        bucket,
        endpoint=address.endpoint,
        access_key_id=address.access_key.get_secret_value(),
        secret_access_key=address.secret_key.get_secret_value(),
        region=address.region,
        virtual_hosted_style_request=False,
        client_options=options,
        retry_config={"max_retries": 2, "retry_timeout": timedelta(seconds=10)},
    )
    store.address, store.name = address, bucket
    return store


@functools.cache
def _part_from_threads() -> None:
    """Have the store's threads end their work before the interpreter goes.

    They call into Python even then, and abort a process that has done all it should
    (https://github.com/PyO3/pyo3-async-runtimes/issues/40).
    """
    atexit.register(time.sleep, FAREWELL_SECONDS)


class BucketMissing(Transient):
    """The bucket is not there: whoever owns it makes it again."""


class StoreFull(Transient):
    """The store has no room, or lets us have no more: it takes what it has once someone made room."""


class Unstorable(Permanent):
    """The store takes no such object, for its key, its metadata or its size; others it may take."""


class Declined(Transient):
    """The store answered that it does not, until somebody changes rights, a name or a setting."""


_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_TRY_AGAIN = {"408", "409", "429"}
_REFUSED = {"401", "403"}
"""Statuses of a listing that is refused; every other request has an exception's class for it."""
_OF_THE_OBJECT = {"400", "413", "414", "431"}
_UNREACHED = re.compile(
    r"(https?://[^/\s]+)(?s:.*)kind: Connect,(?:(?s:.*?)(?:message|error): \"([^\"]+)\")?"
)
"""An address to which there is no connection, and the system's word on why, in the store's error."""
_FULL = {"QuotaExceeded", "XMinioAdminBucketQuotaExceeded", "XMinioStorageFull"}
"""Error codes of a full store, or an exceeded quota: 403 at Ceph, 400 or 507 at MinIO."""
_ODD_METADATA = "contained non UTF-8 characters"
"""Obstore's words on metadata that is not ASCII, as the labels of photos once were."""
_NOT_FOUND = "404"
_INSUFFICIENT_STORAGE = "507"
_OF_THE_REQUEST = {
    "AuthorizationHeaderMalformed",
    "AuthorizationQueryParametersError",
    "BadDigest",
    "ExpiredToken",
    "IncompleteBody",
    "InvalidBucketName",
    "InvalidToken",
    "MissingSecurityHeader",
    "RequestTimeout",
    "SlowDown",
}
"""Error codes with status 400 that say nothing of the object: credentials, clocks, broken connections."""


@contextmanager
def translated(action: str) -> Iterator[None]:
    """Translate the store's errors into Caravan's; `action` says what was tried, for the message."""
    try:
        yield
    except (AlreadyExistsError, PreconditionError):
        raise
    except (PermissionDeniedError, UnauthenticatedError) as exc:
        _tell_full(action, exc)
        raise refusal(action, _told(exc)[1]) from exc
    except ValueError as exc:  # so obstore says that it has no path for a key
        raise Unstorable(f"S3 cannot be asked to {action}: {exc}") from exc
    except BaseError as exc:
        _tell_full(action, exc)
        status, word = _told(exc)
        if word == SKEWED:
            raise refusal(action, word) from exc
        if word == "NoSuchBucket":
            raise BucketMissing(f"S3 could not {action}: the bucket is missing") from exc
        if status in _OF_THE_OBJECT and word not in _OF_THE_REQUEST:
            raise Unstorable(f"S3 does not take {action}: {word or status}") from exc
        answered = status.startswith("4") and status not in _TRY_AGAIN
        raise (Declined if answered else Transient)(f"S3 could not {action}: {_why(exc)}") from exc


def _tell_full(action: str, exc: BaseError) -> None:
    status, word = _told(exc)
    if word in _FULL or status == _INSUFFICIENT_STORAGE:
        raise StoreFull(f"S3 could not {action}: it is full, or its quota is used up") from exc


def _told(exc: BaseError) -> tuple[str, str]:
    """Return the status and the code that a store answered with, empty where there is none."""
    status, code = _STATUS.search(str(exc)), _CODE.search(str(exc))
    return status[1] if status else "", code[1] if code else ""


@asynccontextmanager
async def writing(store: ObjectStore, action: str) -> AsyncIterator[None]:
    """Translate the errors of a write; a bucket that is gone has another look on each store."""
    try:
        with translated(action):
            yield
    except FileNotFoundError as exc:
        raise BucketMissing(f"S3 could not {action}: the bucket is missing") from exc
    except Refused as exc:
        # SeaweedFS answers 403 to a write into a bucket that it does not have.
        try:
            is_missing = await _is_missing(store)
        except Transient:
            is_missing = False
        if is_missing:
            raise BucketMissing(f"S3 could not {action}: the bucket is missing") from exc
        raise


async def _is_missing(store: ObjectStore) -> bool:
    """Tell whether a bucket is known not to be there.

    Raises:
        Transient: if the server is away, or refuses us.

    """
    try:
        await listed(store, "ping/")
    except FileNotFoundError:
        return True
    except Refused as exc:
        raise Transient(str(exc)) from exc
    return False


@dataclass(frozen=True, slots=True)
class Placed:
    """Where content is, whether this call put it there, and the ETag that the store gave it, if any."""

    key: str
    new: bool
    etag: str = ""


class NamesTaken(Permanent):
    """Every key that content could have holds other content."""


async def put_new(
    store: ObjectStore, key: str, content: bytes, attributes: dict[str, str] | None = None
) -> Placed:
    """Store content once, never overwriting anything else.

    The key is taken if it is free. If the same content is there already, nothing is written. If other
    content has the name, the key gets a suffix made from the content's SHA-256; so a repeat, at any
    time, from anywhere, ends at the same key. What is there is compared byte by byte: a name proves nothing.

    Raises:
        NamesTaken: if other content has all of `possible_keys`.

    """
    for candidate in _keys(key, content):
        etag = await _create(store, candidate, content, attributes)
        if etag is not None:
            return Placed(candidate, new=True, etag=etag)
        etag = await _etag_of(store, candidate, content)
        if etag is not None:
            return Placed(candidate, new=False, etag=etag)
    raise NamesTaken(f"other content has the names {', '.join(_keys(key, content))}")


def _keys(key: str, content: bytes) -> Iterator[str]:
    """Yield `possible_keys`; nearly all content gets its own, for which its SHA-256 is not asked."""
    yield key
    yield from possible_keys(key, hashlib.sha256(content).hexdigest())[1:]


async def _etag_of(store: ObjectStore, key: str, content: bytes) -> str | None:
    """Return the ETag of an object if it has this content, else None."""
    try:
        with translated(f"read {key}"):
            result = await obstore.get_async(store, key)
            if result.meta["size"] != len(content) or await result.bytes_async() != content:
                return None
            return result.meta["e_tag"] or ""
    except FileNotFoundError as exc:
        raise Transient(f"{key} went while it was read") from exc


async def create(
    store: ObjectStore, key: str, content: bytes, attributes: dict[str, str] | None = None
) -> bool:
    """Store content if the key is free; tell whether it was."""
    return await _create(store, key, content, attributes or None) is not None


async def write(
    store: ObjectStore, key: str, content: bytes, attributes: dict[str, str] | None = None
) -> None:
    """Store content, replacing what was there."""
    async with writing(store, f"write {key}"):
        await obstore.put_async(store, key, content, attributes=attributes or None)


async def replace(store: ObjectStore, key: str, content: bytes, etag: str | None) -> bool:
    """Store content if the object still has this ETag (None: if it is not there); tell whether it had.

    A store without conditional replacing (501) is written to as it stands.
    """
    if etag is None:
        return await create(store, key, content)
    async with writing(store, f"replace {key}"):
        try:
            await obstore.put_async(store, key, content, mode={"e_tag": etag})
        except (PreconditionError, FileNotFoundError):
            return False
        except BaseError as exc:
            status = _STATUS.search(str(exc))
            if status is None or status[1] != "501":
                raise
            await obstore.put_async(store, key, content)
    return True


async def read_with_etag(store: ObjectStore, key: str) -> tuple[bytes, str | None]:
    """Return an object's content and its ETag, None where the store gives none; for small objects.

    Raises:
        FileNotFoundError: if it is not there.

    """
    with translated(f"read {key}"):
        result = await obstore.get_async(store, key)
        return bytes(await result.bytes_async()), result.meta["e_tag"]


async def pieces(store: ObjectStore, key: str) -> AsyncIterator[bytes]:
    """Yield the content of an object of any size as it comes.

    Raises:
        FileNotFoundError: if it is not there.

    """
    with translated(f"read {key}"):
        result = await obstore.get_async(store, key)
        async for piece in result.stream(min_chunk_size=STREAMED):
            yield bytes(piece)


async def read(store: ObjectStore, key: str) -> bytes:
    """Return an object's content; for small objects.

    Raises:
        FileNotFoundError: if it is not there.

    """
    content, _ = await read_with_facts(store, key)
    return content


async def facts(store: ObjectStore, key: str) -> dict[str, str]:
    """Return what is kept beside an object: its attributes, content type included; nothing of it is read.

    Raises:
        FileNotFoundError: if it is not there.

    """
    with translated(f"look at {key}"):
        try:
            result = await obstore.get_async(store, key, options={"head": True})
        except GenericError as exc:
            return (await _odd(store, "HEAD", key, exc))[1]
        return {str(name): str(value) for name, value in result.attributes.items()}


async def read_with_facts(store: ObjectStore, key: str) -> tuple[bytes, dict[str, str]]:
    """Return an object's content, and what is kept beside it; for small objects.

    Raises:
        FileNotFoundError: if it is not there.

    """
    with translated(f"read {key}"):
        try:
            result = await obstore.get_async(store, key)
        except GenericError as exc:
            return await _odd(store, "GET", key, exc)
        attributes = {str(name): str(value) for name, value in result.attributes.items()}
        return bytes(await result.bytes_async()), attributes


async def _odd(
    store: ObjectStore, method: Literal["GET", "HEAD"], key: str, error: GenericError
) -> tuple[bytes, dict[str, str]]:
    """Ask for an object without obstore, if it is the metadata that it cannot read; else raise its error."""
    if _ODD_METADATA not in str(error) or not isinstance(store, Bucket):
        raise error
    from caravan import s3_listing  # noqa: PLC0415

    return await s3_listing.fetched(store.address, store.name, method, key)


@dataclass(frozen=True, slots=True)
class Content:
    """What an object holds, None if that is too much to be read; and its ETag."""

    content: bytes | None
    e_tag: str | None


async def read_changed(store: ObjectStore, key: str, known: str | None, *, most: int) -> Content | None:
    """Return an object's content, or None if its ETag is still the one that is known.

    Args:
        store: the bucket.
        key: key of the object.
        known: the ETag of what was read before; None if nothing was.
        most: bytes that are read.

    Raises:
        FileNotFoundError: if it is not there.

    """
    options: GetOptions = {} if known is None else {"if_none_match": known}
    with translated(f"read {key}"):
        try:
            answer = await obstore.get_async(store, key, options=options)
        except NotModifiedError:
            return None
        content = bytes(await answer.bytes_async()) if answer.meta["size"] <= most else None
        return Content(content, answer.meta["e_tag"])


async def upload(store: ObjectStore, key: str, file: BinaryIO, size: int) -> None:
    """Store a file of any size, in pieces; it is there whole or not at all."""

    async def parts() -> AsyncIterator[bytes]:
        for start in range(0, size, PIECE):
            yield await asyncio.to_thread(_read_at, file, start)

    async with writing(store, f"write {key}"):
        if size <= PIECE:
            await obstore.put_async(store, key, await asyncio.to_thread(_read_at, file, 0))
        else:
            await obstore.put_async(store, key, parts(), chunk_size=PIECE, max_concurrency=2)


async def download(store: ObjectStore, key: str, file: BinaryIO) -> None:
    """Write an object of any size to a file, in pieces.

    Raises:
        FileNotFoundError: if it is not there.
        Transient: also if it is replaced meanwhile.

    """
    with translated(f"read {key}"):
        meta = await obstore.head_async(store, key)
        for start in range(0, meta["size"], PIECE):
            options: GetOptions = {"range": (start, min(start + PIECE, meta["size"]))}
            if meta["e_tag"] is not None:
                options["if_match"] = meta["e_tag"]
            try:
                result = await obstore.get_async(store, key, options=options)
            except PreconditionError as exc:
                raise Transient(f"{key} was replaced while it was read") from exc
            await asyncio.to_thread(file.write, await result.bytes_async())


def _read_at(file: BinaryIO, start: int) -> bytes:
    file.seek(start)
    return file.read(PIECE)


async def listing(
    store: ObjectStore, prefix: str = "", *, after: str = ""
) -> AsyncIterator[Mapping[str, Any]]:
    """Yield the metadata (`path`, `size`, `e_tag`, `last_modified`) of each object under a prefix.

    Keys come in the server's order, which is not always theirs: SeaweedFS has `tea/` before `tea-green/`.
    `after` leaves out those up to and with this one. A key that cannot be ours is passed over, and named.

    Raises:
        FileNotFoundError: if there is no such bucket.

    """
    async for page in pages(store, prefix, after=after):
        for entry in page:
            yield entry


async def pages(
    store: ObjectStore, prefix: str = "", *, after: str = ""
) -> AsyncIterator[Sequence[Mapping[str, Any]]]:
    """Yield what `listing` does, as it comes.

    Raises:
        FileNotFoundError: if there is no such bucket.

    """
    if isinstance(store, Bucket):
        from caravan import s3_listing  # noqa: PLC0415 - what lists nothing does without

        async for page in s3_listing.pages(store.address, store.name, prefix, after=after):
            yield page.objects
        return
    with translated(f"list {prefix!r}"):
        async for entries in obstore.list(store, prefix=prefix or None, offset=after or None):
            yield entries


async def raw_pages(store: ObjectStore, prefix: str) -> AsyncIterator[bytes]:
    """Yield what `pages` does as the server wrote it, at a third of the CPU; see `columns` and `objects`.

    Raises:
        FileNotFoundError: if there is no such bucket.

    """
    if isinstance(store, Bucket):
        from caravan import s3_listing  # noqa: PLC0415

        async for content in s3_listing.raw_pages(store.address, store.name, prefix):
            yield content
        return
    async for entries in pages(store, prefix):
        yield json.dumps([dict(entry) for entry in entries], default=datetime.isoformat).encode()


def objects(store: ObjectStore, content: bytes) -> Sequence[Mapping[str, Any]]:
    """Return the metadata of each object on a raw page, as `listing` does."""
    if isinstance(store, Bucket):
        from caravan import s3_listing  # noqa: PLC0415

        return s3_listing.read(content, store.name).objects
    listed: Sequence[Mapping[str, Any]] = strict_json.loads(content)
    return listed


def columns(store: ObjectStore, content: bytes) -> list[tuple[str, str, str]]:
    """Return key, ETag and size of each object on a raw page, to be compared; none of an odd page."""
    if isinstance(store, Bucket):
        from caravan import s3_listing  # noqa: PLC0415

        return s3_listing.columns(content)
    return []


class OddKey(Exception):
    """A key that obstore has no path for; `listing` passes over it."""


async def fast_pages(store: ObjectStore, prefix: str) -> AsyncIterator[Sequence[Mapping[str, Any]]]:
    """Yield what `pages` does, at half its CPU: for buckets of hundreds of thousands.

    Raises:
        OddKey: if the bucket has one.
        FileNotFoundError: if there is no such bucket.

    """
    with _as_listing(prefix):
        async for page in obstore.list(store, prefix=prefix, chunk_size=1000):
            yield page


@contextmanager
def _as_listing(prefix: str) -> Iterator[None]:
    """Translate errors, for a missing bucket to FileNotFoundError, for a key without a path to OddKey."""
    try:
        with translated(f"list {prefix!r}"):
            yield
    except BucketMissing as exc:
        raise FileNotFoundError(str(exc)) from exc
    except Transient as exc:
        cause = exc.__cause__
        if isinstance(cause, InvalidPathError):
            raise OddKey(str(exc)) from exc
        if isinstance(cause, BaseError) and _told(cause)[0] == _NOT_FOUND:
            raise FileNotFoundError(str(exc)) from exc
        raise


async def listed(store: ObjectStore, prefix: str) -> list[Mapping[str, Any]]:
    """Return what `listing` yields, at half its CPU where no key is odd.

    Raises:
        FileNotFoundError: if there is no such bucket.

    """
    try:
        return [entry async for page in fast_pages(store, prefix) for entry in page]
    except OddKey:
        return [entry async for page in pages(store, prefix) for entry in page]


async def count(store: ObjectStore, prefix: str) -> int:
    """Return how many objects there are under a prefix.

    Raises:
        FileNotFoundError: if there is no such bucket.

    """
    try:
        return sum([len(page) async for page in fast_pages(store, prefix)])
    except OddKey:
        return sum([len(page) async for page in pages(store, prefix)])


async def folders(store: ObjectStore, prefix: str = "") -> list[str]:
    """Return what lies one level below a prefix, each with its slash at the end; no object is listed.

    A folder may be named whose objects are all gone: SeaweedFS keeps such for minutes.

    Raises:
        FileNotFoundError: if there is no such bucket.

    """
    try:
        with _as_listing(prefix):
            listed = await obstore.list_with_delimiter_async(store, prefix=prefix or None)
            return [f"{folder}/" for folder in listed["common_prefixes"]]
    except OddKey:
        if not isinstance(store, Bucket):
            raise
    from caravan import s3_listing  # noqa: PLC0415

    found = s3_listing.pages(store.address, store.name, prefix, delimiter="/")
    return [folder async for page in found for folder in page.folders]


async def delete(store: ObjectStore, keys: Collection[str]) -> None:
    """Delete objects; a missing one is no error."""
    with translated(f"delete {len(keys)} objects"):
        for key in keys:
            try:
                await obstore.delete_async(store, key)
            except FileNotFoundError:
                continue


async def _create(
    store: ObjectStore, key: str, content: bytes, attributes: dict[str, str] | None
) -> str | None:
    """Return the ETag of a new object, empty where the store gives none; None if the key is taken."""
    async with writing(store, f"create {key}"):
        try:
            result = await obstore.put_async(store, key, content, mode="create", attributes=attributes)
        except AlreadyExistsError:
            return None
        return result["e_tag"] or ""


async def ensure_buckets(address: S3Address, names: Collection[str]) -> None:
    """Make the buckets that are not there yet; where all are, no right to make any is needed.

    Raises:
        Transient: if the server is away or will not.

    """
    missing = [name for name in names if await _is_missing(open_bucket(address, name))]
    if missing:
        from caravan import s3_listing  # noqa: PLC0415

        for name in missing:
            await s3_listing.make_bucket(address, name)


async def keep_buckets(address: S3Address, names: Collection[str]) -> NoReturn:
    """Make buckets that are not there, now and whenever someone removes one; for `retry.forever`.

    Raises:
        Transient: if the server is away or will not.

    """
    while True:
        await ensure_buckets(address, names)
        await asyncio.sleep(KEEP_SECONDS)


async def ping(address: S3Address, bucket: str) -> None:
    """Check that the server answers and has the bucket.

    Raises:
        Transient: if not.

    """
    store = open_bucket(address, bucket)
    with suppress(CaravanError, FileNotFoundError):
        await listed(store, "ping/")
        return
    try:  # at thrice the CPU, but it says why
        async for _ in pages(store, "ping/"):
            return
    except (CaravanError, FileNotFoundError) as exc:
        message = f"bucket {bucket} at {address.endpoint}: {exc}"
        raise Transient(message) from exc


async def ping_any(address: S3Address, buckets: Sequence[str]) -> None:
    """Check that the server answers and has one of several buckets: that one of them refuses is no outage.

    Raises:
        Transient: if not; it says what is wrong with the first.

    """
    asked = [asyncio.create_task(ping(address, bucket)) for bucket in buckets[:MOST_PINGED]]
    try:
        for answer in asyncio.as_completed(asked):
            with suppress(Transient):
                return await answer
        await asked[0]
    finally:
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)


def _why(exc: BaseError) -> str:
    """Return a line that says what failed, and where it can, what to look at."""
    status, word = _told(exc)
    if status in _REFUSED:
        return f"it answers {status} {word}: check the access key, its rights and the clock"
    unreached = _UNREACHED.search(str(exc))
    if unreached is None:
        return _first_line(exc)
    word = f": {unreached[2]}" if unreached[2] else ""
    return f"no connection to {unreached[1]}{word}"


def _first_line(exc: BaseException) -> str:
    return next(iter(str(exc).splitlines()), type(exc).__name__)
