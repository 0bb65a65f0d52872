"""The doors of the store: an ASGI application that speaks as much of S3 as an edge needs.

Buckets: list, make, look, remove. Objects: put, get, look, remove, copy, remove many, list, put in parts.
Whatever else S3 has is answered with 501.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import partial
from urllib.parse import unquote_to_bytes

from starlette.types import Receive, Scope, Send

from local_stack.file_store import documents
from local_stack.file_store.body import Body
from local_stack.file_store.conditions import asked_range, check_write, is_unchanged
from local_stack.file_store.errors import Disconnected, S3Error
from local_stack.file_store.facts import Facts
from local_stack.file_store.files import Draft, Files
from local_stack.file_store.signature import check
from local_stack.file_store.uploads import MAX_NUMBER, Uploads
from local_stack.file_store.walk import page

log = logging.getLogger(__name__)

PIECE = 2**18
"""Bytes of an object that are in memory at once."""
MAX_DOCUMENT = 2 * 2**20
MAX_KEYS = 1000
KEPT_HEADERS = (
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-type",
    "expires",
)
METADATA = "x-amz-meta-"
LISTING = {"list-type", "prefix", "delimiter", "max-keys", "encoding-type", "fetch-owner"} | {
    *("continuation-token", "start-after", "marker", "x-id")
}
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True, slots=True)
class Request:
    """One request: `key` is empty where a bucket is asked, the bucket too where the server is."""

    method: str
    bucket: str
    key: bytes
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Body

    @property
    def operation(self) -> tuple[str, ...]:
        """Its method, and the parameters that say what is asked for."""
        return self.method, *sorted(set(self.query) - LISTING)

    @property
    def kept_headers(self) -> dict[str, str]:
        """The headers that are kept with an object. Its coding for the way (`aws-chunked`) is none of it."""
        kept = {n: v for n, v in self.headers.items() if n in KEPT_HEADERS or n.startswith(METADATA)}
        codings = (one.strip() for one in kept.pop("content-encoding", "").split(","))
        coding = ",".join(one for one in codings if one not in ("", "aws-chunked"))
        return kept | ({"content-encoding": coding} if coding else {})


@dataclass(slots=True)
class Answer:
    """What is answered: a content, or the bytes from `start` to `end` of a file, which is closed then."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    content: bytes = b""
    file: int | None = None
    start: int = 0
    end: int = 0


