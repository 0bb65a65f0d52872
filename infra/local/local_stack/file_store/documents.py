"""The XML of S3: what is answered, and the two documents that clients send."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from urllib.parse import quote
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

from local_stack.file_store.errors import S3Error
from local_stack.file_store.walk import Page

NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
_OWNER = "<Owner><ID>caravan</ID><DisplayName>caravan</DisplayName></Owner>"


def document(name: str, inner: str) -> bytes:
    """Return a whole document."""
    text = f'<?xml version="1.0" encoding="UTF-8"?>\n<{name} xmlns="{NAMESPACE}">{inner}</{name}>'
    return text.encode("utf-8", "replace")


def element(name: str, text: object) -> str:
    """Return an element that holds a text."""
    return f"<{name}>{escape(str(text))}</{name}>"


def error(fault: S3Error, resource: str) -> bytes:
    """Return what says why a request was refused."""
    parts = {"Code": fault.code, "Message": fault.message, "Resource": resource}
    inner = "".join(element(name, text) for name, text in parts.items())
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{inner}</Error>'.encode("utf-8", "replace")


def iso(nanoseconds: int) -> str:
    """Return a time as documents have it."""
    moment = datetime.fromtimestamp(nanoseconds // 1_000_000 / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def buckets(found: Iterable[tuple[str, int]]) -> bytes:
    """Return the answer to ListBuckets."""
    rows = (
        f"<Bucket>{element('Name', name)}{element('CreationDate', iso(changed))}</Bucket>"
        for name, changed in found
    )
    return document("ListAllMyBucketsResult", f"{_OWNER}<Buckets>{''.join(rows)}</Buckets>")


def listing(bucket: str, found: Page, query: Mapping[str, str], most: int) -> bytes:
    """Return the answer to ListObjectsV2, or to ListObjects where the query has no `list-type`."""
    as_url = query.get("encoding-type") == "url"

    def text(name: str, key: bytes | str) -> str:
        return element(name, quote(key, safe="/-_.~") if as_url else _decoded(key))

    second = query.get("list-type") == "2"
    parts = [
        element("Name", bucket),
        text("Prefix", query.get("prefix", "")),
        element("MaxKeys", most),
        element("IsTruncated", str(found.more).lower()),
    ]
    parts += [text("Delimiter", query["delimiter"])] if query.get("delimiter") else []
    parts += [element("EncodingType", "url")] if as_url else []
    if second:
        parts.append(element("KeyCount", len(found.objects) + len(found.folders)))
        parts += [text("StartAfter", query["start-after"])] if "start-after" in query else []
        parts += [element(t, query[q]) for t, q in _CONTINUED.items() if q in query]
        parts += [element("NextContinuationToken", token(found.last))] if found.more else []
    else:
        parts.append(text("Marker", query.get("marker", "")))
        parts += [text("NextMarker", found.last)] if found.more else []
    parts += [
        f"<Contents>{text('Key', key)}{element('LastModified', iso(about.modified))}"
        f"<ETag>&quot;{about.etag}&quot;</ETag><Size>{about.size}</Size>"
        "<StorageClass>STANDARD</StorageClass></Contents>"
        for key, about in found.objects
    ]
    parts += [f"<CommonPrefixes>{text('Prefix', folder)}</CommonPrefixes>" for folder in found.folders]
    return document("ListBucketResult", "".join(parts))


_CONTINUED = {"ContinuationToken": "continuation-token"}


def _decoded(key: bytes | str) -> str:
    return key if isinstance(key, str) else key.decode("utf-8", "replace")


def token(last: bytes) -> str:
    """Return what continues a listing."""
    return base64.urlsafe_b64encode(last).decode()


def after_token(text: str) -> bytes:
    """Return what a listing continues after. Raises S3Error if that is none of our tokens."""
    try:
        return base64.urlsafe_b64decode(text.encode())
    except ValueError as exc:
        raise S3Error("InvalidArgument", "the continuation token is none that was given out") from exc


def keys_to_delete(content: bytes) -> tuple[list[str], bool]:
    """Read a DeleteObjects document: the keys, and whether only failures are to be answered."""
    root = _read(content, "Delete")
    keys = [one.findtext("{*}Key", "") for one in root.findall("{*}Object")]
    return keys, root.findtext("{*}Quiet", "").strip().lower() == "true"


def parts_to_join(content: bytes) -> list[tuple[int, str]]:
    """Read a CompleteMultipartUpload document: number and ETag of each part."""
    root = _read(content, "CompleteMultipartUpload")
    try:
        return [
            (int(one.findtext("{*}PartNumber", "")), one.findtext("{*}ETag", "").strip().strip('"'))
            for one in root.findall("{*}Part")
        ]
    except ValueError as exc:
        raise S3Error("MalformedXML") from exc


def deleted(gone: Sequence[str], faults: Sequence[tuple[str, S3Error]]) -> bytes:
    """Return the answer to DeleteObjects."""
    rows = [f"<Deleted>{element('Key', key)}</Deleted>" for key in gone]
    rows += [
        f"<Error>{element('Key', key)}{element('Code', f.code)}{element('Message', f.message)}</Error>"
        for key, f in faults
    ]
    return document("DeleteResult", "".join(rows))


def _read(content: bytes, name: str) -> ET.Element:
    if b"<!DOCTYPE" in content:
        raise S3Error("MalformedXML")
    try:
        root = ET.fromstring(content)  # noqa: S314 - no document type, and so no entities; its size is bound
    except ET.ParseError as exc:
        raise S3Error("MalformedXML") from exc
    if root.tag.rpartition("}")[2] != name:
        raise S3Error("MalformedXML")
    return root
