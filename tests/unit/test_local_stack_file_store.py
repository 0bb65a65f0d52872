"""The S3 server over plain files, asked by the clients that the services and people have."""

import asyncio
import base64
import hashlib
import hmac
import os
import zlib
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import Any

import aioboto3
import httpx
import obstore
import pytest
import pytest_asyncio
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from obstore.exceptions import AlreadyExistsError, PreconditionError
from pydantic import SecretStr

from caravan import s3, s3_listing
from caravan.errors import Permanent
from caravan.intake import DoorLimits
from caravan.lingering import LingeringClose
from caravan.server import make_server
from caravan.settings import S3Address
from local_stack.file_store.app import App
from local_stack.file_store.errors import S3Error
from local_stack.file_store.files import Files
from local_stack.file_store.names import file_name, segment
from local_stack.file_store.retention import bound
from local_stack.file_store.uploads import Uploads

SESSION = aioboto3.Session()
"""One for all tests: it reads what S3 is once."""
KEYS = ("an-edge", "its secret")
BUCKET = "data"


@pytest_asyncio.fixture
async def url(tmp_path: Path) -> AsyncIterator[str]:
    """A store with one bucket."""
    with Files(tmp_path) as files:
        uploads = Uploads(tmp_path, files)
        uploads.prepare()
        files.make_bucket(BUCKET)
        server = make_server(LingeringClose(App(files, uploads, KEYS)), DoorLimits())
        running = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        finally:
            server.should_exit = True
            await running


@pytest.fixture
def address(url: str) -> S3Address:
    return S3Address(url, SecretStr(KEYS[0]), SecretStr(KEYS[1]), "us-east-1", None)


@pytest.fixture
def bucket(address: S3Address) -> s3.Bucket:
    return s3.open_bucket(address, BUCKET)


@pytest_asyncio.fixture
async def client(url: str) -> AsyncIterator[Any]:
    async with SESSION.client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id=KEYS[0],
        aws_secret_access_key=KEYS[1],
        config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 0}),
    ) as client:
        yield client


class Signer(S3SigV4Auth):
    """botocore's, which signs whatever a body is said to be."""

    def __init__(self, keys: tuple[str, str] = KEYS, payload: str = "") -> None:
        super().__init__(Credentials(*keys), "s3", "us-east-1")
        self._payload = payload

    def payload(self, request: Any) -> Any:
        return self._payload or super().payload(request)


@pytest.fixture
def ask(url: str) -> Callable[..., Any]:
    """Send one request, signed by botocore: `await ask("GET", "/data?location")`."""

    async def send(
        method: str,
        path: str,
        content: bytes = b"",
        headers: dict[str, str] | None = None,
        *,
        keys: tuple[str, str] = KEYS,
        payload: str = "",
    ) -> httpx.Response:
        request = AWSRequest(method, url + path, data=content, headers=headers or {})
        Signer(keys, payload).add_auth(request)
        async with httpx.AsyncClient(trust_env=False) as http:
            return await http.request(method, url + path, content=content, headers=dict(request.headers))

    return send


def code(fault: Any) -> str:
    return str(fault.value.response["Error"]["Code"])


async def keys(client: Any, **query: Any) -> list[str]:
    answer = await client.list_objects_v2(Bucket=BUCKET, **query)
    return [one["Key"] for one in answer.get("Contents", ())]


# --- objects --------------------------------------------------------------------------------------------


async def test_an_object_is_a_file_named_by_its_key_and_comes_back_with_all_that_was_said_of_it(
    client: Any, tmp_path: Path
) -> None:
    said = {
        "ContentType": "image/jpeg",
        "CacheControl": "no-cache",
        "Metadata": {"batch": "b1", "a-b": "x y"},
    }
    put = await client.put_object(Bucket=BUCKET, Key="images/tea/a b+c.jpg", Body=b"photo", **said)
    assert put["ETag"] == f'"{hashlib.md5(b"photo").hexdigest()}"'
    assert (tmp_path / "objects/data/images/tea/a b+c.jpg").read_bytes() == b"photo"
    got = await client.get_object(Bucket=BUCKET, Key="images/tea/a b+c.jpg")
    assert await got["Body"].read() == b"photo"
    assert {name: got[name] for name in said} == said
    assert got["ETag"] == put["ETag"]
    head = await client.head_object(Bucket=BUCKET, Key="images/tea/a b+c.jpg")
    assert head["ContentLength"] == 5
    assert abs(head["LastModified"] - datetime.now(UTC)) < timedelta(minutes=1)


