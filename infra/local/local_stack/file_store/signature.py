"""Signature Version 4, checked: who asks, and that nobody changed what is asked.

What is signed, and how, is `caravan.s3_signature`'s to say.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from caravan.s3_signature import ALGORITHM, DATE, canonical_request, sign, signing_key
from local_stack.file_store.errors import S3Error

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
        return sign(self.key, f"{ALGORITHM}-{kind}", self.date, self.scope, previous, *hashes)


def check(method: str, path: str, query: str, headers: Mapping[str, str], keys: tuple[str, str]) -> Signature:
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
        skew = datetime.now(UTC) - datetime.strptime(date, DATE).replace(tzinfo=UTC)
    except ValueError as exc:
        raise S3Error("AccessDenied", "x-amz-date is missing, or no date") from exc
    if abs(skew) > MAX_SKEW:
        raise S3Error("RequestTimeTooSkewed")
    request = canonical_request(method, path, query, {name: headers.get(name, "") for name in names})
    scope = f"{found['day']}/{found['region']}/{found['service']}/aws4_request"
    key = signing_key(keys[1], scope)
    value = sign(key, ALGORITHM, date, scope, hashlib.sha256(request).hexdigest())
    if not hmac.compare_digest(value, found["signature"]):
        raise S3Error("SignatureDoesNotMatch")
    return Signature(value, date, scope, key)
