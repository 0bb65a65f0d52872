"""The manifest of a model version."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from caravan.contracts import model_rejected_event, to_json, training_event
from caravan.errors import Permanent
from caravan.manifest import File, Lineage, Manifest
from caravan.names import LONGEST_REASON
from caravan.signatures import read_private_key, read_public_keys, sign, verify

MANIFEST = Manifest(
    "tea_model_b64",
    3,
    (File("saved_model.pb", 10, "a" * 64), File("variables/variables.index", 5, "b" * 64)),
    Lineage(data_digest="d", parent=2, classes=("other", "tea-green"), metrics={"accuracy": 0.99}),
)


def test_a_manifest_survives_being_stored() -> None:
    assert Manifest.from_json(MANIFEST.to_json()) == MANIFEST


def test_its_bytes_do_not_depend_on_the_order_of_files() -> None:
    assert replace(MANIFEST, files=MANIFEST.files[::-1]).to_json() == MANIFEST.to_json()


def test_a_signature_holds_after_being_stored() -> None:
    key = Ed25519PrivateKey.generate()
    stored = Manifest.from_json(MANIFEST.sign(key).to_json())
    verify(stored, [key.public_key()])
    assert stored.signature


def test_a_changed_manifest_fails_its_signature() -> None:
    key = Ed25519PrivateKey.generate()
    forged = replace(MANIFEST.sign(key), version=4)
    with pytest.raises(Permanent, match="does not fit"):
        verify(forged, [key.public_key()])


@pytest.mark.parametrize(
    "changed", [{"edge": "edge2"}, {"edge": None}, {"verdict": "rejected"}, {"verdict": None}]
)
def test_a_signature_covers_the_edge_and_the_verdict(changed: dict[str, Any]) -> None:
    key = Ed25519PrivateKey.generate()
    signed = replace(MANIFEST, edge="edge1", verdict="passed").sign(key)
    verify(Manifest.from_json(signed.to_json()), [key.public_key()])
    with pytest.raises(Permanent, match="does not fit"):
        verify(replace(signed, **changed), [key.public_key()])


@pytest.mark.parametrize(
    "fact", [{"edge": "Not an edge"}, {"edge": 5}, {"verdict": "perhaps"}, {"verdict": ["passed"]}]
)
def test_an_edge_or_a_verdict_that_is_none_is_refused(fact: dict[str, Any]) -> None:
    with pytest.raises(Permanent):
        Manifest.from_json(json.dumps({**json.loads(MANIFEST.to_json()), **fact}).encode())


def test_a_version_that_passed_has_no_reason_for_a_rejection() -> None:
    with pytest.raises(Permanent, match="passed, and why"):
        replace(MANIFEST, verdict="passed", lineage=Lineage(rejected="worse"))


def test_an_unsigned_manifest_is_refused_where_signatures_are_asked_for() -> None:
    with pytest.raises(Permanent, match="not signed"):
        verify(MANIFEST, [Ed25519PrivateKey.generate().public_key()])


@pytest.mark.parametrize(
    "path", ["../etc/passwd", "/etc/passwd", "a/../../b", "", "a\\b", "a//b", "./a", "a\tb", "\0"]
)
def test_a_path_out_of_the_version_is_refused(path: str) -> None:
    body = json.loads(MANIFEST.to_json())
    body["files"][0]["path"] = path
    with pytest.raises(Permanent, match="unsafe path"):
        Manifest.from_json(json.dumps(body).encode())


@pytest.mark.parametrize("raw", [b"", b"{}", b"[]", b"not json", b'{"schema":2}', b'{"schema":1,"files":3}'])
def test_what_is_no_manifest_is_refused(raw: bytes) -> None:
    with pytest.raises(Permanent):
        Manifest.from_json(raw)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("lineage.classes", "tea"),
        ("lineage.classes", [1, 2]),
        ("lineage.classes", ["te\ta"]),
        ("lineage.classes", ["a" * 201]),
        ("lineage.classes", ["a"] * 10_001),
        ("lineage.classes", {"a": 1}),
        ("lineage.metrics", [1]),
        ("lineage.metrics", {"notes": "x" * 2**20}),
        ("lineage.parent", "one"),
        ("lineage.parent", -1),
        ("lineage.parent", 2**63),
        ("lineage.rejected", {"why": "x"}),
        ("lineage.rejected", "x" * 2001),
        ("lineage.created", 7),
        ("lineage.data_digest", ["d"]),
        ("lineage.upload", "u" * 201),
        ("lineage.more", "x"),
        ("lineage", [1]),
        ("lineage", None),
        ("model", ["m"]),
        ("model", "m" * 201),
        ("version", 0),
        ("version", 1.5),
        ("signature", 5),
        ("schema", "x" * 4_000_000),
        ("files", [{"path": "a", "size": -1, "sha256": "a" * 64}]),
        ("files", [{"path": "a", "size": 1, "sha256": "z" * 64}]),
        ("files", [{"path": "a" * 2000, "size": 1, "sha256": "a" * 64}]),
        ("files", [{"path": 5, "size": 1, "sha256": "a" * 64}]),
    ],
)
def test_a_fact_of_another_type_or_length_is_refused_in_few_words(place: str, value: Any) -> None:
    body = json.loads(MANIFEST.to_json())
    *parents, last = place.split(".")
    node = body
    for parent in parents:
        node = node[parent]
    node[last] = value
    with pytest.raises(Permanent) as refused:
        Manifest.from_json(json.dumps(body).encode())
    assert len(str(refused.value)) <= LONGEST_REASON


def test_text_that_cannot_be_written_again_is_refused() -> None:
    raw = MANIFEST.to_json().replace(b'"tea-green"', rb'"\ud800"')
    with pytest.raises(Permanent, match="cannot be read"):
        Manifest.from_json(raw)


def test_what_an_event_tells_of_a_reason_is_short() -> None:
    reason = "x" * 4_000_000
    assert len(to_json(model_rejected_event("m", 1, reason))) < 1000
    assert len(to_json(training_event("train", 0.5, outcome=reason))) < 1000


def test_keys_are_read_from_pem_files(tmp_path: Path) -> None:
    key = Ed25519PrivateKey.generate()
    private, public = tmp_path / "key.pem", tmp_path / "key.pub"
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    public.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    signed, _ = sign(MANIFEST, read_private_key(private))
    verify(signed, read_public_keys(public).manifests)
    assert signed.signature != MANIFEST.signature