async def test_any_key_has_a_place_of_its_own_inside_its_bucket(client: Any, tmp_path: Path) -> None:
    odd = (
        "a//b",
        "/a",
        "a/",
        "a/../b",
        "..",
        "./a",
        "%",
        "%2e%2e/a",
        "a%b",
        "+",
        "ä/茶.jpg",
        "a/b" * 9,
        "x" * 250,
    )
    folder = tmp_path / "objects" / BUCKET
    for key in odd:
        await client.put_object(Bucket=BUCKET, Key=key, Body=key.encode())
        got = await client.get_object(Bucket=BUCKET, Key=key)
        assert await got["Body"].read() == key.encode()
        assert await keys(client) == [key]
        assert [path.read_bytes() for path in folder.rglob("*") if path.is_file()] == [key.encode()]
        await client.delete_object(Bucket=BUCKET, Key=key)
        assert list(folder.iterdir()) == []


def test_names_and_keys_are_each_others_inverse() -> None:
    key = b"/a//../%b/%%/./c%/"
    name = file_name(key)
    assert b"/".join(segment(one) for one in name.split(b"/")) == key
    assert not {b"", b".", b".."} & set(name.split(b"/"))


@pytest.mark.parametrize("key", ["x" * 251, "k/" * 513])
async def test_a_key_that_is_too_long_is_refused(client: Any, key: str) -> None:
    with pytest.raises(ClientError) as fault:
        await client.put_object(Bucket=BUCKET, Key=key, Body=b"")
    assert code(fault) == "KeyTooLongError"


async def test_a_key_is_an_object_or_a_folder_of_others_and_the_second_is_refused(client: Any) -> None:
    await client.put_object(Bucket=BUCKET, Key="a/b", Body=b"1")
    for key, told in (("a", "ExistingObjectIsDirectory"), ("a/b/c", "ObjectParentIsFile")):
        with pytest.raises(ClientError) as fault:
            await client.put_object(Bucket=BUCKET, Key=key, Body=b"2")
        assert code(fault) == told
        with pytest.raises(ClientError) as fault:
            await client.get_object(Bucket=BUCKET, Key=key)
        assert code(fault) == "NoSuchKey"
        await client.delete_object(Bucket=BUCKET, Key=key)
    assert await keys(client) == ["a/b"]


async def test_metadata_beyond_two_kilobytes_is_refused(client: Any) -> None:
    with pytest.raises(ClientError) as fault:
        await client.put_object(Bucket=BUCKET, Key="a", Body=b"1", Metadata={"a": "x" * 2100})
    assert code(fault) == "MetadataTooLarge"
    assert await keys(client) == []


async def test_a_part_of_an_object_can_be_read(client: Any) -> None:
    await client.put_object(Bucket=BUCKET, Key="a", Body=b"0123456789")
    parts = {"2-4": b"234", "7-": b"789", "-2": b"89", "8-99": b"89", "0-0": b"0"}
    for asked, part in parts.items():
        got = await client.get_object(Bucket=BUCKET, Key="a", Range=f"bytes={asked}")
        assert await got["Body"].read() == part
        assert got["ResponseMetadata"]["HTTPStatusCode"] == 206
        assert got["ContentRange"].endswith("/10")


async def test_a_part_that_is_not_there_is_refused(client: Any) -> None:
    await client.put_object(Bucket=BUCKET, Key="a", Body=b"0123456789")
    with pytest.raises(ClientError) as fault:
        await client.get_object(Bucket=BUCKET, Key="a", Range="bytes=10-")
    assert code(fault) == "InvalidRange"


