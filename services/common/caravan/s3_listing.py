"""What obstore leaves open: buckets that are made, listings that one odd key does not fail, odd metadata.

obstore fails a whole listing at a key that it has no path for. Such keys (an empty segment, `..`, a tab or a
newline, text that is no UTF-8) are no names of ours, and nothing could be read under them; other tools write
them all the same. They are passed over, logged once and counted.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from html import unescape
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote, unquote_to_bytes, urlsplit
from urllib.request import getproxies, proxy_bypass
from weakref import WeakKeyDictionary
from xml.etree import ElementTree as ET

import httpx
import structlog
from prometheus_client import Counter

from caravan.errors import Transient
from caravan.names import is_addressable
from caravan.retry import pause
from caravan.s3_signature import refusal, signed
from caravan.settings import S3_CONNECT_SECONDS, S3_SILENT_SECONDS, S3Address
from caravan.tls import verifying

if TYPE_CHECKING:
    import urllib3

log = structlog.get_logger()

ATTEMPTS = 3
MOST_NAMED = 1000
"""Most odd keys that are logged; further ones are counted."""
ODD_KEYS = Counter(
    "caravan_odd_keys_total", "Keys passed over in listings of a bucket: they cannot be ours", ["bucket"]
)

_ENCODED = re.compile("[%+]")
_KEY = re.compile("<Key>([^<&%+]*)</Key>")
_ETAG = re.compile('<ETag>(?:"|&quot;|&#34;)?([^<&"]*)(?:"|&quot;|&#34;)?</ETag>')
_SIZE = re.compile("<Size>([0-9]+)</Size>")
_CODE = re.compile("<Code>(\\w+)</Code>")
_TOKEN = re.compile(b"<NextContinuationToken>([^<]+)</NextContinuationToken>")
_TRY_AGAIN = {httpx.codes.REQUEST_TIMEOUT, httpx.codes.TOO_MANY_REQUESTS}
_REFUSED = {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}
_BESIDE = "x-amz-meta-"
_clients: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[ssl.SSLContext, httpx.AsyncClient]] = (
    WeakKeyDictionary()
)
_named: set[tuple[str, str]] = set()


@dataclass(frozen=True, slots=True)
class Page:
    """Part of a listing: metadata of objects, and the folders below the prefix where these were asked for."""

    objects: list[dict[str, Any]]
    folders: list[str]


_Get = Callable[[str], Awaitable[tuple[int, bytes]]]
"""Fetches a URL: status and body."""


async def pages(
    address: S3Address, bucket: str, prefix: str = "", *, after: str = "", delimiter: str = ""
) -> AsyncIterator[Page]:
    """Yield the pages of a listing, of up to 1,000 keys each, in the server's order.

    Args:
        address: address of the server.
        bucket: its name.
        prefix: prefix of the keys.
        after: leaves out keys up to and with this one.
        delimiter: with `/`, what lies in folders below the prefix is left out, and the folders are named.

    Raises:
        FileNotFoundError: if there is no such bucket.
        Permanent: if the server refuses us.
        Transient: if it is away, or does not answer as S3 does.

    """
    query = {"encoding-type": "url", "list-type": "2", "prefix": prefix}
    query |= {"delimiter": delimiter} if delimiter else {}
    query |= {"start-after": after} if after else {}
    async for content in _contents(address, bucket, query, partial(_get_by_httpx, address)):
        yield read(content, bucket)


async def raw_pages(address: S3Address, bucket: str, prefix: str) -> AsyncIterator[bytes]:
    """Yield what `pages` does as the server wrote it, fetched at half the CPU: for hundreds of thousands.

    A server that hangs holds one of asyncio's threads until the request times out.
    """
    query = {"encoding-type": "url", "list-type": "2", "prefix": prefix}
    pool = _pool(address)
    try:
        async for content in _contents(address, bucket, query, partial(_get_by_thread, address, pool)):
            yield content
    finally:
        pool.clear()


def columns(content: bytes) -> list[tuple[str, str, str]]:
    """Return key, ETag (without quotes) and size of each object on a page, for a sixth of what reading costs.

    They are there to be compared: what they say is not looked at, and a key may be none of ours. There are
    none unless all stand on the page as they are.
    """
    text = content.decode(errors="replace")
    found = [column.findall(text) for column in (_KEY, _ETAG, _SIZE)]
    return list(zip(*found, strict=True)) if {*map(len, found)} == {text.count("<Contents>")} else []


def read(content: bytes, bucket: str) -> Page:
    """Read a page.

    Raises:
        Transient: if it is none.

    """
    page, root = Page([], []), _parsed(content, bucket)
    try:
        # Servers put their names into a namespace, or do not.
        space = root.tag[: root.tag.rfind("}") + 1]
        key_tag, etag_tag = f"{space}Key", f"{space}ETag"
        size_tag, changed_tag = f"{space}Size", f"{space}LastModified"
        # Some keep no heed of what was asked for, and say so by their silence.
        decoded = _decoded if root.findtext(f"{space}EncodingType") == "url" else str
        for element in root.iterfind(f"{space}Contents"):
            text = element.findtext
            if key := _ours(text(key_tag), bucket, decoded):
                changed = datetime.fromisoformat(text(changed_tag, ""))
                size, e_tag = int(text(size_tag, "")), text(etag_tag) or None
                page.objects.append({"path": key, "size": size, "e_tag": e_tag, "last_modified": changed})
        for element in root.iterfind(f"{space}CommonPrefixes"):
            if folder := _ours(element.findtext(f"{space}Prefix"), bucket, decoded, folder=True):
                page.folders.append(folder)
    except ValueError as exc:
        raise _no_listing(bucket, exc) from exc
    return page


async def make_bucket(address: S3Address, bucket: str) -> None:
    """Make a bucket; an existing one is no error.

    Raises:
        Transient: if the server is away or will not.

    """
    url = f"{address.endpoint.rstrip('/')}/{quote(bucket)}"
    try:
        answer = await _client(address).put(url, headers=signed(address, "PUT", url))
    except httpx.HTTPError as exc:
        raise Transient(f"S3 at {address.endpoint} did not make bucket {bucket}: {exc!r}") from exc
    # Another process may have been quicker: BucketAlreadyOwnedByYou, BucketAlreadyExists.
    if answer.is_success or (answer.status_code == httpx.codes.CONFLICT and "BucketAlready" in answer.text):
        return
    code = _CODE.search(answer.text)
    why = f"it answers {answer.status_code} {code[1] if code else ''}".rstrip()
    raise Transient(f"S3 at {address.endpoint} did not make bucket {bucket}: {why}")


async def fetched(
    address: S3Address, bucket: str, method: Literal["GET", "HEAD"], key: str
) -> tuple[bytes, dict[str, str]]:
    """Return an object's content, and what is kept beside it, which may be beyond ASCII.

    Raises:
        FileNotFoundError: if it is not there.
        Refused: if the server refuses us.
        Transient: if it is away or will not.

    """
    url = f"{address.endpoint.rstrip('/')}/{quote(bucket)}/{quote(key, safe='/-_.~')}"
    try:
        answer = await _client(address).request(method, url, headers=signed(address, method, url))
    except httpx.HTTPError as exc:
        raise Transient(f"S3 could not read {key}: {exc!r}") from exc
    if answer.status_code == httpx.codes.NOT_FOUND:
        raise FileNotFoundError(f"there is no {key} in {bucket}")
    if answer.status_code in _REFUSED:
        code = _CODE.search(answer.text)
        raise refusal(f"read {key}", code[1] if code else "")
    if not answer.is_success:
        raise Transient(f"S3 could not read {key}: it answers {answer.status_code}")
    facts = {
        name.removeprefix(_BESIDE): value
        for name, value in answer.headers.items()
        if name.startswith(_BESIDE)
    }
    if media_type := answer.headers.get("content-type"):
        facts["Content-Type"] = media_type
    return answer.content, facts


def _parsed(content: bytes, bucket: str) -> ET.Element:
    try:
        return ET.fromstring(content)  # noqa: S314 - the answer of a server that we hold keys of
    except (ET.ParseError, ValueError) as exc:
        raise _no_listing(bucket, exc) from exc


def _no_listing(bucket: str, exc: Exception) -> Transient:
    return Transient(f"what lists {bucket} does not answer as S3 does: {exc!r}")


async def _contents(
    address: S3Address, bucket: str, query: dict[str, str], get: _Get
) -> AsyncIterator[bytes]:
    while True:
        content = await _ask(address, bucket, query, get)
        yield content
        if not (token := _token(content, bucket)):
            return
        query["continuation-token"] = token


def _token(content: bytes, bucket: str) -> str:
    """Return the token of the page that follows, empty for none; only an odd page is parsed for it."""
    if found := _TOKEN.search(content):
        return unescape(found[1].decode())
    if b"<IsTruncated>false<" in content:
        return ""
    return _parsed(content, bucket).findtext("{*}NextContinuationToken") or ""


async def _ask(address: S3Address, bucket: str, query: Mapping[str, str], get: _Get) -> bytes:
    text = "&".join(f"{name}={quote(value, safe='-_.~')}" for name, value in sorted(query.items()))
    url = f"{address.endpoint.rstrip('/')}/{quote(bucket)}?{text}"
    for attempt in range(1, ATTEMPTS + 1):
        try:
            status, content = await get(url)
        except httpx.HTTPError as exc:
            fault = f"S3 could not list {bucket}: {exc!r}"
        else:
            if status == httpx.codes.OK:
                return content
            if status == httpx.codes.NOT_FOUND:
                raise FileNotFoundError(f"there is no bucket {bucket}")
            if status in _REFUSED:
                code = _CODE.search(content.decode(errors="replace"))
                raise refusal(f"list {bucket}", code[1] if code else "")
            fault = f"S3 could not list {bucket}: it answers {status}"
            if httpx.codes.is_client_error(status) and status not in _TRY_AGAIN:
                break
        if attempt < ATTEMPTS:
            await asyncio.sleep(pause(attempt))
    raise Transient(fault)


async def _get_by_httpx(address: S3Address, url: str) -> tuple[int, bytes]:
    answer = await _client(address).get(url, headers=signed(address, "GET", url))
    return answer.status_code, answer.content


async def _get_by_thread(address: S3Address, pool: urllib3.PoolManager, url: str) -> tuple[int, bytes]:
    from urllib3.exceptions import HTTPError  # noqa: PLC0415

    headers = signed(address, "GET", url)
    try:
        answer = await asyncio.to_thread(pool.request, "GET", url, headers=headers, redirect=False)
    except HTTPError as exc:
        raise httpx.TransportError(repr(exc)) from exc
    return answer.status, answer.data


def _pool(address: S3Address) -> urllib3.PoolManager:
    import urllib3  # noqa: PLC0415 - a megabyte, for long listings alone

    timeout = urllib3.Timeout(connect=S3_CONNECT_SECONDS, read=S3_SILENT_SECONDS)
    parts = urlsplit(address.endpoint)
    proxy = None if proxy_bypass(parts.netloc) else getproxies().get(parts.scheme)
    make = partial(urllib3.ProxyManager, proxy) if proxy else urllib3.PoolManager
    return make(timeout=timeout, retries=False, ssl_context=verifying(address.endpoint, address.ca))


def _client(address: S3Address) -> httpx.AsyncClient:
    # Connections belong to a loop; they are kept for the next look, and go with it.
    clients = _clients.setdefault(asyncio.get_running_loop(), {})
    context = verifying(address.endpoint, address.ca)
    if context not in clients:
        timeout = httpx.Timeout(S3_SILENT_SECONDS, connect=S3_CONNECT_SECONDS)
        clients[context] = httpx.AsyncClient(verify=context, timeout=timeout)
    return clients[context]


def _decoded(raw: str) -> str:
    # Most need no decoding, which costs more than all else here.
    return unquote_to_bytes(raw.replace("+", " ")).decode() if _ENCODED.search(raw) else raw


def _ours(raw: str | None, bucket: str, decoded: Callable[[str], str], *, folder: bool = False) -> str:
    """Return a key decoded; empty for one that is passed over."""
    if raw is None:
        raise ValueError("a key is missing")
    try:
        key = decoded(raw)
    except UnicodeDecodeError:
        key = ""
    if is_addressable(key.removesuffix("/") if folder else key):
        return key
    # Consoles mark an empty folder by an object with its name: nothing is amiss there.
    if folder or not is_addressable(key.removesuffix("/")):
        ODD_KEYS.labels(bucket).inc()
        if (bucket, raw) not in _named and len(_named) < MOST_NAMED:
            _named.add((bucket, raw))
            log.warning("a key that cannot be ours is passed over", bucket=bucket, key=raw[:300])
    return ""
