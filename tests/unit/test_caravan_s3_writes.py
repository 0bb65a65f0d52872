"""Writes to a store that says no: whose fault that is, and what is to be done."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from pydantic import SecretStr

from caravan import s3
from caravan.errors import Refused, Transient
from caravan.settings import S3Address

Answer = Callable[[str, bytes], tuple[int, str]]
NO_BUCKET = (404, "<Error><Code>NoSuchBucket</Code></Error>")
EMPTY = (200, "<ListBucketResult></ListBucketResult>")


@asynccontextmanager
async def bucket(answer: Answer) -> AsyncIterator[s3.Bucket]:
    """Serve a bucket that answers as a function of method and head says."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                size = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
                await reader.readexactly(int(size[1]) if size else 0)
                status, body = answer(head.split(b" ")[0].decode(), head)
                fields = f'HTTP/1.1 {status} -\r\nETag: "e"\r\nContent-Length: {len(body)}\r\n\r\n'
                writer.write((fields + body).encode())
                await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield s3.open_bucket(S3Address(url, SecretStr("k"), SecretStr("s"), "us-east-1", None), "photos")
    finally:
        server.close()


def error(code: str) -> str:
    return f"<Error><Code>{code}</Code></Error>"


@pytest.mark.parametrize(
    "answer",
    [
        lambda _method, _head: NO_BUCKET,
        lambda method, _head: (403, error("AccessDenied")) if method == "PUT" else NO_BUCKET,
    ],
    ids=["404", "403, as some have it"],
)
async def test_a_bucket_that_is_gone_is_a_passing_fault_of_any_write(answer: Answer) -> None:
    async with bucket(answer) as store:
        for write in (s3.put_new, s3.create, s3.write):
            with pytest.raises(s3.BucketMissing) as caught:
                await write(store, "images/tea/a.jpg", b"content")
            assert isinstance(caught.value, Transient)


async def test_rights_that_are_missing_are_no_missing_bucket() -> None:
    async with bucket(lambda method, _: (403, error("AccessDenied")) if method == "PUT" else EMPTY) as store:
        with pytest.raises(Refused):
            await s3.write(store, "a", b"content")


async def test_a_clock_that_is_wrong_is_named_and_waited_for() -> None:
    async with bucket(lambda *_: (403, error("RequestTimeTooSkewed"))) as store:
        for ask in (s3.put_new(store, "a", b"content"), s3.read(store, "a"), anext(s3.pages(store))):
            with pytest.raises(Transient, match="clocks here and there are too far apart"):
                await ask


@pytest.mark.parametrize("code", ["MetadataTooLarge", "KeyTooLongError", "KeyTooLong", "EntityTooLarge"])
async def test_what_a_store_says_of_one_object_is_that_ones(code: str) -> None:
    async with bucket(lambda *_: (400, error(code))) as store:
        with pytest.raises(s3.Unstorable, match=code):
            await s3.put_new(store, "a", b"content")


@pytest.mark.parametrize("code", ["ExpiredToken", "AuthorizationHeaderMalformed", "RequestTimeout"])
async def test_what_a_store_says_of_the_request_is_no_objects_fault(code: str) -> None:
    async with bucket(lambda *_: (400, error(code))) as store:
        with pytest.raises(Transient):
            await s3.put_new(store, "a", b"content")


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (403, "QuotaExceeded"),
        (400, "XMinioAdminBucketQuotaExceeded"),
        (507, "XMinioStorageFull"),
        (507, "Whatever"),
    ],
)
async def test_a_store_without_room_is_neither_the_objects_nor_the_keys_fault(status: int, code: str) -> None:
    async with bucket(lambda *_: (status, f"<Error><Code>{code}</Code></Error>")) as store:
        with pytest.raises(s3.StoreFull, match="quota is used up"):
            await s3.write(store, "key", b"content")


async def test_one_bucket_that_refuses_is_no_outage() -> None:
    def answer(_: str, head: bytes) -> tuple[int, str]:
        return EMPTY if b"/good?" in head else (403, error("AccessDenied"))

    async with bucket(answer) as store:
        await s3.ping_any(store.address, ["bad", "good", "worse"])
        with pytest.raises(Transient, match="bad"):
            await s3.ping_any(store.address, ["bad", "worse"])


async def test_one_bucket_that_hangs_is_no_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    async def ping(_: S3Address, name: str) -> None:
        if name == "hangs":
            await asyncio.Event().wait()

    monkeypatch.setattr(s3, "ping", ping)
    async with bucket(lambda *_: EMPTY) as store, asyncio.timeout(5):
        await s3.ping_any(store.address, ["hangs", "good"])


async def test_a_key_that_there_is_no_path_for_is_that_keys_fault() -> None:
    async with bucket(lambda *_: EMPTY) as store:
        for call in (s3.read(store, "images//a.jpg"), s3.write(store, "images//a.jpg", b"content")):
            with pytest.raises(s3.Unstorable, match=r"images//a\.jpg"):
                await call


async def test_a_store_that_cannot_replace_on_a_condition_is_written_to_as_it_stands() -> None:
    conditions: list[bool] = []

    def answer(_: str, head: bytes) -> tuple[int, str]:
        conditions.append(b"if-match" in head.lower())
        return (501, error("NotImplemented")) if conditions[-1] else (200, "")

    async with bucket(answer) as store:
        assert await s3.replace(store, "a", b"content", '"e"')
    assert conditions[-1] is False