async def test_of_many_who_create_one_object_one_does(bucket: s3.Bucket) -> None:
    made = await asyncio.gather(*(s3.create(bucket, "a/b", str(n).encode()) for n in range(20)))
    assert sum(made) == 1
    assert await s3.read(bucket, "a/b") == str(made.index(True)).encode()
    with pytest.raises(AlreadyExistsError):
        await obstore.put_async(bucket, "a/b", b"", mode="create")


async def test_of_many_who_replace_one_version_one_does(bucket: s3.Bucket) -> None:
    await s3.write(bucket, "a", b"old")
    _, etag = await s3.read_with_etag(bucket, "a")
    replaced = await asyncio.gather(*(s3.replace(bucket, "a", f"new {n}".encode(), etag) for n in range(20)))
    assert sum(replaced) == 1
    assert await s3.read(bucket, "a") == f"new {replaced.index(True)}".encode()
    assert not await s3.replace(bucket, "not there", b"", etag)


async def test_what_is_unchanged_is_not_sent_again(bucket: s3.Bucket, client: Any) -> None:
    await s3.write(bucket, "a", b"content")
    _, etag = await s3.read_with_etag(bucket, "a")
    assert await s3.read_changed(bucket, "a", etag, most=100) is None
    with pytest.raises(PreconditionError):
        await obstore.get_async(bucket, "a", options={"if_match": '"other"'})
    with pytest.raises(ClientError) as fault:
        await client.get_object(Bucket=BUCKET, Key="a", IfUnmodifiedSince=datetime(2020, 1, 1, tzinfo=UTC))
    assert code(fault) in ("PreconditionFailed", "412")


async def test_what_is_kept_beside_an_object_is_read_beyond_ascii_too(bucket: s3.Bucket) -> None:
    """As the labels of photos once were: someone who reviews them asks for them."""
    beside = {"Content-Type": "image/jpeg", "label": "grüner-tee"}
    await s3.write(bucket, "images/1.jpg", b"a photo", beside)
    assert await s3.facts(bucket, "images/1.jpg") == beside
    assert await s3.read_with_facts(bucket, "images/1.jpg") == (b"a photo", beside)


async def test_a_reader_keeps_the_version_that_it_began_to_read(bucket: s3.Bucket) -> None:
    old = os.urandom(3 * 2**20)
    await s3.write(bucket, "a", old)
    pieces = s3.pieces(bucket, "a")
    read = [await anext(pieces)]
    await s3.write(bucket, "a", b"new")
    read += [piece async for piece in pieces]
    assert b"".join(read) == old


async def test_an_object_is_copied_with_or_without_what_is_said_of_it(client: Any) -> None:
    await client.put_object(Bucket=BUCKET, Key="a b", Body=b"1", Metadata={"k": "v"}, ContentType="image/png")
    source = {"Bucket": BUCKET, "Key": "a b"}
    await client.copy_object(Bucket=BUCKET, Key="c", CopySource=source)
    copy = await client.get_object(Bucket=BUCKET, Key="c")
    assert (await copy["Body"].read(), copy["Metadata"], copy["ContentType"]) == (
        b"1",
        {"k": "v"},
        "image/png",
    )
    await client.copy_object(
        Bucket=BUCKET, Key="c", CopySource=source, MetadataDirective="REPLACE", Metadata={"n": "m"}
    )
    assert (await client.head_object(Bucket=BUCKET, Key="c"))["Metadata"] == {"n": "m"}
    with pytest.raises(ClientError) as fault:
        await client.copy_object(Bucket=BUCKET, Key="d", CopySource=f"{BUCKET}/none")
    assert code(fault) == "NoSuchKey"


async def test_many_are_deleted_at_once_and_what_is_not_there_is_no_fault(
    client: Any, tmp_path: Path
) -> None:
    for key in ("a/1", "a/2", "<&>"):
        await client.put_object(Bucket=BUCKET, Key=key, Body=b"")
    gone = [{"Key": key} for key in ("a/1", "a/2", "<&>", "none")]
    answer = await client.delete_objects(Bucket=BUCKET, Delete={"Objects": gone})
    assert {one["Key"] for one in answer["Deleted"]} == {one["Key"] for one in gone}
    assert list((tmp_path / "objects" / BUCKET).iterdir()) == []


