"""Signature Version 4: who asks S3, and that nobody changed what is asked.

Forty lines over hmac: botocore, which signs too, is 31 MB of each image with what it needs.
https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-authenticating-requests.html
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote_to_bytes, urlsplit

from caravan.errors import CaravanError, Refused, Transient

if TYPE_CHECKING:
    from caravan.settings import S3Address

ALGORITHM = "AWS4-HMAC-SHA256"
NOTHING = hashlib.sha256(b"").hexdigest()
"""The payload hash of a request without a body."""
DATE = "%Y%m%dT%H%M%SZ"
SKEWED = "RequestTimeTooSkewed"
"""What a store says to a clock that is wrong."""
DEFAULT_PORTS = {"http": ":80", "https": ":443"}


def signed(address: S3Address, method: str, url: str, *, now: datetime | None = None) -> dict[str, str]:
    """Return the headers that sign a request without a body, its URL being as it is sent."""
    parts = urlsplit(url)
    date = (now or datetime.now(UTC)).strftime(DATE)
    host = parts.netloc.rpartition("@")[2].lower().removesuffix(DEFAULT_PORTS.get(parts.scheme, ""))
    headers = {"host": host, "x-amz-content-sha256": NOTHING, "x-amz-date": date}
    request = canonical_request(method, parts.path or "/", parts.query, headers)
    scope = f"{date[:8]}/{address.region}/s3/aws4_request"
    key = signing_key(address.secret_key.get_secret_value(), scope)
    signature = sign(key, ALGORITHM, date, scope, hashlib.sha256(request).hexdigest())
    credential = f"{address.access_key.get_secret_value()}/{scope}"
    names = ";".join(headers)
    return {
        "Authorization": f"{ALGORITHM} Credential={credential}, SignedHeaders={names}, Signature={signature}",
        "X-Amz-Content-SHA256": NOTHING,
        "X-Amz-Date": date,
    }


def canonical_request(method: str, path: str, query: str, headers: Mapping[str, str]) -> bytes:
    """Return what is signed of a request; the headers are those that count, by small names, in order."""
    lines = (
        method,
        quote(unquote_to_bytes(path), safe="/-_.~"),
        _canonical(query),
        *(f"{name}:{' '.join(value.split())}" for name, value in headers.items()),
        "",
        ";".join(headers),
        headers.get("x-amz-content-sha256", NOTHING),
    )
    return "\n".join(lines).encode("latin-1")


def signing_key(secret: str, scope: str) -> bytes:
    """Return the key of a day, a region and a service: `scope` is `day/region/service/aws4_request`."""
    key = f"AWS4{secret}".encode()
    for word in scope.split("/"):
        key = hmac.digest(key, word.encode(), "sha256")
    return key


def sign(key: bytes, *lines: str) -> str:
    """Return the signature of lines."""
    return hmac.new(key, "\n".join(lines).encode(), "sha256").hexdigest()


def _canonical(query: str) -> str:
    pairs = (pair.partition("=") for pair in query.split("&") if pair)
    return "&".join(
        f"{name}={value}" for name, value in sorted((_encoded(n), _encoded(v)) for n, _, v in pairs)
    )


def _encoded(text: str) -> str:
    return quote(unquote_to_bytes(text), safe="-_.~")


def refusal(action: str, code: str) -> CaravanError:
    """Return the error of a store that refuses us, by its code; a clock is set right while one waits."""
    if code == SKEWED:
        return Transient(f"S3 could not {action}: the clocks here and there are too far apart")
    return Refused(f"S3 refused to {action}: check the access key, its rights and the clock")
