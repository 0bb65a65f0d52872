"""ListObjectsV2, read here: obstore fails the whole listing at one key that it has no path for.

Such keys (an empty segment, `..`, a tab or a newline, text that is no UTF-8) are no names of ours, and
nothing could be read under them; other tools write them all the same. They are passed over, logged once and
counted.

A page is read in columns where it can be: element by element, a full one costs two and a half times as much.
"""

from __future__ import annotations

import asyncio
import functools
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import compress
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote_to_bytes
from weakref import WeakKeyDictionary
from xml.etree import ElementTree as ET

import httpx
import structlog
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from prometheus_client import Counter

from caravan.errors import Permanent, Transient
from caravan.names import is_addressable
from caravan.retry import pause
from caravan.settings import S3_CONNECT_SECONDS, S3_REQUEST_SECONDS, S3Address

log = structlog.get_logger()

ATTEMPTS = 3
MOST_NAMED = 1000
"""Odd keys that are logged; beyond that they are only counted."""
ODD_KEYS = Counter(
    "caravan_odd_keys_total", "Keys passed over in listings of a bucket: they cannot be ours", ["bucket"]
)

_COLUMNS = ("Key", "ETag", "Size", "LastModified")
_LEAF = re.compile(r"<(\w+)>[^<>]*</\1>")
_TEXT = r"[^<>&\x00-\x1f]*"
"""Text that is what it says: what XML has rules for is left to its parser."""
_TRY_AGAIN = {httpx.codes.REQUEST_TIMEOUT, httpx.codes.TOO_MANY_REQUESTS}
_clients: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Path | None, httpx.AsyncClient]] = (
    WeakKeyDictionary()
)
_named: set[tuple[str, str]] = set()


@dataclass(frozen=True, slots=True)
class Page:
    """Part of a listing: metadata of objects, and the folders below the prefix where these were asked for."""

    objects: list[dict[str, Any]]
    folders: list[str]


