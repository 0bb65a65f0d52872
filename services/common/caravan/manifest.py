"""The manifest of a model version: what files it has, where it comes from, and who vouches for it.

It is written last, so its presence says that the version is whole. The signature covers the canonical
JSON (sorted keys, no spaces, UTF-8) of everything but itself.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal, Self, get_args

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from caravan import strict_json
from caravan.contracts import is_edge_id
from caravan.errors import Permanent

SCHEMA = 1
Verdict = Literal["passed", "rejected"]
_HEX_SHA256 = 64


@dataclass(frozen=True, slots=True, order=True)
class File:
    """One file: path relative to the version, size in bytes, SHA-256 in hex."""

    path: str
    size: int
    sha256: str

    def __post_init__(self) -> None:
        parts = PurePosixPath(self.path).parts
        if not parts or self.path.startswith("/") or ".." in parts or "\\" in self.path:
            raise Permanent(f"the manifest names an unsafe path: {self.path!r}")
        if self.size < 0 or len(self.sha256) != _HEX_SHA256:
            raise Permanent(f"the manifest's entry for {self.path!r} has no valid size or SHA-256")


@dataclass(frozen=True, slots=True)
class Lineage:
    """Where a version comes from.

    Attributes:
        data_digest: digest of the training data; None for a version uploaded ready-made.
        upload: id of the upload that it came as; None for a version trained here.
        parent: version it was compared with; None for the first.
        rollback_of: version whose files these are, when an operator rolled back.
        classes: class names in the order of the model's outputs.
        metrics: held-out figures, such as `accuracy`.
        created: ISO 8601 time, UTC.
        rejected: why the gate refused it; None when it passed.

    """

    data_digest: str | None = None
    upload: str | None = None
    parent: int | None = None
    rollback_of: int | None = None
    classes: tuple[str, ...] = ()
    metrics: dict[str, Any] = field(default_factory=dict)
    created: str = ""
    rejected: str | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """All that is vouched for of one version.

    Attributes:
        edge: id of the edge that it is for; None in manifests of before this was said.
        verdict: the gate's; None in manifests of before this was said.
        signature: Ed25519, in base64; None if it is not signed.

    """

    model: str
    version: int
    files: tuple[File, ...]
    lineage: Lineage = field(default_factory=Lineage)
    edge: str | None = None
    verdict: Verdict | None = None
    signature: str | None = None

    def __post_init__(self) -> None:
        if self.edge is not None and not (isinstance(self.edge, str) and is_edge_id(self.edge)):
            raise Permanent("the manifest's edge is not the id of one")
        if self.verdict not in (None, *get_args(Verdict)):
            raise Permanent("the manifest's verdict is neither passed nor rejected")
        if self.verdict == "passed" and self.lineage.rejected is not None:
            raise Permanent("the manifest says that the version passed, and why it was rejected")

    @property
    def is_rejected(self) -> bool:
        """Tell whether the gate refused it."""
        return self.verdict == "rejected" or self.lineage.rejected is not None

    def to_json(self) -> bytes:
        """Return the bytes to store: deterministic, readable."""
        body = self._body() | ({"signature": self.signature} if self.signature else {})
        return json.dumps(body, sort_keys=True, indent=1, ensure_ascii=False).encode()

    @classmethod
    def from_json(cls, raw: bytes) -> Self:
        """Parse and check.

        Raises:
            Permanent: if it is not a manifest of this schema.

        """
        try:
            body = strict_json.loads_object(raw)
            if body["schema"] != SCHEMA:
                raise Permanent(f"the manifest has schema {body['schema']!r}; this Caravan reads {SCHEMA}")
            lineage, signature = body["lineage"], body.get("signature")
            if not isinstance(signature, str | None):
                raise Permanent("the manifest's signature is not text")
            return cls(
                model=str(body["model"]),
                version=int(body["version"]),
                files=tuple(File(str(f["path"]), int(f["size"]), str(f["sha256"])) for f in body["files"]),
                lineage=Lineage(**{**lineage, "classes": tuple(lineage.get("classes", ()))}),
                edge=body.get("edge"),
                verdict=body.get("verdict"),
                signature=signature,
            )
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as exc:
            raise Permanent(f"the manifest cannot be read: {exc!r}") from exc

    def sign(self, key: Ed25519PrivateKey) -> Self:
        """Return the manifest with its Ed25519 signature."""
        return replace(self, signature=base64.b64encode(key.sign(self._canonical())).decode())

    def verify(self, key: Ed25519PublicKey) -> None:
        """Check the signature.

        Raises:
            Permanent: if there is none, or it does not fit.

        """
        if self.signature is None:
            raise Permanent("the manifest is not signed, and signatures are required here")
        try:
            key.verify(base64.b64decode(self.signature, validate=True), self._canonical())
        except (InvalidSignature, ValueError, RecursionError) as exc:  # content made to upset the encoders
            raise Permanent("the manifest's signature does not fit its content") from exc

    def _body(self) -> dict[str, Any]:
        facts = {"edge": self.edge, "verdict": self.verdict}
        return {name: fact for name, fact in facts.items() if fact is not None} | {
            "schema": SCHEMA,
            "model": self.model,
            "version": self.version,
            "files": [{"path": f.path, "size": f.size, "sha256": f.sha256} for f in sorted(self.files)],
            "lineage": {
                name: getattr(self.lineage, name)
                for name in Lineage.__dataclass_fields__
                if getattr(self.lineage, name) not in (None, (), {}, "")
            },
        }

    def _canonical(self) -> bytes:
        return json.dumps(self._body(), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


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
