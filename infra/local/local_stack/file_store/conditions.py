"""Conditions of a request on the object that is there, and the range of it that is asked for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from local_stack.file_store.errors import S3Error
from local_stack.file_store.facts import Facts

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


def check_write(headers: Mapping[str, str], there: Facts | None) -> None:
    """See that an object may be written. Raises S3Error if not."""
    if_match = headers.get("if-match")
    if if_match is not None:
        if there is None:
            raise S3Error("NoSuchKey")
        if not _names(if_match, there):
            raise S3Error("PreconditionFailed")
    if there is not None and _names(headers.get("if-none-match", ""), there):
        raise S3Error("PreconditionFailed")


def is_unchanged(headers: Mapping[str, str], there: Facts, prefix: str = "") -> bool:
    """Tell whether an object that is read is the one that the reader has (RFC 9110, 13.2.2).

    Raises:
        S3Error: if it is not the one that is asked for.

    """
    match = headers.get(f"{prefix}if-match")
    since = _date(headers.get(f"{prefix}if-unmodified-since"))
    if match is not None:
        if not _names(match, there):
            raise S3Error("PreconditionFailed")
    elif since is not None and _seconds(there) > since:
        raise S3Error("PreconditionFailed")
    none_match = headers.get(f"{prefix}if-none-match")
    if none_match is not None:
        return _names(none_match, there)
    since = _date(headers.get(f"{prefix}if-modified-since"))
    return since is not None and _seconds(there) <= since


def asked_range(text: str | None, size: int) -> tuple[int, int] | None:
    """Return the first byte and the one after the last that a Range header asks for; None is all.

    Raises:
        S3Error: if the object has none of them.

    """
    found = _RANGE.fullmatch((text or "").replace(" ", ""))
    if found is None or found.groups() == ("", ""):
        return None
    first, last = found.groups()
    start = int(first) if first else max(0, size - int(last))
    end = min(size, int(last) + 1) if first and last else size
    if first and last and int(last) < start:
        return None  # no range at all (RFC 9110, 14.1.1)
    if start >= size:
        raise S3Error("InvalidRange")
    return start, end


def _names(text: str, there: Facts) -> bool:
    tags = {tag.strip().removeprefix("W/").strip('"') for tag in text.split(",")}
    return "*" in tags or there.etag in tags


def _date(text: str | None) -> datetime | None:
    try:
        return parsedate_to_datetime(text) if text else None
    except ValueError:
        return None


def _seconds(there: Facts) -> datetime:
    return datetime.fromtimestamp(there.modified // 10**9, UTC)