# --- listings -------------------------------------------------------------------------------------------

LISTED = ["a", "a-b/1", "a.b", "a0", "b//c", "b/1", "b/2/x", "b/2/y", "b0", "ä", "茶/1"]


@pytest.mark.parametrize("version", ["list_objects_v2", "list_objects"])
async def test_a_listing_is_in_the_order_of_bytes_whatever_its_pages(client: Any, version: str) -> None:
    for key in LISTED:
        await client.put_object(Bucket=BUCKET, Key=key, Body=b"")
    for delimiter, prefix, size in product(("", "/", "b"), ("", "b", "b/", "none"), (1, 3, 1000)):
        found: list[str] = []
        pages = client.get_paginator(version).paginate(
            Bucket=BUCKET, Prefix=prefix, Delimiter=delimiter, PaginationConfig={"PageSize": size}
        )
        async for one in pages:
            rows = [row["Key"] for row in one.get("Contents", ())]
            rows += [row["Prefix"] for row in one.get("CommonPrefixes", ())]
            assert len(rows) <= size
            found += sorted(rows, key=str.encode)
        expected = set()
        for key in LISTED:
            head, cut, _ = key.removeprefix(prefix).partition(delimiter) if delimiter else (key, "", "")
            if key.startswith(prefix):
                expected.add(prefix + head + cut if cut else key)
        assert found == sorted(expected, key=str.encode)


async def test_a_listing_begins_after_a_key_that_need_not_be_there(client: Any, address: S3Address) -> None:
    for key in LISTED:
        await client.put_object(Bucket=BUCKET, Key=key, Body=b"")
    for after in (*LISTED, "a/", "b/1x", "z"):
        expected = [key for key in sorted(LISTED, key=str.encode) if key.encode() > after.encode()]
        assert await keys(client, StartAfter=after) == expected
    first = [page async for page in s3_listing.pages(address, BUCKET, "b/", delimiter="/")]
    assert [one["path"] for one in first[0].objects] == ["b/1"]


async def test_a_file_that_others_wrote_is_an_object_and_one_they_changed_has_another_etag(
    client: Any, tmp_path: Path
) -> None:
    file = tmp_path / "objects" / BUCKET / "notes.txt"
    file.write_bytes(b"by hand")
    listed = (await client.list_objects_v2(Bucket=BUCKET))["Contents"][0]
    assert listed["ETag"] == f'"{hashlib.md5(b"by hand").hexdigest()}"'
    file.write_bytes(b"otherwise")
    head = await client.head_object(Bucket=BUCKET, Key="notes.txt")
    assert head["ETag"] == f'"{hashlib.md5(b"otherwise").hexdigest()}"'
    (tmp_path / "objects" / BUCKET / "link").symlink_to("/etc/hostname")
    with pytest.raises(ClientError):
        await client.get_object(Bucket=BUCKET, Key="link")


# --- buckets --------------------------------------------------------------------------------------------


async def test_buckets_are_made_once_and_removed_when_they_are_empty(client: Any) -> None:
    await client.create_bucket(Bucket="valid")
    await client.head_bucket(Bucket="valid")
    assert [one["Name"] for one in (await client.list_buckets())["Buckets"]] == ["data", "valid"]
    with pytest.raises(ClientError) as fault:
        await client.create_bucket(Bucket="valid")
    assert code(fault) == "BucketAlreadyOwnedByYou"
    await client.put_object(Bucket="valid", Key="a/b", Body=b"")
    with pytest.raises(ClientError) as fault:
        await client.delete_bucket(Bucket="valid")
    assert code(fault) == "BucketNotEmpty"
    await client.delete_object(Bucket="valid", Key="a/b")
    await client.delete_bucket(Bucket="valid")
    for question in (
        client.list_objects_v2(Bucket="valid"),
        client.put_object(Bucket="valid", Key="a", Body=b""),
    ):
        with pytest.raises(ClientError) as fault:
            await question
        assert code(fault) == "NoSuchBucket"


