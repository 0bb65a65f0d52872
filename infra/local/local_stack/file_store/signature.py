"""Signature Version 4, checked: who asks, and that nobody changed what is asked.

The standard library is all that it takes; botocore, which signs, would be as large as the rest of the store.
https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-authenticating-requests.html
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import quote, unquote_to_bytes

from local_stack.file_store.errors import S3Error

ALGORITHM = "AWS4-HMAC-SHA256"
NOTHING = hashlib.sha256(b"").hexdigest()
MAX_SKEW = timedelta(minutes=15)
_AUTHORIZATION = re.compile(
    ALGORITHM
    + r"\s+Credential=(?P<key>.+)/(?P<day>\d{8})/(?P<region>[^/,]+)/(?P<service>[^/,]+)/aws4_request"
    r",\s*SignedHeaders=(?P<headers>[^,\s]+),\s*Signature=(?P<signature>[0-9a-f]{64})"
)


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature that is right: `value`, and what those of a body's chunks are made with."""

    value: str
    date: str
    scope: str
    key: bytes

    def following(self, kind: str, previous: str, *hashes: str) -> str:
        """Return the signature of a body's chunk or trailer (`kind`), which follows the one before."""
        return self._sign(f"{ALGORITHM}-{kind}", previous, *hashes)

    def _sign(self, name: str, *lines: str) -> str:
        text = "\n".join((name, self.date, self.scope, *lines))
        return hmac.new(self.key, text.encode(), "sha256").hexdigest()


def check(
    method: str,
    path: str,
    query: str,
    headers: Mapping[str, str],
    keys: tuple[str, str],
    *,
    now: datetime | None = None,
) -> Signature:
    """Return a request's signature, `path` and `query` being as they were sent.

    Raises:
        S3Error: if there is none, or it is not that of these keys.

    """
    found = _AUTHORIZATION.fullmatch(headers.get("authorization", ""))
    date = headers.get("x-amz-date", "")
    if found is None or "host" not in (names := found["headers"].split(";")):
        raise S3Error("AccessDenied")
    if not hmac.compare_digest(found["key"].encode(), keys[0].encode()):
        raise S3Error("InvalidAccessKeyId")
    try:
        skew = (now or datetime.now(UTC)) - datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError as exc:
        raise S3Error("AccessDenied", "x-amz-date is missing, or no date") from exc
    if abs(skew) > MAX_SKEW:
        raise S3Error("RequestTimeTooSkewed")
    request = "\n".join(
        (
            method,
            quote(unquote_to_bytes(path), safe="/-_.~"),
            _canonical(query),
            *(f"{name}:{' '.join(headers.get(name, '').split())}" for name in names),
            "",
            found["headers"],
            headers.get("x-amz-content-sha256", NOTHING),
        )
    )
    scope = f"{found['day']}/{found['region']}/{found['service']}/aws4_request"
    key = f"AWS4{keys[1]}".encode()
    for word in scope.split("/"):
        key = hmac.digest(key, word.encode(), "sha256")
    unsigned = Signature("", date, scope, key)
    value = unsigned._sign(ALGORITHM, hashlib.sha256(request.encode("latin-1")).hexdigest())  # noqa: SLF001
    if not hmac.compare_digest(value, found["signature"]):
        raise S3Error("SignatureDoesNotMatch")
    return Signature(value, date, scope, key)


def _canonical(query: str) -> str:
    pairs = (pair.partition("=") for pair in query.split("&") if pair)
    written = sorted((_encoded(name), _encoded(value)) for name, _, value in pairs)
    return "&".join(f"{name}={value}" for name, value in written)


def _encoded(text: str) -> str:
    return quote(unquote_to_bytes(text), safe="-_.~")
