"""Listings: whatever the keys of a bucket are, those that can be ours are told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from urllib.parse import parse_qs, quote_plus, unquote_plus, urlsplit

import pytest
from obstore.store import MemoryStore
from prometheus_client import REGISTRY
from pydantic import SecretStr

from caravan import s3
from caravan.errors import Permanent, Refused, Transient
from caravan.settings import S3Address

URL = "<EncodingType>url</EncodingType>"
DAY = "2026-11-28T00:58:41.000Z"


class Server:
    """Answers as S3 does: with these bodies, in this order, the last one again and again."""

    def __init__(self, answers: Sequence[tuple[int, str]]) -> None:
        self._answers = list(answers)
        self.asked: list[dict[str, list[str]]] = []
        self.signed = True
        self.beside = b""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await _head(reader):
            self.asked.append(parse_qs(urlsplit(head.split(b" ")[1].decode()).query))
            self.signed &= b"authorization: aws4-hmac-sha256 credential=key/" in head.lower()
            status, body = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
            content = body.encode()
            length = b"Content-Length: %d\r\n%b" % (len(content), self.beside)
            writer.write(b"HTTP/1.1 %d -\r\n%b\r\n%b" % (status, length, content))
            await writer.drain()


async def _head(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""


@asynccontextmanager
async def bucket(*answers: tuple[int, str]) -> AsyncIterator[tuple[s3.Bucket, Server]]:
    fake = Server(answers)
    server = await asyncio.start_server(fake.answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    keys = SecretStr("key"), SecretStr("secret")
    address = S3Address(f"http://127.0.0.1:{port}", *keys, "us-east-1", None)
    try:
        yield s3.open_bucket(address, "photos"), fake
    finally:
        server.close()


def page(*keys: bytes, folders: Sequence[str] = (), token: str = "") -> tuple[int, str]:
    entries = "".join(
        f"<Contents><Key>{quote_plus(key)}</Key><ETag>&quot;e&quot;</ETag><Size>3</Size>"
        f"<LastModified>{DAY}</LastModified></Contents>"
        for key in keys
    )
    prefixes = "".join(
        f"<CommonPrefixes><Prefix>{quote_plus(name)}</Prefix></CommonPrefixes>" for name in folders
    )
    more = f"<NextContinuationToken>{token}</NextContinuationToken>" if token else ""
    namespace = "http://s3.amazonaws.com/doc/2006-03-01/"
    return 200, f'<ListBucketResult xmlns="{namespace}">{entries}{prefixes}{more}{URL}</ListBucketResult>'


async def keys_of(store: s3.Bucket, prefix: str = "images/") -> list[str]:
    return [entry["path"] async for entry in s3.listing(store, prefix)]


def passed_over() -> float:
    return REGISTRY.get_sample_value("caravan_odd_keys_total", {"bucket": "photos"}) or 0.0


async def test_a_key_that_cannot_be_ours_is_passed_over_and_counted_and_the_rest_is_listed() -> None:
    odd = [
        b"images/t\tea/a.jpg",
        b"images//a.jpg",
        b"images/../a.jpg",
        b"images/./a",
        b"images/\xff.jpg",
        b"/a",
    ]
    mine = ["images/tea/a.jpg", "images/grüner tee/ü+%2F&.jpg", "images/tea/9.41\u202fAM.png"]
    before = passed_over()
    async with bucket(page(*odd, *(key.encode() for key in mine))) as (store, server):
        assert await keys_of(store) == mine
    assert passed_over() == before + len(odd)
    assert server.signed


async def test_the_mark_of_an_empty_folder_is_no_image_and_nothing_amiss() -> None:
    before = passed_over()
    async with bucket(page(b"images/tea/", b"images/tea/a.jpg")) as (store, _):
        assert await keys_of(store) == ["images/tea/a.jpg"]
    assert passed_over() == before


async def test_pages_follow_each_other_by_the_servers_token() -> None:
    async with bucket(page(b"images/a", token="t+1"), page(b"images/b")) as (store, server):
        listed = [entry async for entry in s3.listing(store, "images/", after="images/0")]
    assert [(entry["path"], entry["size"]) for entry in listed] == [("images/a", 3), ("images/b", 3)]
    first, second = server.asked
    assert (first["prefix"], first["start-after"]) == (["images/"], ["images/0"])
    assert second["continuation-token"] == ["t+1"]


def plain(answer: tuple[int, str]) -> tuple[int, str]:
    """Return a page as who does not ask for encoded keys is given it."""
    return answer[0], unquote_plus(answer[1].replace(URL, ""))


async def test_folders_are_named_by_one_request() -> None:
    async with bucket(plain(page(b"models/x.txt", folders=["models/tea b/"]))) as (store, server):
        assert await s3.folders(store, "models/") == ["models/tea b/"]
    assert [query["delimiter"] for query in server.asked] == [["/"]]


async def test_odd_folders_are_passed_over() -> None:
    answer = page(b"models/x.txt", folders=["models/tea b/", "models//"])
    async with bucket(plain(answer), answer) as (store, server):
        assert await s3.folders(store, "models/") == ["models/tea b/"]
    assert [query.get("encoding-type") for query in server.asked] == [None, ["url"]]


async def test_of_a_bucket_that_is_not_there_no_folders_are_named() -> None:
    async with bucket((404, "<Error><Code>NoSuchBucket</Code></Error>")) as (store, _):
        with pytest.raises(FileNotFoundError):
            await s3.folders(store, "models/")


async def test_a_store_in_memory_lists_alike() -> None:
    store = MemoryStore()
    await s3.write(store, "models/tea/1/a", b"x")
    assert await s3.folders(store, "models/") == ["models/tea/"]
    assert [entry["path"] async for entry in s3.listing(store, "models/")] == ["models/tea/1/a"]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ((404, "<Error/>"), FileNotFoundError),
        ((403, "<Error/>"), Permanent),
        ((400, "<Error/>"), Transient),
        ((200, "<html>"), Transient),
        ((200, "<a><Contents/></a>"), Transient),
    ],
)
async def test_what_is_no_listing_is_told_apart(answer: tuple[int, str], error: type[Exception]) -> None:
    async with bucket(answer) as (store, _):
        with pytest.raises(error):
            await keys_of(store)


async def test_a_server_that_fails_once_is_asked_again() -> None:
    async with bucket((503, ""), page(b"images/a")) as (store, server):
        assert await keys_of(store) == ["images/a"]
    assert len(server.asked) == 2


async def test_of_a_store_that_is_not_there_a_line_tells_the_address_and_why() -> None:
    async with bucket((200, "")) as (store, _):
        pass
    with pytest.raises(Transient) as refused:
        await s3.listed(store, "images/")
    start, why = str(refused.value).rsplit(": ", 1)
    assert start.startswith("S3 could not list 'images/': no connection to http://127.0.0.1:")
    assert why == "Connection refused"


async def test_a_listing_that_is_refused_says_what_to_check() -> None:
    refused = "<Error><Code>SignatureDoesNotMatch</Code></Error>"
    async with bucket((403, refused)) as (store, _):
        with pytest.raises(Transient, match="it answers 403 SignatureDoesNotMatch: check the access key"):
            await s3.listed(store, "images/")


async def test_a_listing_that_is_refused_for_the_clock_says_so_alone() -> None:
    async with bucket(*[(403, "<Error><Code>RequestTimeTooSkewed</Code></Error>")] * 20) as (store, _):
        for listing in (s3.listed, s3.folders, s3.count):
            with pytest.raises(Transient, match=r"list .*: the clocks here and there are too far apart$"):
                await listing(store, "images/")


@pytest.mark.parametrize(
    ("status", "code", "answered"),
    [
        (403, "AccessDenied", True),
        (400, "InvalidBucketName", True),
        (403, "RequestTimeTooSkewed", False),
        (429, "SlowDown", False),
    ],
)
async def test_a_store_that_will_not_list_folders_is_told_from_one_that_is_away(
    status: int, code: str, *, answered: bool
) -> None:
    async with bucket(*[(status, f"<Error><Code>{code}</Code></Error>")] * 20) as (store, _):
        with pytest.raises(Transient) as failed:
            await s3.folders(store, "models/")
    assert isinstance(failed.value, s3.Declined) == answered


def entry(key: str) -> str:
    return f"<Contents><Key>{key}</Key><LastModified>{DAY}</LastModified><Size>3</Size></Contents>"


async def test_keys_are_taken_as_they_are_of_a_server_that_does_not_encode_them() -> None:
    async with bucket((200, f"<a>{entry('a+b')}{entry('100%25')}</a>")) as (store, _):
        assert await keys_of(store) == ["a+b", "100%25"]


async def test_a_page_that_is_cut_off_between_two_objects_is_none() -> None:
    async with bucket((200, f"<a>{entry('a')}{entry('b')}")) as (store, _):
        with pytest.raises(Transient):
            await keys_of(store)


# --- pages to be compared -------------------------------------------------------------------------


def listed(*entries: str, more: str = "") -> tuple[int, str]:
    return 200, f"<a>{''.join(entries)}{more}</a>"


def contents(key: str, *, etag: str = "&quot;e&quot;") -> str:
    facts = f"<LastModified>{DAY}</LastModified><ETag>{etag}</ETag><Size>3</Size>"
    return f"<Contents><Key>{key}</Key>{facts}</Contents>"


@pytest.mark.parametrize("etag", ["e", '"e"', "&quot;e&quot;", "&#34;e&#34;"])
async def test_a_page_has_columns_that_are_what_its_objects_say(etag: str) -> None:
    async with bucket(listed(contents("images/a b", etag=etag), contents("images/c", etag=etag))) as (
        store,
        _,
    ):
        (raw,) = [raw async for raw in s3.raw_pages(store, "images/")]
        assert s3.columns(store, raw) == [("images/a b", "e", "3"), ("images/c", "e", "3")]
        assert [each["path"] for each in s3.objects(store, raw)] == ["images/a b", "images/c"]


@pytest.mark.parametrize("key", ["images/a+b", "images/a%20b", "images/a&amp;b"])
async def test_a_page_with_a_key_that_has_to_be_decoded_has_no_columns(key: str) -> None:
    async with bucket(listed(contents("images/c"), contents(key), more=URL)) as (store, _):
        (raw,) = [raw async for raw in s3.raw_pages(store, "images/")]
        assert s3.columns(store, raw) == []
        assert len(s3.objects(store, raw)) == 2


async def test_an_object_without_an_etag_has_no_column() -> None:
    async with bucket((200, f"<a>{entry('images/a')}</a>")) as (store, _):
        (raw,) = [raw async for raw in s3.raw_pages(store, "images/")]
        assert s3.columns(store, raw) == []


@pytest.mark.parametrize("token", ["t&amp;1", "<![CDATA[t&1]]>"])
async def test_raw_pages_follow_each_other_by_the_servers_token(token: str) -> None:
    more = f"<IsTruncated>true</IsTruncated><NextContinuationToken>{token}</NextContinuationToken>"
    end = "<IsTruncated>false</IsTruncated>"
    async with bucket(listed(contents("a"), more=more), listed(contents("b"), more=end)) as (store, server):
        raw = [raw async for raw in s3.raw_pages(store, "images/")]
    assert len(raw) == 2
    assert server.asked[1]["continuation-token"] == ["t&1"]
    assert server.signed


@pytest.mark.parametrize(
    ("answer", "error"),
    [((404, "<Error/>"), FileNotFoundError), ((403, "<Error/>"), Permanent), ((200, "<html>"), Transient)],
)
async def test_what_is_no_raw_page_is_told_apart(answer: tuple[int, str], error: type[Exception]) -> None:
    async with bucket(answer) as (store, _):
        with pytest.raises(error):
            [raw async for raw in s3.raw_pages(store, "images/")]


async def test_a_server_that_is_away_is_told_of_raw_pages() -> None:
    async with bucket((200, "<a/>")) as (store, _):
        pass
    with pytest.raises(Transient):
        [raw async for raw in s3.raw_pages(store, "images/")]


async def test_a_bucket_that_is_missing_is_made_by_a_signed_request() -> None:
    async with bucket((404, "<Error/>"), (200, "")) as (store, server):
        await s3.ensure_buckets(store.address, ["photos"])
    assert len(server.asked) == 2
    assert server.signed


@pytest.mark.parametrize("code", ["BucketAlreadyOwnedByYou", "BucketAlreadyExists"])
async def test_a_bucket_that_another_made_meanwhile_is_taken(code: str) -> None:
    async with bucket((404, "<Error/>"), (409, f"<Error><Code>{code}</Code></Error>")) as (store, _):
        await s3.ensure_buckets(store.address, ["photos"])


@pytest.mark.parametrize(("status", "code"), [(403, "AccessDenied"), (409, "OperationAborted")])
async def test_a_server_that_makes_no_bucket_is_told_of_by_what_it_says(status: int, code: str) -> None:
    async with bucket((404, "<Error/>"), (status, f"<Error><Code>{code}</Code></Error>")) as (store, _):
        with pytest.raises(Transient, match=f"did not make bucket photos: it answers {status} {code}"):
            await s3.ensure_buckets(store.address, ["photos"])


async def test_an_object_is_read_whatever_is_kept_beside_it() -> None:
    """Photos of before labels were encoded have them as they are, and never left their edge."""
    async with bucket((200, "a photo")) as (store, server):
        server.beside = b"ETag: e\r\nLast-Modified: Mon, 30 Nov 2026 02:55:31 GMT\r\n"
        server.beside += "x-amz-meta-label: grüner-tee\r\n".encode()
        assert await s3.read(store, "images/grüner-tee/1.jpg") == b"a photo"
        assert server.signed


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (404, "", FileNotFoundError),
        (403, "<Error><Code>AccessDenied</Code></Error>", Refused),
        (403, "<Error><Code>RequestTimeTooSkewed</Code></Error>", Transient),
        (503, "", Transient),
    ],
)
async def test_an_object_with_odd_things_beside_it_that_is_not_given_is_told_of_as_any_other(
    status: int, body: str, error: type[Exception]
) -> None:
    async with bucket((200, "a photo"), (status, body)) as (store, server):
        server.beside = b"ETag: e\r\nLast-Modified: Mon, 30 Nov 2026 02:55:31 GMT\r\n"
        server.beside += "x-amz-meta-label: grüner-tee\r\n".encode()
        with pytest.raises(error):
            await s3.read(store, "images/grüner-tee/1.jpg")


async def test_raw_pages_come_by_the_proxy_that_the_environment_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("no_proxy", "NO_PROXY", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    async with bucket(listed(contents("a"))) as (store, server):
        monkeypatch.setenv("http_proxy", store.address.endpoint)
        store.address = replace(store.address, endpoint="http://store.invalid:9000")
        assert len([raw async for raw in s3.raw_pages(store, "images/")]) == 1
    assert server.signed
