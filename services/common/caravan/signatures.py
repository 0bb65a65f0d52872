"""Who vouches for a version: by OpenSSF's `model.sig` (P-256), or by its manifest's signature (Ed25519)."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from caravan import model_signature
from caravan.contracts import MANIFEST
from caravan.errors import Permanent
from caravan.manifest import Manifest
from caravan.provenance import Provenance

PrivateKey = Ed25519PrivateKey | EllipticCurvePrivateKey

_PEM = re.compile(rb"-----BEGIN PUBLIC KEY-----.+?-----END PUBLIC KEY-----", re.DOTALL)


@dataclass(frozen=True, slots=True)
class PublicKeys:
    """The keys of which any one may vouch for a version.

    Attributes:
        models: P-256 keys, for `model.sig`.
        manifests: Ed25519 keys, for signatures in manifests.

    """

    models: tuple[EllipticCurvePublicKey, ...] = ()
    manifests: tuple[Ed25519PublicKey, ...] = ()


def sign(manifest: Manifest, key: PrivateKey, run: str | None = None) -> tuple[Manifest, bytes | None]:
    """Sign a version; the second is its `model.sig`, None if the signature is in the manifest.

    What `model.sig` says of where the version comes from includes the run that made it.
    """
    if isinstance(key, Ed25519PrivateKey):
        return manifest.sign(key), None
    digests, provenance = digests_of(manifest, manifest.to_json()), Provenance.of(manifest, run)
    return manifest, model_signature.sign(manifest.model, digests, key, provenance)


def vouches(signature: bytes, manifest: Manifest, key: PrivateKey) -> bool:
    """Tell whether a `model.sig` by this key vouches for a manifest, and for its files."""
    if isinstance(key, Ed25519PrivateKey):
        return False
    try:
        vouched = model_signature.verify(signature, [key.public_key()])
    except Permanent:
        return False
    return vouched == digests_of(manifest, manifest.to_json())


def digests_of(manifest: Manifest, raw: bytes) -> dict[str, str]:
    """Return the SHA-256 of each file of a version, that of its manifest among them, which is `raw`."""
    return {file.path: file.sha256.lower() for file in manifest.files} | {
        MANIFEST: hashlib.sha256(raw).hexdigest()
    }


def verify(manifest: Manifest, keys: Collection[Ed25519PublicKey]) -> None:
    """Check a manifest's own signature.

    Raises:
        Permanent: if there is none, or none of the keys fits.

    """
    if manifest.signature is None:
        raise Permanent("the manifest is not signed, and signatures are required here")
    if not any(_fits(manifest, manifest.signature, key) for key in keys):
        raise Permanent("the manifest's signature does not fit its content")


def _fits(manifest: Manifest, signature: str, key: Ed25519PublicKey) -> bool:
    try:
        key.verify(base64.b64decode(signature, validate=True), manifest.canonical())
    except (InvalidSignature, ValueError):
        return False
    return True


# --- keys ---------------------------------------------------------------------------------------


def read_private_key(path: Path) -> PrivateKey:
    """Read a P-256 or Ed25519 private key from a PEM file."""
    key = load_pem_private_key(path.read_bytes(), password=None)
    if isinstance(key, Ed25519PrivateKey) or (isinstance(key, EllipticCurvePrivateKey) and _is_p256(key)):
        return key
    raise Permanent(f"{path} is neither a P-256 nor an Ed25519 private key")


def read_public_keys(path: Path) -> PublicKeys:
    """Read the public keys of a PEM file, one after the other: P-256, Ed25519, or both."""
    try:
        keys = [load_pem_public_key(found) for found in _PEM.findall(path.read_bytes())]
    except (OSError, ValueError) as exc:
        raise Permanent(f"{path} holds no public keys that can be read: {exc}") from exc
    models = tuple(key for key in keys if isinstance(key, EllipticCurvePublicKey) and _is_p256(key))
    manifests = tuple(key for key in keys if isinstance(key, Ed25519PublicKey))
    if not keys or len(models) + len(manifests) < len(keys):
        raise Permanent(f"{path} has to hold P-256 or Ed25519 public keys, and nothing else")
    return PublicKeys(models, manifests)


def new_key() -> tuple[bytes, bytes]:
    """Make a P-256 key, and return its private and its public half as PEM."""
    key = generate_private_key(SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), public_half(key)


def public_half(key: PrivateKey) -> bytes:
    """Return the public half of a key as PEM."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _is_p256(key: EllipticCurvePrivateKey | EllipticCurvePublicKey) -> bool:
    return isinstance(key.curve, SECP256R1)
