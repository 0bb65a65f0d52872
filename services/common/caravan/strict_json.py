"""JSON from outside, read the same way everywhere: a value that can be written again, or `NotJson`.

Nothing else is ever raised, whatever the bytes are. Refused beside what RFC 8259 refuses are text that is no
UTF-8 or holds half of a surrogate pair, NaN and numbers beyond a double, integers of more than 4,300 digits,
and lists and objects nested more than some 200 deep. A byte order mark is passed over. Of members with one
name the last one counts, as in most readers.
"""

from __future__ import annotations

import math
from typing import Any

from pydantic_core import ValidationError, from_json

NOT_UTF8 = "it is not text in UTF-8"

_MARK = b"\xef\xbb\xbf"


class NotJson(ValueError):
    """The bytes are no JSON that can be written again; the message says where and why, and quotes nothing."""


def loads(raw: str | bytes | bytearray) -> Any:
    """Return the value of a JSON document.

    Raises:
        NotJson: whatever is wrong with it.

    """
    try:
        encoded = raw.encode() if isinstance(raw, str) else raw
        value = from_json(encoded.removeprefix(_MARK), allow_inf_nan=False)
    except ValueError as exc:
        # An encoder's error quotes the text, and so half of a pair.
        reason = "it has half of a surrogate pair" if isinstance(exc, UnicodeError) else str(exc)
        raise NotJson(reason if isinstance(raw, str) or _is_utf8(raw) else NOT_UTF8) from exc
    if not _is_finite(value):
        raise NotJson("a number is beyond what a double holds")
    return value


def loads_object(raw: str | bytes | bytearray) -> dict[str, Any]:
    """Return the members of a JSON object.

    Raises:
        NotJson: if it is anything else.

    """
    value = loads(raw)
    if not isinstance(value, dict):
        raise NotJson("it is not a JSON object")
    return value


def faults_of(exc: ValidationError) -> str:
    """Return what has not the shape asked for, `member.member: what is wrong`; no value is shown."""
    faults = exc.errors(include_url=False, include_input=False, include_context=False)
    return "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in faults)


def _is_utf8(raw: bytes | bytearray) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return b"\0" not in raw  # as UTF-16 has it


def _is_finite(value: Any) -> bool:
    # No deeper than the reader goes.
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(map(_is_finite, value.values()))
    return all(map(_is_finite, value)) if isinstance(value, list) else True