class App:
    """The application. `keys` are the one access key that it takes, and its secret."""

    def __init__(self, files: Files, uploads: Uploads, keys: tuple[str, str]) -> None:
        self._files = files
        self._uploads = uploads
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        path = scope["raw_path"].decode("latin-1").partition("?")[0]
        try:
            answer = await self._answer(self._read(scope, path, receive))
        except Disconnected:
            return
        except (S3Error, OSError) as exc:
            fault = exc if isinstance(exc, S3Error) else _told(exc)
            content = documents.error(fault, path)
            answer = Answer(fault.status, {"content-type": "application/xml"}, content)
        await _send(answer, scope["method"], send)

    def _read(self, scope: Scope, path: str, receive: Receive) -> Request:
        headers: dict[str, str] = {}
        for raw_name, raw_value in scope["headers"]:
            name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
            headers[name] = f"{headers[name]},{value}" if name in headers else value
        query = scope["query_string"].decode("latin-1")
        signature = check(scope["method"], path, query, headers, self._keys)
        bucket, _, key = unquote_to_bytes(path.removeprefix("/")).partition(b"/")
        pairs = (pair.partition("=") for pair in query.split("&") if pair)
        try:
            asked = {unquote_to_bytes(n).decode(): unquote_to_bytes(v).decode() for n, _, v in pairs}
        except UnicodeDecodeError as exc:
            raise S3Error("InvalidArgument") from exc
        body = Body(receive, headers, signature)
        return Request(scope["method"], bucket.decode("latin-1"), key, asked, headers, body)

    async def _answer(self, request: Request) -> Answer:
        if not request.bucket:
            return await self._ask_server(request)
        return await (self._ask_object(request) if request.key else self._ask_bucket(request))

    async def _ask_server(self, request: Request) -> Answer:
        if request.method != "GET":
            raise S3Error("MethodNotAllowed")
        return _xml(documents.buckets(await asyncio.to_thread(self._files.buckets)))

    # --- buckets ------------------------------------------------------------------------------------

    async def _ask_bucket(self, request: Request) -> Answer:
        match request.operation:
            case ["PUT"]:
                await _all(request.body)  # where it should be; there is one region
                await asyncio.to_thread(self._files.make_bucket, request.bucket)
                return Answer(headers={"location": f"/{request.bucket}"})
            case ["HEAD"]:
                await asyncio.to_thread(self._files.bucket, request.bucket)
                return Answer()
            case ["DELETE"]:
                await asyncio.to_thread(self._files.remove_bucket, request.bucket)
                return Answer(204)
            case ["GET"]:
                return await asyncio.to_thread(self._list, request)
            case ["GET", "location" | "versioning" as facts]:
                await asyncio.to_thread(self._files.bucket, request.bucket)
                names = {"location": "LocationConstraint", "versioning": "VersioningConfiguration"}
                return _xml(documents.document(names[facts], ""))
            case ["POST", "delete"]:
                keys, quiet = documents.keys_to_delete(await _all(request.body))
                return await asyncio.to_thread(self._remove, request.bucket, keys, quiet=quiet)
        raise S3Error("NotImplemented")

    def _list(self, request: Request) -> Answer:
        query = request.query
        try:
            most = min(int(query.get("max-keys") or MAX_KEYS), MAX_KEYS)
        except ValueError as exc:
            raise S3Error("InvalidArgument") from exc
        if most < 0:
            raise S3Error("InvalidArgument")
        after = query.get("start-after" if query.get("list-type") == "2" else "marker", "").encode()
        if "continuation-token" in query:
            after = documents.after_token(query["continuation-token"])
        found = page(
            self._files.bucket(request.bucket),
            prefix=query.get("prefix", "").encode(),
            delimiter=query.get("delimiter", "").encode(),
            after=after,
            most=most,
        )
        return _xml(documents.listing(request.bucket, found, query, most))

    def _remove(self, bucket: str, keys: list[str], *, quiet: bool) -> Answer:
        self._files.bucket(bucket)
        gone, faults = [], []
        for key in keys:
            try:
                self._files.remove(bucket, key.encode())
                gone.append(key)
            except S3Error as exc:
                faults.append((key, exc))
        return _xml(documents.deleted([] if quiet else gone, faults))

    # --- objects ------------------------------------------------------------------------------------

    async def _ask_object(self, request: Request) -> Answer:
        copied = "x-amz-copy-source" in request.headers
        match request.operation:
            case ["GET" | "HEAD"]:
                return await asyncio.to_thread(self._get, request)
            case ["PUT"]:
                return await (self._copy(request) if copied else self._put(request))
            case ["DELETE"]:
                condition = partial(check_write, request.headers)
                await asyncio.to_thread(self._files.remove, request.bucket, request.key, condition)
                return Answer(204)
            case ["PUT", "partNumber", "uploadId"] if not copied:
                return await self._put_part(request)
            case ["POST", "uploadId"]:
                return await self._complete(request)
            case ["POST", "uploads"] | ["DELETE", "uploadId"]:
                return await asyncio.to_thread(self._begin_or_abort, request)
        raise S3Error("NotImplemented")

    def _begin_or_abort(self, request: Request) -> Answer:
        if request.method == "DELETE":
            self._uploads.abort(request.query["uploadId"], request.bucket, request.key)
            return Answer(204)
        inner = documents.element("Bucket", request.bucket) + documents.element("Key", request.key.decode())
        upload = self._uploads.begin(request.bucket, request.key, request.kept_headers)
        inner += documents.element("UploadId", upload)
        return _xml(documents.document("InitiateMultipartUploadResult", inner))

    def _get(self, request: Request) -> Answer:
        fd, about = self._files.opened(request.bucket, request.key)
        answer = None
        try:
            headers = _headers(about)
            if is_unchanged(request.headers, about):
                return Answer(304, headers)
            part = asked_range(request.headers.get("range"), about.size)
            start, end = part or (0, about.size)
            headers["content-length"] = str(end - start)
            if part:
                headers["content-range"] = f"bytes {start}-{end - 1}/{about.size}"
            answer = Answer(206 if part else 200, headers)
            if request.method == "GET" and end - start <= PIECE:
                answer.content = os.pread(fd, end - start, start)
            elif request.method == "GET":
                answer.file, answer.start, answer.end = fd, start, end
            return answer
        finally:
            if answer is None or answer.file is None:
                os.close(fd)

    async def _put(self, request: Request) -> Answer:
        async with self._received(request.body) as draft:
            condition = partial(check_write, request.headers)
            arguments = request.bucket, request.key, request.kept_headers, condition
            about = await asyncio.to_thread(self._files.keep, draft, *arguments)
        return Answer(headers={"etag": f'"{about.etag}"'})

    async def _copy(self, request: Request) -> Answer:
        await _all(request.body)
        about = await asyncio.to_thread(self._copied, request)
        inner = documents.element("ETag", f'"{about.etag}"')
        inner += documents.element("LastModified", documents.iso(about.modified))
        return _xml(documents.document("CopyObjectResult", inner))

    def _copied(self, request: Request) -> Facts:
        source = request.headers["x-amz-copy-source"].partition("?")[0]
        bucket, _, key = unquote_to_bytes(source).removeprefix(b"/").partition(b"/")
        with self._files.open(bucket.decode("latin-1"), key) as (fd, about):
            if is_unchanged(request.headers, about, "x-amz-copy-source-"):
                raise S3Error("PreconditionFailed")
            replaced = request.headers.get("x-amz-metadata-directive") == "REPLACE"
            draft = self._files.draft()
            try:
                draft.copy(fd)
                draft.etag = about.etag
                headers = request.kept_headers if replaced else about.headers
                condition = partial(check_write, request.headers)
                return self._files.keep(draft, request.bucket, request.key, headers, condition)
            finally:
                draft.discard()

    async def _put_part(self, request: Request) -> Answer:
        text = request.query["partNumber"]
        number = int(text) if text.isdecimal() else 0
        if not 0 < number <= MAX_NUMBER:
            raise S3Error("InvalidArgument", f"a part's number is 1 to {MAX_NUMBER}")
        async with self._received(request.body) as draft:
            arguments = request.query["uploadId"], request.bucket, request.key, number, draft
            await asyncio.to_thread(self._uploads.keep, *arguments)
            return Answer(headers={"etag": f'"{draft.etag}"'})

    async def _complete(self, request: Request) -> Answer:
        parts = documents.parts_to_join(await _all(request.body))
        condition = partial(check_write, request.headers)
        arguments = request.query["uploadId"], request.bucket, request.key, parts, condition
        about = await asyncio.to_thread(self._uploads.complete, *arguments)
        inner = documents.element("Bucket", request.bucket)
        inner += documents.element("Key", request.key.decode()) + documents.element("ETag", f'"{about.etag}"')
        return _xml(documents.document("CompleteMultipartUploadResult", inner))

    @asynccontextmanager
    async def _received(self, body: Body) -> AsyncIterator[Draft]:
        """Write a body to a draft; it goes at the end, unless it was kept."""
        draft = await asyncio.to_thread(self._files.draft)
        try:
            pieces, size = [], 0
            async for piece in body.pieces():
                pieces.append(piece)
                size += len(piece)
                if size >= PIECE:
                    await asyncio.to_thread(draft.write, pieces)
                    pieces, size = [], 0
            await asyncio.to_thread(draft.write, pieces)
            yield draft
        finally:
            draft.discard()