async def pages(
    address: S3Address, bucket: str, prefix: str = "", *, after: str = "", delimiter: str = ""
) -> AsyncIterator[Page]:
    """Yield the pages of a listing, of up to 1,000 keys each, in the server's order.

    Args:
        address: of the server.
        bucket: its name.
        prefix: of the keys.
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
    while True:
        page, token = _read(await _get(address, bucket, query), bucket)
        yield page
        if not token:
            return
        query["continuation-token"] = token


async def _get(address: S3Address, bucket: str, query: dict[str, str]) -> bytes:
    text = "&".join(f"{name}={quote(value, safe='-_.~')}" for name, value in sorted(query.items()))
    url = f"{address.endpoint.rstrip('/')}/{quote(bucket)}?{text}"
    for attempt in range(1, ATTEMPTS + 1):
        try:
            answer = await _client(address.ca).get(url, headers=signed(address, "GET", url))
        except httpx.HTTPError as exc:
            fault = f"S3 could not list {bucket}: {exc!r}"
        else:
            if answer.is_success:
                return answer.content
            if answer.status_code == httpx.codes.NOT_FOUND:
                raise FileNotFoundError(f"there is no bucket {bucket}")
            if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
                raise Permanent(f"S3 refused to list {bucket}: check the access key and its rights")
            fault = f"S3 could not list {bucket}: it answers {answer.status_code}"
            if answer.is_client_error and answer.status_code not in _TRY_AGAIN:
                break
        if attempt < ATTEMPTS:
            await asyncio.sleep(pause(attempt))
    raise Transient(fault)


def _client(ca: Path | None) -> httpx.AsyncClient:
    # Connections belong to a loop; they are kept for the next look, and go with it.
    clients = _clients.setdefault(asyncio.get_running_loop(), {})
    if ca not in clients:
        timeout = httpx.Timeout(S3_REQUEST_SECONDS, connect=S3_CONNECT_SECONDS)
        clients[ca] = httpx.AsyncClient(verify=_context(ca), timeout=timeout)
    return clients[ca]


@functools.cache
def _context(ca: Path | None) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=ca)


def signed(address: S3Address, method: str, url: str) -> dict[str, str]:
    """Return the headers that sign a request without a body (AWS signature 4)."""
    request = AWSRequest(method, url)
    keys = Credentials(address.access_key.get_secret_value(), address.secret_key.get_secret_value())
    S3SigV4Auth(keys, "s3", address.region).add_auth(request)
    return dict(request.headers)


# --- reading ------------------------------------------------------------------------------------

_Columns = list[list[str | None]]
"""What a page says of its objects, a list for each of `_COLUMNS`; None where it does not."""


def _read(content: bytes, bucket: str) -> tuple[Page, str]:
    try:
        columns, root = _parsed(content)
        space = _namespace(root)
        # Some keep no heed of what was asked for, and say so by their silence.
        is_encoded = root.findtext(f"{space}EncodingType") == "url"
        keys = _keys(columns[0], bucket, is_encoded=is_encoded)
        if not all(keys):
            columns = [list(compress(column, keys)) for column in columns]
            keys = list(filter(None, keys))
        _, e_tags, sizes, moments = columns
        folders = (
            _ours(_known(each.findtext(f"{space}Prefix")), bucket, is_encoded=is_encoded, folder=True)
            for each in root.iterfind(f"{space}CommonPrefixes")
        )
        objects = [
            {"path": key, "size": int(size or ""), "e_tag": e_tag or None, "last_modified": _moment(changed)}
            for key, e_tag, size, changed in zip(keys, e_tags, sizes, moments, strict=True)
        ]
        page = Page(objects, list(filter(None, folders)))
        token = root.findtext(f"{space}NextContinuationToken") or ""
    except (ET.ParseError, LookupError, ValueError) as exc:
        raise Transient(f"what lists {bucket} does not answer as S3 does: {exc!r}") from exc
    return page, token


def _moment(text: str | None) -> datetime:
    return datetime.fromisoformat(text or "")


def _parsed(content: bytes) -> tuple[_Columns, ET.Element]:
    """Return a page's columns, and its tree, which may lack all objects but the first.

    Where all objects are written in the form of the first one, as servers do, a regular expression finds
    them at a fraction of the cost. That it means the same as XML is checked on the first one, in its place.
    """
    if plain := _plain(content):
        columns, rest = plain
        root = ET.fromstring(rest)  # noqa: S314 - the answer of a server that we hold keys of
        if _of_tree(root) == [column[:1] for column in columns]:
            return columns, root
    root = ET.fromstring(content)  # noqa: S314
    return _of_tree(root), root


def _of_tree(root: ET.Element) -> _Columns:
    space = _namespace(root)
    objects = root.findall(f"{space}Contents")
    return [[each.findtext(f"{space}{name}") for each in objects] for name in _COLUMNS]


def _namespace(root: ET.Element) -> str:
    # Servers put their names into one, or do not.
    return root.tag[: root.tag.rfind("}") + 1]


def _plain(content: bytes) -> tuple[_Columns, str] | None:
    """Return columns, and the XML without all objects but the first; None if they are not all alike."""
    if not content.isascii():
        return None
    # Of what is escaped, ETags have their quotes in every answer.
    text = content.decode().replace("&#34;", '"').replace("&quot;", '"')
    begin, end = text.find("<Contents>"), text.find("</Contents>") + len("</Contents>")
    first = text[begin:end]
    names = [name for name in _LEAF.findall(first) if name in _COLUMNS]
    if sorted(names) != sorted(_COLUMNS) or re.search(r"[^\w\s<>/]", _LEAF.sub("", first)):
        return None
    parts = re.split(_LEAF.sub(_value, first), text)
    rest = "".join([parts[0], first, *parts[5::5]])
    # Comments and the like may hold what is none.
    if rest.count("<Contents") > 1 or "<!" in rest or "<?" in rest[1:]:
        return None
    found = dict(zip(names, (parts[number::5] for number in range(1, 5)), strict=True))
    return [list[str | None](found[name]) for name in _COLUMNS], rest


def _value(leaf: re.Match[str]) -> str:
    name = leaf[1]
    return f"<{name}>({_TEXT})</{name}>" if name in _COLUMNS else f"<{name}>{_TEXT}</{name}>"


def _keys(raw: list[str | None], bucket: str, *, is_encoded: bool) -> list[str]:
    """Return keys decoded; empty for each that is passed over."""
    texts = [_known(each) for each in raw]
    # All at once where nothing is amiss: none of ours has a newline, and each of its segments is sound.
    text = "\n".join(texts)
    with suppress(UnicodeDecodeError):
        keys = (_decoded(text) if is_encoded else text).split("\n")
        if len(keys) == len(texts) and is_addressable("/".join(keys)):
            return keys
    return [_ours(each, bucket, is_encoded=is_encoded) for each in texts]


def _known(raw: str | None) -> str:
    if raw is None:
        raise ValueError("a key is missing")
    return raw


def _ours(raw: str, bucket: str, *, is_encoded: bool, folder: bool = False) -> str:
    """Return a key decoded; empty for one that is passed over."""
    try:
        key = _decoded(raw) if is_encoded else raw
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


def _decoded(raw: str) -> str:
    return unquote_to_bytes(raw.replace("+", " ")).decode()
