"""OpenSSF Model Signing v1.0: the digests of a model's files, signed by P-256, as the file `model.sig`.

It is a Sigstore bundle (v0.3) of a DSSE envelope, in which lies an in-toto statement that names each file
with its SHA-256. `model_signing verify key` reads what is made here, and what `model_signing sign key` makes
is read here. Their predicate may say more, which v1.0 has verifiers ignore: ours says where the version comes
from. See https://github.com/sigstore/model-transparency and https://github.com/secure-systems-lab/dsse.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from caravan import strict_json
from caravan.contracts import SIGNATURE
from caravan.errors import Permanent
from caravan.names import cut
from caravan.provenance import PROVENANCE, Provenance
from caravan.strict_json import NotJson, faults_of

BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
IN_TOTO = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://model_signing/signature/v1.0"
IGNORED = (SIGNATURE, ".git", ".gitattributes", ".github", ".gitignore")
"""Prefixes of paths that OpenSSF's tool does not sign."""

Digests = Mapping[str, str]
"""SHA-256 of files, in hex, by their path within the model."""

_Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, alias_generator=to_camel)


class _Signature(_Part):
    sig: str


class _Envelope(_Part):
    payload: str
    payload_type: Literal["application/vnd.in-toto+json"]
    signatures: tuple[_Signature]


class _Bundle(_Part):
    media_type: Literal["application/vnd.dev.sigstore.bundle.v0.3+json"]
    dsse_envelope: _Envelope


class _Digest(BaseModel):
    sha256: _Sha256


class _Subject(BaseModel):
    name: str
    digest: _Digest


class _Resource(BaseModel):
    name: str
    algorithm: Literal["sha256"]
    digest: _Sha256


class _Serialization(BaseModel):
    method: Literal["files"]
    hash_type: Literal["sha256"]


class _Predicate(BaseModel):
    resources: tuple[_Resource, ...]
    serialization: _Serialization
    provenance: Any = Field(default=None, alias="https://slsa.dev/provenance/v1")


class _Statement(_Part):
    type: Literal["https://in-toto.io/Statement/v1"] = Field(alias="_type")
    predicate_type: Literal["https://model_signing/signature/v1.0"]
    subject: tuple[_Subject]
    predicate: _Predicate


@dataclass(frozen=True, slots=True)
class Vouched:
    """What a `model.sig` vouches for: digests by path, and where the model comes from, if it says so."""

    digests: dict[str, str]
    provenance: Provenance | None


def sign(
    name: str, digests: Digests, key: EllipticCurvePrivateKey, provenance: Provenance | None = None
) -> bytes:
    """Return the content of `model.sig` for a model of this name, which only informs."""
    paths = sorted(digests, key=PurePosixPath)
    statement = {
        "_type": STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": _root(digests[path] for path in paths)}}],
        "predicateType": PREDICATE,
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": IGNORED,
            },
            "resources": [{"name": p, "algorithm": "sha256", "digest": digests[p]} for p in paths],
            **({} if provenance is None else {PROVENANCE: provenance.to_predicate()}),
        },
    }
    payload = json.dumps(statement, separators=(",", ":")).encode()
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    bundle = {
        "mediaType": BUNDLE,
        "verificationMaterial": {
            "publicKey": {"hint": hashlib.sha256(public).hexdigest()},
            "tlogEntries": [],
        },
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": IN_TOTO,
            "signatures": [
                {"sig": base64.b64encode(key.sign(_signed(payload), ECDSA(SHA256()))).decode(), "keyid": ""}
            ],
        },
    }
    return json.dumps(bundle, separators=(",", ":")).encode()


def verify(raw: bytes, keys: Collection[EllipticCurvePublicKey]) -> dict[str, str]:
    """Check the content of a `model.sig`, and return the digests that it vouches for; see `read`."""
    return read(raw, keys).digests


def read(raw: bytes, keys: Collection[EllipticCurvePublicKey]) -> Vouched:
    """Check the content of a `model.sig`, and return what it vouches for.

    Raises:
        Permanent: if it is of another kind, none of the keys fits, or it contradicts itself.

    """
    try:
        envelope = _Bundle.model_validate(strict_json.loads_object(raw)).dsse_envelope
        payload = base64.b64decode(envelope.payload, validate=True)
        signature = base64.b64decode(envelope.signatures[0].sig, validate=True)
    except (NotJson, ValidationError, ValueError) as exc:
        raise Permanent(_unreadable(exc)) from exc
    if not any(_fits(key, signature, payload) for key in keys):
        raise Permanent(f"{SIGNATURE} is by none of the keys that are known here, or was altered")
    try:
        statement = _Statement.model_validate(strict_json.loads_object(payload))
    except (NotJson, ValidationError) as exc:
        raise Permanent(_unreadable(exc)) from exc
    resources = statement.predicate.resources
    if statement.subject[0].digest.sha256 != _root(one.digest for one in resources):
        raise Permanent(f"{SIGNATURE} contradicts itself: its root digest is not that of its files")
    digests = {one.name: one.digest for one in resources}
    if len(digests) != len(resources):
        raise Permanent(f"{SIGNATURE} names a file twice")
    told = statement.predicate.provenance
    return Vouched(digests, None if told is None else Provenance.from_predicate(told))


def _unreadable(error: Exception) -> str:
    fault = faults_of(error) if isinstance(error, ValidationError) else str(error)
    return cut(f"{SIGNATURE} cannot be read: {fault}")


def _fits(key: EllipticCurvePublicKey, signature: bytes, payload: bytes) -> bool:
    try:
        key.verify(signature, _signed(payload), ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True


def _signed(payload: bytes) -> bytes:
    """Return what is signed of an envelope: DSSE's pre-authentication encoding."""
    return b"DSSEv1 %d %s %d %s" % (len(IN_TOTO), IN_TOTO.encode(), len(payload), payload)


def _root(digests: Iterable[str]) -> str:
    return hashlib.sha256(b"".join(bytes.fromhex(digest) for digest in digests)).hexdigest()
