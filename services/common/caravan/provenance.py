"""Where a version comes from, as SLSA provenance v1: what `model.sig` says beside the digests. Pure.

It stands in the predicate of OpenSSF's statement under its own type, as members that are not theirs may.
With the statement's subject it is a statement of its own, for tools that know provenance alone. All of it but
the run follows from the manifest, so one that says otherwise is found. See https://slsa.dev/spec/v1.0/provenance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from caravan.contracts import SIGNATURE, ready_bucket, version_prefix
from caravan.errors import Permanent
from caravan.manifest import Manifest
from caravan.members import FACT, MEMBERS
from caravan.names import cut
from caravan.strict_json import faults_of

PROVENANCE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:caravan:training:v1"
"""How `externalParameters` and `resolvedDependencies` are to be read; of another type nothing is read."""
BUILDER = "urn:caravan:training"

DATA, PARENT, BACKBONE = "training data", "parent", "backbone"
"""Names of dependencies; one more is `members.jsonl.gz`."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, alias_generator=to_camel)


class _Parameters(BaseModel):
    owner: str
    model: str
    upload: str | None = None
    rollback_of: int | None = None


class _Dependency(_Part):
    name: str = ""
    uri: str | None = None
    digest: Mapping[str, str] = Field(default_factory=dict)


class _Definition(_Part):
    build_type: str
    external_parameters: _Parameters
    resolved_dependencies: tuple[_Dependency, ...] = ()


class _Metadata(_Part):
    invocation_id: str | None = None
    finished_on: str = ""


class _Run(_Part):
    metadata: _Metadata = _Metadata()


class _Provenance(_Part):
    build_definition: _Definition
    run_details: _Run = _Run()


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a version comes from.

    Attributes:
        owner: id of the edge, or of the group, that it was made for.
        run: id of the run that made it, as its events and the listener name it; None if nobody noted it.
        data: SHA-256 of what it was trained on, in hex; None for one that was sent.
        members: SHA-256 of `members.jsonl.gz`, in hex; None if there is none.
        parent: S3 address of the version that it was compared with; None for the first.
        backbone: name of what it was trained on top of; None for one that was sent.
        upload: id of the upload that it came as; None for one that was trained here.
        rollback_of: the version whose files these are, when an operator rolled back.
        finished: ISO 8601 time, UTC.

    """

    owner: str
    model: str
    run: str | None = None
    data: str | None = None
    members: str | None = None
    parent: str | None = None
    backbone: str | None = None
    upload: str | None = None
    rollback_of: int | None = None
    finished: str = ""

    @classmethod
    def of(cls, manifest: Manifest, run: str | None = None) -> Self:
        """Return what a manifest says of it; of what a group shares, that is where the group's comes from."""
        lineage, model = manifest.lineage, manifest.model
        owner = manifest.shared.group if manifest.shared is not None else manifest.edge or ""
        members, backbone = (lineage.metrics.get(fact) for fact in (FACT, "backbone"))
        return cls(
            owner,
            model,
            run,
            lineage.data_digest,
            members if isinstance(members, str) else None,
            None if lineage.parent is None else _address(owner, model, lineage.parent),
            backbone if isinstance(backbone, str) else None,
            lineage.upload,
            lineage.rollback_of,
            lineage.created,
        )

    @classmethod
    def from_predicate(cls, predicate: object) -> Self | None:
        """Read what `to_predicate` made; None if it is of another build type, of which nothing is known.

        Raises:
            Permanent: if it is no provenance of SLSA v1.

        """
        try:
            if isinstance(predicate, dict) and _is_of_others(predicate):
                return None
            read = _Provenance.model_validate(predicate)
        except ValidationError as exc:
            raise Permanent(cut(f"the provenance in {SIGNATURE} cannot be read: {faults_of(exc)}")) from exc
        asked, told = read.build_definition.external_parameters, read.run_details.metadata
        named = {one.name: one for one in read.build_definition.resolved_dependencies}
        nothing = _Dependency()
        return cls(
            asked.owner,
            asked.model,
            told.invocation_id,
            named.get(DATA, nothing).digest.get("sha256"),
            named.get(MEMBERS, nothing).digest.get("sha256"),
            named.get(PARENT, nothing).uri,
            named.get(BACKBONE, nothing).uri,
            asked.upload,
            asked.rollback_of,
            told.finished_on,
        )

    def to_predicate(self) -> dict[str, Any]:
        """Return it as the predicate of an in-toto statement of type `PROVENANCE`."""
        asked = {
            "owner": self.owner,
            "model": self.model,
            "upload": self.upload,
            "rollback_of": self.rollback_of,
        }
        digests, addresses = (
            {DATA: self.data, MEMBERS: self.members},
            {PARENT: self.parent, BACKBONE: self.backbone},
        )
        told = {"invocationId": self.run, "finishedOn": self.finished or None}
        return {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": _said(asked),
                "resolvedDependencies": [
                    *({"name": name, "digest": {"sha256": sha}} for name, sha in _said(digests).items()),
                    *({"name": name, "uri": uri} for name, uri in _said(addresses).items()),
                ],
            },
            "runDetails": {"builder": {"id": BUILDER}, "metadata": _said(told)},
        }

    def check(self, manifest: Manifest) -> None:
        """Hold it against the manifest of the version that it is beside.

        Raises:
            Permanent: if that says that the version comes from elsewhere.

        """
        expected = type(self).of(manifest, self.run)
        differ = [
            each.name for each in fields(self) if getattr(self, each.name) != getattr(expected, each.name)
        ]
        if differ:
            told = ", ".join(differ)
            raise Permanent(f"{SIGNATURE} and the manifest differ in where the version comes from: {told}")


def _is_of_others(predicate: Mapping[str, Any]) -> bool:
    definition = predicate.get("buildDefinition")
    return isinstance(definition, dict) and definition.get("buildType", BUILD_TYPE) != BUILD_TYPE


def _said(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: fact for name, fact in facts.items() if fact is not None}


def _address(owner: str, model: str, version: int) -> str:
    key = version_prefix(model, version)
    return f"s3://{ready_bucket(owner)}/{key}" if owner else key
