"""Why a client was not let in: one of few words for counting, and a sentence for whoever reads the log."""

from __future__ import annotations

import ssl
from dataclasses import dataclass

EXPIRED, NOT_YET = 10, 9
"""OpenSSL's X509_V_ERR_CERT_HAS_EXPIRED and X509_V_ERR_CERT_NOT_YET_VALID."""
WRONG_PURPOSE = 26
"""X509_V_ERR_INVALID_PURPOSE: a server's certificate shown by a client."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a handshake failed: `reason` for counting, `detail` for people."""

    reason: str
    detail: str


TOO_SLOW = Refusal("too-slow", "the handshake took too long")
HUNG_UP = Refusal("hung-up", "the client hung up during the handshake")
TOO_MANY = Refusal("too-many", "too many connections")
NO_BROKER = Refusal("no-broker", "the broker behind the door does not answer")

_BY_OPENSSL = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": Refusal("no-certificate", "the client showed no certificate"),
    "UNSUPPORTED_PROTOCOL": Refusal("old-tls", "the client speaks only TLS older than 1.2"),
    "VERSION_TOO_LOW": Refusal("old-tls", "the client speaks only TLS older than 1.2"),
    "TLSV1_ALERT_UNKNOWN_CA": Refusal(
        "not-trusted", "the client does not trust the server's certificate: give it ca.pem"
    ),
    "SSLV3_ALERT_BAD_CERTIFICATE": Refusal(
        "not-trusted", "the client does not take the server's certificate, perhaps for its name"
    ),
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": Refusal(
        "not-trusted", "the client does not take the server's certificate, perhaps for its name"
    ),
    "UNEXPECTED_EOF_WHILE_READING": HUNG_UP,
}
_NOT_TLS = {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "HTTPS_PROXY_REQUEST", "UNKNOWN_PROTOCOL"}
_BY_VERIFICATION = {
    EXPIRED: Refusal("expired", "the client's certificate has expired"),
    NOT_YET: Refusal("expired", "the client's certificate is not valid yet"),
    WRONG_PURPOSE: Refusal("wrong-purpose", "the certificate shown is not one for clients"),
}


def refusal_of(error: BaseException) -> Refusal:
    """Say why a handshake failed."""
    if isinstance(error, TimeoutError):
        return TOO_SLOW
    if isinstance(error, ssl.SSLCertVerificationError):
        other = Refusal("unknown-issuer", f"the client's certificate: {error.verify_message}")
        return _BY_VERIFICATION.get(error.verify_code, other)
    if isinstance(error, ssl.SSLError):
        name = error.reason or ""
        if name in _NOT_TLS:
            return Refusal("not-tls", "the client does not speak TLS")
        return _BY_OPENSSL.get(name, Refusal("handshake", f"the handshake failed: {name or error}"))
    if isinstance(error, OSError | EOFError):
        return HUNG_UP
    return Refusal("handshake", f"the handshake failed: {error}")