def _headers(about: Facts) -> dict[str, str]:
    return {
        **about.headers,
        "etag": f'"{about.etag}"',
        "last-modified": formatdate(about.modified // 10**9, usegmt=True),
        "accept-ranges": "bytes",
    }


def _xml(content: bytes) -> Answer:
    return Answer(headers={"content-type": "application/xml"}, content=content)


def _told(fault: OSError) -> S3Error:
    if fault.errno in _NO_ROOM:
        return S3Error("InsufficientStorage")
    if fault.errno == errno.ENAMETOOLONG:
        return S3Error("KeyTooLongError")
    log.error("a file cannot be read or written: %s", fault)
    return S3Error("InternalError")


async def _all(body: Body) -> bytes:
    content = bytearray()
    async for piece in body.pieces():
        content += piece
        if len(content) > MAX_DOCUMENT:
            raise S3Error("EntityTooLarge")
    return bytes(content)


async def _send(answer: Answer, method: str, send: Send) -> None:
    try:
        headers = dict(answer.headers)
        if answer.status not in (204, 304):
            headers.setdefault("content-length", str(len(answer.content)))
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": answer.status, "headers": raw})
        at = answer.start
        while answer.file is not None and at < answer.end:
            piece = await asyncio.to_thread(os.pread, answer.file, min(PIECE, answer.end - at), at)
            at += len(piece)
            if not piece:
                return  # it was cut short by others: the connection ends before its content does
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        content = b"" if method == "HEAD" else answer.content
        await send({"type": "http.response.body", "body": content})
    finally:
        if answer.file is not None:
            os.close(answer.file)
