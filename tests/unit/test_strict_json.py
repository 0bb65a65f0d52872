"""JSON from outside is a value that can be written again, or a reason; nothing else is raised."""

from __future__ import annotations

import math
from typing import Any

import pytest

from caravan import strict_json
from caravan.contracts import to_json
from caravan.strict_json import NotJson


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b'{"name": "detection"}', {"name": "detection"}),
        ('"gr\u00fcner tee"', "grüner tee"),
        (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
        ("\ufeff[1]", [1]),
        (bytearray(b"[2.99, null, true]"), [2.99, None, True]),
        (rb'"\ud83c\udf75"', "🍵"),
        (b'{"a": 1, "a": 2}', {"a": 2}),
        (b'"\\u0000"', "\0"),
        (b"[" * 150 + b"]" * 150, None),
        (b"1" * 4000, None),
    ],
)
def test_what_is_read_can_be_written_again(raw: str | bytes | bytearray, value: Any) -> None:
    found = strict_json.loads(raw)
    assert value is None or found == value
    assert strict_json.loads(to_json(found)) == found


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"{} {}",
        b"{'a': 1}",
        b"\xff",
        b'"\xed\xa0\x80"',
        rb'"\ud800"',
        rb'"\udc00"',
        rb'{"\ud800": 1}',
        '"\ud800"',
        b"NaN",
        b"[-Infinity]",
        b"1e999",
        b'{"a": [-1e999]}',
        b"1" * 5000,
        b"[" * 300 + b"]" * 300,
        b'{"a":' * 300 + b"1" + b"}" * 300,
        '{"a": 1}'.encode("utf-16"),
    ],
)
def test_all_else_is_refused_with_a_reason_that_can_be_written(raw: str | bytes) -> None:
    with pytest.raises(NotJson) as refused:
        strict_json.loads(raw)
    assert 0 < len(str(refused.value).encode()) < 200


@pytest.mark.parametrize("raw", [b"[]", b'"{}"', b"1", b"null"])
def test_an_object_is_asked_for_and_something_else_is_refused(raw: bytes) -> None:
    with pytest.raises(NotJson, match="not a JSON object"):
        strict_json.loads_object(raw)


def test_the_largest_double_is_a_number() -> None:
    assert math.isfinite(strict_json.loads(b"1.7e308"))
