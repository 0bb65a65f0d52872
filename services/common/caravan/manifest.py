"""The manifest of a model version: what files it has, where it comes from, and who vouches for it.

It is written last, so its presence says that the version is whole. The signature covers the canonical
JSON (sorted keys, no spaces, UTF-8) of everything but itself.
"""

from __future__ import annotations

import base64
import json
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError

from caravan import strict_json
from caravan.contracts import is_edge_id, to_json
from caravan.errors import Permanent
from caravan.names import CLASS_RULE, LONGEST_REASON, cut, is_addressable, is_class
from caravan.strict_json import NotJson, faults_of

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SCHEMA = 1
MOST_CLASSES = 10_000
MOST_METRICS_BYTES = 2**20
GateVerdict = Literal["passed", "rejected"]


def _class(name: str) -> str:
    if not is_class(name):
        raise ValueError(CLASS_RULE)
    return name


def _metrics(metrics: dict[str, Any]) -> dict[str, Any]:
    if (size := len(to_json(metrics))) > MOST_METRICS_BYTES:
        raise ValueError(f"they have {size} bytes; {MOST_METRICS_BYTES} are taken")
    return metrics


# What is checked where a manifest is read; the rest of the code makes them right.
_Fact = Annotated[str, Field(max_length=200)]
_Path = Annotated[str, Field(max_length=1024)]
_Sha256 = Annotated[str, Field(pattern="^[0-9a-fA-F]{64}$")]
_Version = Annotated[int, Field(ge=1, lt=2**63)]
_Classes = Annotated[tuple[Annotated[str, AfterValidator(_class)], ...], Field(max_length=MOST_CLASSES)]
_Metrics = Annotated[dict[str, Any], AfterValidator(_metrics)]
_Reason = Annotated[str, Field(max_length=LONGEST_REASON)]


@dataclass(frozen=True, slots=True, order=True)
class File:
    """One file: path relative to the version, size in bytes, SHA-256 in hex."""

    path: _Path
    size: Annotated[int, Field(ge=0)]
    sha256: _Sha256

    def __post_init__(self) -> None:
        if not is_addressable(self.path) or "\\" in self.path:
            raise Permanent(f"the manifest names an unsafe path: {cut(self.path)!r}")


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

    # Nothing that is signed may be lost on the way.
    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")

    data_digest: _Fact | None = None
    upload: _Fact | None = None
    parent: _Version | None = None
    rollback_of: _Version | None = None
    classes: _Classes = ()
    metrics: _Metrics = field(default_factory=dict)
    created: _Fact = ""
    rejected: _Reason | None = None


@dataclass(frozen=True, slots=True)
class Shared:
    """Where the files of a version are that a group shares: in `G-ready`, as this version of the group's."""

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")

    group: _Fact
    version: _Version

    def __post_init__(self) -> None:
        if not is_edge_id(self.group):
            raise Permanent("the manifest's group is not the id of one")


@dataclass(frozen=True, slots=True)
class Manifest:
    """All that is vouched for of one version.

    Attributes:
        edge: id of the edge that it is for; None in manifests of before this was said.
        verdict: the gate's; None in manifests of before this was said.
        shared: where its files are, if the edge's group made it; None if they are beside the manifest.
        signature: Ed25519, in base64; None if it is not signed.

    """

    model: _Fact
    version: _Version
    files: tuple[File, ...]
    lineage: Lineage = field(default_factory=Lineage)
    edge: _Fact | None = None
    verdict: GateVerdict | None = None
    shared: Shared | None = None
    signature: _Fact | None = None

    def __post_init__(self) -> None:
        if self.edge is not None and not is_edge_id(self.edge):
            raise Permanent("the manifest's edge is not the id of one")
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
    def from_json(cls, raw: bytes) -> Manifest:
        """Parse and check.

        Raises:
            Permanent: if it is not a manifest of this schema.

        """
        try:
            body = strict_json.loads_object(raw)
        except NotJson as exc:
            raise Permanent(f"the manifest cannot be read: {exc}") from exc
        if body.get("schema") != SCHEMA:
            schema = cut(repr(body.get("schema")), 20)
            raise Permanent(f"the manifest has schema {schema}; this Caravan reads {SCHEMA}")
        try:
            return _MANIFEST.validate_python(body)
        except ValidationError as exc:
            raise Permanent(cut(f"the manifest cannot be read: {faults_of(exc)}")) from exc

    def sign(self, key: Ed25519PrivateKey) -> Self:
        """Return the manifest with its Ed25519 signature, which `signatures.verify` checks."""
        return replace(self, signature=base64.b64encode(key.sign(self.canonical())).decode())

    def canonical(self) -> bytes:
        """Return what is signed: all but the signature."""
        return json.dumps(self._body(), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()

    def _body(self) -> dict[str, Any]:
        shared = None if self.shared is None else asdict(self.shared)
        facts = {"edge": self.edge, "verdict": self.verdict, "shared": shared}
        return {name: fact for name, fact in facts.items() if fact is not None} | {
            "schema": SCHEMA,
            "model": self.model,
            "version": self.version,
            "files": [{"path": f.path, "size": f.size, "sha256": f.sha256} for f in sorted(self.files)],
            "lineage": {
                each.name: fact
                for each in fields(Lineage)
                if (fact := getattr(self.lineage, each.name)) not in (None, (), {}, "")
            },
        }


_MANIFEST = TypeAdapter(Manifest)
