"""Signatures of manifests, by Ed25519: for who makes versions and who takes them in."""

from __future__ import annotations

import base64
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from caravan.errors import Permanent
from caravan.manifest import Manifest


def verify(manifest: Manifest, key: Ed25519PublicKey) -> None:
    """Check a manifest's signature.

    Raises:
        Permanent: if there is none, or it does not fit.

    """
    if manifest.signature is None:
        raise Permanent("the manifest is not signed, and signatures are required here")
    try:
        key.verify(base64.b64decode(manifest.signature, validate=True), manifest.canonical())
    except (InvalidSignature, ValueError) as exc:
        raise Permanent("the manifest's signature does not fit its content") from exc


def read_private_key(path: Path) -> Ed25519PrivateKey:
    """Read an Ed25519 private key from a PEM file."""
    key = load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise Permanent(f"{path} is not an Ed25519 private key")
    return key


def read_public_key(path: Path) -> Ed25519PublicKey:
    """Read an Ed25519 public key from a PEM file."""
    key = load_pem_public_key(path.read_bytes())
    if not isinstance(key, Ed25519PublicKey):
        raise Permanent(f"{path} is not an Ed25519 public key")
    return key
