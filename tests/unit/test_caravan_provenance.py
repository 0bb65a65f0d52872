"""Where a version comes from is said beside its digests, for any tool, and held against its manifest."""

import base64
import json
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

from caravan import model_signature
from caravan.errors import Permanent
from caravan.manifest import Lineage, Manifest, Shared
from caravan.provenance import BUILD_TYPE, PROVENANCE, Provenance
from caravan.signatures import digests_of, sign

KEY = generate_private_key(SECP256R1())
LINEAGE = Lineage(
    data_digest="d" * 64,
    parent=2,
    rollback_of=1,
    metrics={"members": "e" * 64, "backbone": "efficientnet-lite0-224-8"},
    created="2026-01-02T03:04:05+00:00",
)
TRAINED = Manifest("tea", 3, (), LINEAGE, "edge1", "passed")
SENT = Manifest("shelf", 1, (), Lineage(upload="u1"), "edge1", "passed")
SHARED = replace(TRAINED, version=7, shared=Shared("north", 3))


def statement(signature: bytes) -> dict[str, Any]:
    """Return the statement in a bundle, as any tool reads it."""
    found: dict[str, Any] = json.loads(base64.b64decode(json.loads(signature)["dsseEnvelope"]["payload"]))
    return found


def test_the_bundle_holds_slsa_provenance_of_data_parent_and_run() -> None:
    _, signature = sign(TRAINED, KEY, "run-9")
    assert signature is not None
    told = statement(signature)["predicate"][PROVENANCE]
    assert told == {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {"owner": "edge1", "model": "tea", "rollback_of": 1},
            "resolvedDependencies": [
                {"name": "training data", "digest": {"sha256": "d" * 64}},
                {"name": "members.jsonl.gz", "digest": {"sha256": "e" * 64}},
                {"name": "parent", "uri": "s3://edge1-ready/models/tea/2/"},
                {"name": "backbone", "uri": "efficientnet-lite0-224-8"},
            ],
        },
        "runDetails": {
            "builder": {"id": "urn:caravan:training"},
            "metadata": {"invocationId": "run-9", "finishedOn": "2026-01-02T03:04:05+00:00"},
        },
    }


@pytest.mark.parametrize("manifest", [TRAINED, SENT, SHARED, Manifest("tea", 1, ())], ids=range(4))
@pytest.mark.parametrize("run", ["run-9", None])
def test_what_is_signed_is_read_and_fits_the_manifest(manifest: Manifest, run: str | None) -> None:
    signed, signature = sign(manifest, KEY, run)
    assert signature is not None
    found = model_signature.read(signature, [KEY.public_key()])
    assert found.digests == digests_of(signed, signed.to_json())
    assert found.provenance == Provenance.of(manifest, run)
    found.provenance.check(manifest)


def test_what_a_group_shares_comes_from_where_the_groups_version_does() -> None:
    of_group = replace(TRAINED, edge="north")
    assert Provenance.of(SHARED, "r") == Provenance.of(of_group, "r")


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"data_digest": "f" * 64}, "data"),
        ({"parent": 1}, "parent"),
        ({"parent": None}, "parent"),
        ({"rollback_of": None, "data_digest": None}, "data, rollback_of"),
        ({"metrics": {}}, "members, backbone"),
        ({"upload": "u2"}, "upload"),
        ({"created": ""}, "finished"),
    ],
    ids=range(7),
)
def test_provenance_that_contradicts_the_manifest_is_refused_with_what_differs(
    changed: dict[str, Any], named: str
) -> None:
    other = replace(TRAINED, lineage=replace(LINEAGE, **changed))
    with pytest.raises(Permanent, match=f"where the version comes from: {named}$"):
        Provenance.of(TRAINED, "run-9").check(other)
    with pytest.raises(Permanent, match="where the version comes from: owner"):
        Provenance.of(TRAINED).check(replace(TRAINED, edge="edge2"))


@pytest.mark.parametrize(
    ("predicate", "reason"),
    [
        ([], "provenance in model.sig cannot be read"),
        ({}, "buildDefinition: Field required"),
        ({"buildDefinition": {"externalParameters": {}}}, "buildType: Field required"),
        ({"buildDefinition": {"buildType": BUILD_TYPE, "externalParameters": {"owner": 3}}}, "owner"),
        (
            {
                "buildDefinition": {
                    "buildType": BUILD_TYPE,
                    "externalParameters": {"owner": "edge1", "model": "tea"},
                    "resolvedDependencies": {"name": "parent"},
                }
            },
            "resolvedDependencies",
        ),
    ],
    ids=range(5),
)
def test_what_is_no_provenance_is_refused_with_the_reason(predicate: object, reason: str) -> None:
    with pytest.raises(Permanent, match=reason):
        Provenance.from_predicate(predicate)


def test_what_others_or_later_ones_say_more_is_let_be() -> None:
    told = Provenance.of(TRAINED, "run-9").to_predicate()
    told["buildDefinition"]["internalParameters"] = {"seed": 0}
    told["buildDefinition"]["resolvedDependencies"] += [{"uri": "git+https://example.org/a"}]
    told["runDetails"]["builder"]["version"] = {"caravan": "9"}
    assert Provenance.from_predicate(told) == Provenance.of(TRAINED, "run-9")
    told["buildDefinition"] = {"buildType": "https://example.org/build", "externalParameters": {}}
    assert Provenance.from_predicate(told) is None
