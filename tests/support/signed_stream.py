"""A put to S3 whose body is signed piece by piece, as AWS SDK for Java sends each over plain HTTP."""

import hashlib
import hmac
from datetime import UTC, datetime
from functools import reduce
from urllib.parse import urlsplit

import httpx

from caravan.settings import S3Address

PIECE = 2**16
PAYLOAD = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"


def put(address: S3Address, path: str, body: bytes) -> httpx.Response:
    """Put an object at `/<bucket>/<key>`, a path that needs no escaping.

    See https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html.
    """
    host, now = urlsplit(address.endpoint).netloc, f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    scope = f"{now[:8]}/{address.region}/s3/aws4_request"
    key = reduce(_hmac, scope.split("/"), b"AWS4" + address.secret_key.get_secret_value().encode())
    pieces = [*(body[start : start + PIECE] for start in range(0, len(body), PIECE)), b""]
    headers = {
        "content-encoding": "aws-chunked",
        "content-length": str(sum(len(_framed(piece, "0" * 64)) for piece in pieces)),
        "host": host,
        "x-amz-content-sha256": PAYLOAD,
        "x-amz-date": now,
        "x-amz-decoded-content-length": str(len(body)),
    }
    names = ";".join(headers)
    lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
    request = f"PUT\n{path}\n\n{lines}\n{names}\n{PAYLOAD}"
    signature = _hmac(key, f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{_digest(request.encode())}").hex()
    user = address.access_key.get_secret_value()
    headers["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={user}/{scope},SignedHeaders={names},Signature={signature}"
    )
    sent = b""
    for piece in pieces:
        said = f"AWS4-HMAC-SHA256-PAYLOAD\n{now}\n{scope}\n{signature}\n{_digest(b'')}\n{_digest(piece)}"
        signature = _hmac(key, said).hex()
        sent += _framed(piece, signature)
    return httpx.put(f"{address.endpoint}{path}", content=sent, headers=headers, trust_env=False)


def _framed(piece: bytes, signature: str) -> bytes:
    return f"{len(piece):x};chunk-signature={signature}\r\n".encode() + piece + b"\r\n"


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