@pytest.mark.parametrize("name", ["Data", "a", "a_b", "a..b", ".aa"])
async def test_a_name_that_no_bucket_can_have_leads_nowhere(ask: Any, name: str) -> None:
    answer = await ask("GET", f"/{name}/a")
    assert (answer.status_code, "InvalidBucketName" in answer.text) == (400, True)


@pytest.mark.parametrize("what", ["acl", "tagging", "lifecycle", "policy"])
async def test_what_the_store_does_not_do_it_says(ask: Any, what: str) -> None:
    assert (await ask("GET", f"/{BUCKET}?{what}")).status_code == 501


# --- large ones -----------------------------------------------------------------------------------------


async def test_an_object_comes_in_parts_and_is_there_when_all_are(
    client: Any, bucket: s3.Bucket, tmp_path: Path
) -> None:
    content = os.urandom(20 * 2**20)
    (tmp_path / "large").write_bytes(content)
    with (tmp_path / "large").open("rb") as file:
        await s3.upload(bucket, "models/large", file, len(content))
    assert await s3.read(bucket, "models/large") == content
    parts = [hashlib.md5(content[at : at + s3.PIECE]).digest() for at in range(0, len(content), s3.PIECE)]
    head = await client.head_object(Bucket=BUCKET, Key="models/large")
    assert head["ETag"] == f'"{hashlib.md5(b"".join(parts)).hexdigest()}-{len(parts)}"'
    assert list((tmp_path / "uploads").iterdir()) == []


async def test_an_upload_is_joined_from_the_parts_that_are_named_in_order(
    client: Any, tmp_path: Path
) -> None:
    where = {"Bucket": BUCKET, "Key": "a"}
    begun = {
        **where,
        "UploadId": (await client.create_multipart_upload(**where, Metadata={"k": "v"}))["UploadId"],
    }
    tags = {}
    for number, content in ((1, b"x"), (3, b"c"), (2, b"b"), (1, b"a")):
        tags[number] = (await client.upload_part(**begun, PartNumber=number, Body=content))["ETag"]
    one, two, three = ({"PartNumber": number, "ETag": tags[number]} for number in (1, 2, 3))
    refused = (([two, one], "InvalidPartOrder"), ([{**one, "ETag": tags[2]}], "InvalidPart"))
    for parts, told in refused:
        with pytest.raises(ClientError) as fault:
            await client.complete_multipart_upload(**begun, MultipartUpload={"Parts": parts})
        assert code(fault) == told
    assert await keys(client) == []
    await client.complete_multipart_upload(**begun, MultipartUpload={"Parts": [one, two, three]})
    got = await client.get_object(**where)
    assert (await got["Body"].read(), got["Metadata"]) == (b"abc", {"k": "v"})
    aborted = {**where, "UploadId": (await client.create_multipart_upload(**where))["UploadId"]}
    await client.abort_multipart_upload(**aborted)
    with pytest.raises(ClientError) as fault:
        await client.upload_part(**aborted, PartNumber=1, Body=b"")
    assert code(fault) == "NoSuchUpload"
    assert list((tmp_path / "uploads").iterdir()) == []


# --- signatures and checksums -----------------------------------------------------------------------------


async def test_who_has_other_keys_or_none_is_refused(ask: Any, url: str, address: S3Address) -> None:
    assert "SignatureDoesNotMatch" in (await ask("GET", f"/{BUCKET}", keys=(KEYS[0], "other"))).text
    assert "InvalidAccessKeyId" in (await ask("GET", f"/{BUCKET}", keys=("nobody", KEYS[1]))).text
    async with httpx.AsyncClient(trust_env=False) as http:
        assert (await http.get(f"{url}/{BUCKET}")).status_code == 403
    stranger = S3Address(address.endpoint, SecretStr("x"), SecretStr("y"), "us-east-1", None)
    with pytest.raises(Permanent):
        await s3.write(s3.open_bucket(stranger, BUCKET), "a", b"")


async def test_a_request_that_was_changed_on_its_way_is_refused(ask: Any) -> None:
    await ask("PUT", f"/{BUCKET}/a", b"1")
    late = {"x-amz-date": "20200101T000000Z"}
    headers: dict[str, str] = {}

    async def resend(method: str, path: str, changed: Mapping[str, str] = MappingProxyType({})) -> str:
        async with httpx.AsyncClient(trust_env=False) as http:
            answer = await http.request(method, headers["url"] + path, headers={**signed, **changed})
            return answer.text

    first = (await ask("GET", f"/{BUCKET}/a?x-id=GetObject")).request
    headers["url"] = f"http://{first.headers['host']}"
    signed = {
        name: first.headers[name] for name in first.headers if name.startswith(("x-amz", "authorization"))
    }
    assert await resend("GET", f"/{BUCKET}/a?x-id=GetObject") == "1"
    for method, path in (
        ("GET", f"/{BUCKET}/b"),
        ("DELETE", f"/{BUCKET}/a"),
        ("GET", f"/{BUCKET}/a?x-id=Get"),
    ):
        text = await resend(method, path)
        assert "SignatureDoesNotMatch" in text
    assert "RequestTimeTooSkewed" in await resend("GET", f"/{BUCKET}/a?x-id=GetObject", late)


async def test_content_that_is_not_what_was_signed_is_not_stored(ask: Any, client: Any) -> None:
    wrong = hashlib.sha256(b"other").hexdigest()
    answer = await ask("PUT", f"/{BUCKET}/a", b"content", payload=wrong)
    assert "BadDigest" in answer.text
    for name, value in (
        ("Content-MD5", base64.b64encode(hashlib.md5(b"other").digest())),
        ("x-amz-checksum-crc32", base64.b64encode(zlib.crc32(b"other").to_bytes(4, "big"))),
        ("x-amz-checksum-sha256", base64.b64encode(hashlib.sha256(b"other").digest())),
    ):
        answer = await ask("PUT", f"/{BUCKET}/a", b"content", {name: value.decode()})
        assert "BadDigest" in answer.text
    assert await keys(client) == []


def chunked(content: bytes, crc: int, *, signature: str = "", key: bytes = b"", about: str = "") -> bytes:
    """Frame a body in chunks of three bytes, signed if there is a signature to follow."""
    previous, framed = signature, b""
    for at in (*range(0, len(content), 3), len(content)):
        chunk = content[at : at + 3]
        extension = ""
        if signature:
            lines = (about, previous, hashlib.sha256(b"").hexdigest(), hashlib.sha256(chunk).hexdigest())
            text = "\n".join(("AWS4-HMAC-SHA256-PAYLOAD", *lines))
            previous = hmac.new(key, text.encode(), "sha256").hexdigest()
            extension = f";chunk-signature={previous}"
        framed += f"{len(chunk):x}{extension}\r\n".encode() + (chunk + b"\r\n" if chunk else b"")
    line = f"x-amz-checksum-crc32:{base64.b64encode(crc.to_bytes(4, 'big')).decode()}"
    framed += f"{line}\r\n".encode()
    if signature:
        text = "\n".join(
            ("AWS4-HMAC-SHA256-TRAILER", about, previous, hashlib.sha256(f"{line}\n".encode()).hexdigest())
        )
        framed += f"x-amz-trailer-signature:{hmac.new(key, text.encode(), 'sha256').hexdigest()}\r\n".encode()
    return framed + b"\r\n"


@pytest.mark.parametrize(
    "kind", ["STREAMING-UNSIGNED-PAYLOAD-TRAILER", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"]
)
@pytest.mark.parametrize("harm", ["none", "checksum", "content", "end"])
async def test_a_stream_in_chunks_is_stored_if_its_checksum_and_its_signatures_are_right(
    url: str, client: Any, kind: str, harm: str
) -> None:
    content = b"0123456789"
    headers = {
        "Content-Encoding": "aws-chunked",
        "x-amz-decoded-content-length": str(len(content)),
        "x-amz-trailer": "x-amz-checksum-crc32",
    }
    request = AWSRequest("PUT", f"{url}/{BUCKET}/a", headers=headers)
    Signer(payload=kind).add_auth(request)
    signature = request.headers["Authorization"].rpartition("=")[2]
    date = request.headers["X-Amz-Date"]
    key = f"AWS4{KEYS[1]}".encode()
    for word in (date[:8], "us-east-1", "s3", "aws4_request"):
        key = hmac.digest(key, word.encode(), "sha256")
    about = f"{date}\n{date[:8]}/us-east-1/s3/aws4_request"
    crc = zlib.crc32(content) + (harm == "checksum")
    signed = {"signature": signature, "key": key, "about": about} if "HMAC" in kind else {}
    framed = chunked(content, crc, **signed)  # type: ignore[arg-type]
    if harm == "content":
        framed = framed.replace(b"345", b"543")
    if harm == "end":
        framed = framed[:60]
    async with httpx.AsyncClient(trust_env=False) as http:
        answer = await http.put(f"{url}/{BUCKET}/a", content=framed, headers=dict(request.headers))
    if harm == "none":
        assert answer.status_code == 200, answer.text
        got = await client.get_object(Bucket=BUCKET, Key="a")
        assert await got["Body"].read() == content
        assert "ContentEncoding" not in got
    else:
        assert answer.status_code in (400, 403)
        assert await keys(client) == []


@pytest.mark.parametrize("algorithm", ["CRC32", "SHA1", "SHA256"])
async def test_the_checksums_that_sdks_send_are_checked(client: Any, algorithm: str) -> None:
    await client.put_object(Bucket=BUCKET, Key="a", Body=b"1", ChecksumAlgorithm=algorithm)
    assert await keys(client) == ["a"]


# --- what lasts -----------------------------------------------------------------------------------------


def test_what_was_being_written_when_the_store_ended_is_gone_and_what_was_there_stays(tmp_path: Path) -> None:
    with Files(tmp_path) as files:
        files.make_bucket(BUCKET)
        draft = files.draft()
        draft.write([b"whole"])
        files.keep(draft, BUCKET, b"a", {"content-type": "image/png"}, lambda _: None)
        files.draft().write([b"half"])
        assert len(list((tmp_path / "drafts").iterdir())) == 1
    with Files(tmp_path) as files:
        assert list((tmp_path / "drafts").iterdir()) == []
        with files.open(BUCKET, b"a") as (fd, about):
            assert os.pread(fd, 100, 0) == b"whole"
            assert about.headers == {"content-type": "image/png"}


def test_one_process_has_a_folder_at_a_time(tmp_path: Path) -> None:
    with Files(tmp_path), pytest.raises(OSError, match="unavailable"), Files(tmp_path):
        pass


def test_a_condition_that_does_not_hold_leaves_what_is_there(tmp_path: Path) -> None:
    def refuse(_: object) -> None:
        raise S3Error("PreconditionFailed")

    with Files(tmp_path) as files:
        files.make_bucket(BUCKET)
        draft = files.draft()
        with pytest.raises(S3Error, match="PreconditionFailed"):
            files.keep(draft, BUCKET, b"a/b", {}, refuse)
        draft.discard()
        assert list((tmp_path / "objects" / BUCKET).iterdir()) == []
        assert list((tmp_path / "drafts").iterdir()) == []


def test_the_oldest_images_give_way_in_whatever_bucket_they_are(tmp_path: Path) -> None:
    with Files(tmp_path) as files:
        for name in ("valid", "unclassified", "data"):
            files.make_bucket(name)
        kept = [("valid", b"images/tea/3.jpg"), ("unclassified", b"images/other/4.jpg")]
        images = [("unclassified", b"images/other/1.jpg"), ("valid", b"images/tea/2.jpg"), *kept]
        for bucket, key in [("data", b"images/tea/0.jpg"), *images]:
            draft = files.draft()
            draft.write([bytes(100)])
            files.keep(draft, bucket, key, {}, lambda _: None)
            draft.discard()
        assert bound(files, ("valid", "unclassified", "none"), 400) == 0
        assert bound(files, ("valid", "unclassified", "none"), 250) == 2
        there = [path for path in (tmp_path / "objects").rglob("*") if path.is_file()]
        assert {path.name for path in there} == {"0.jpg", "3.jpg", "4.jpg"}
