"""Where a version comes from, on the command line: with whose word, and refused where that does not hold."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from obstore.store import MemoryStore
from typer.testing import CliRunner

from caravan import model_signature, s3
from caravan.errors import Permanent
from caravan.manifest import Lineage, Manifest
from caravan.provenance import Provenance
from caravan.signatures import PrivateKey, digests_of, new_key, public_half, read_private_key, sign
from caravan_cli.__main__ import commands
from caravan_cli.origin import Origin, read_origin

MANIFEST = Manifest("tea", 3, (), Lineage(data_digest="d1", parent=2), "edge1", "passed")


async def kept(manifest: Manifest, key: PrivateKey | None) -> MemoryStore:
    store = MemoryStore()
    signed, signature = sign(manifest, key, "run-9") if key else (manifest, None)
    await s3.write(store, f"models/tea/{manifest.version}/manifest.json", signed.to_json())
    if signature is not None:
        await s3.write(store, f"models/tea/{manifest.version}/model.sig", signature)
    return store


@pytest.fixture
def public(tmp_path: Path) -> Path:
    return tmp_path / "signing.pub.pem"


@pytest.fixture
def key(tmp_path: Path, public: Path) -> PrivateKey:
    private, of_public = new_key()
    (tmp_path / "signing.pem").write_bytes(private)
    public.write_bytes(of_public)
    return read_private_key(tmp_path / "signing.pem")


def written(folder: Path, pem: bytes) -> Path:
    path = folder / "other.pub.pem"
    path.write_bytes(pem)
    return path


def facts(origin: Origin) -> dict[str, str]:
    return dict(origin.facts())


async def test_a_signed_version_tells_its_data_its_parent_and_its_run(key: PrivateKey, public: Path) -> None:
    origin = await read_origin(await kept(MANIFEST, key), "tea", None, public)
    assert facts(origin) == {
        "owner": "edge1",
        "model": "tea",
        "run": "run-9",
        "data": "d1",
        "parent": "s3://edge1-ready/models/tea/2/",
        "vouched for": "by model.sig",
    }


async def test_without_a_key_or_a_signature_the_manifest_tells_and_nobody_vouches(
    key: PrivateKey, public: Path
) -> None:
    unchecked = facts(await read_origin(await kept(MANIFEST, key), "tea", 3, None))
    store = await kept(MANIFEST, None)
    await s3.write(store, "claims/tea/3.json", b'{"run": "run-8"}')
    unsigned = facts(await read_origin(store, "tea", 3, public))
    assert unchecked["vouched for"] == "not checked: PUBLIC_KEY is not set"
    assert unsigned["vouched for"] == "no: the version is not signed"
    assert unchecked["data"] == unsigned["data"] == "d1"
    assert unsigned["run"] == "run-8", "as the claim on its number has it"


async def test_a_manifest_with_its_own_signature_is_checked_by_that(tmp_path: Path) -> None:
    key = Ed25519PrivateKey.generate()
    origin = await read_origin(await kept(MANIFEST, key), "tea", 3, written(tmp_path, public_half(key)))
    assert origin.word == "by the manifest's own signature"


async def test_a_signature_of_others_or_of_another_origin_is_refused_with_the_reason(
    key: PrivateKey, public: Path
) -> None:
    store, other_key = await kept(MANIFEST, key), written(public.parent, new_key()[1])
    with pytest.raises(Permanent, match="none of the keys"):
        await read_origin(store, "tea", 3, other_key)
    await s3.write(store, "models/tea/3/manifest.json", replace(MANIFEST, edge="edge2").to_json())
    with pytest.raises(Permanent, match="it and the manifest differ"):
        await read_origin(store, "tea", 3, public)
    other = replace(MANIFEST, lineage=Lineage(data_digest="d2"))
    forged = model_signature.sign(
        "tea",
        digests_of(MANIFEST, MANIFEST.to_json()),
        key,  # type: ignore[arg-type]
        Provenance.of(other),
    )
    await s3.write(store, "models/tea/3/manifest.json", MANIFEST.to_json())
    await s3.write(store, "models/tea/3/model.sig", forged)
    with pytest.raises(Permanent, match="comes from: data, parent"):
        await read_origin(store, "tea", 3, public)


async def test_a_version_that_is_not_there_is_said_to_be_missing(public: Path) -> None:
    with pytest.raises(Permanent, match="no version 9 of tea"):
        await read_origin(await kept(MANIFEST, None), "tea", 9, public)
    with pytest.raises(Permanent, match="no version of tea"):
        await read_origin(MemoryStore(), "tea", None, public)


def test_the_command_prints_it_and_ends_with_the_reason_where_nobody_can_vouch(
    key: PrivateKey, public: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = asyncio.run(kept(MANIFEST, key))
    monkeypatch.setattr(s3, "open_bucket", lambda *_: store)
    for name, value in {
        "S3_CENTRAL_ENDPOINT": "http://127.0.0.1:1",
        "S3_CENTRAL_ACCESS_KEY": "key",
        "S3_CENTRAL_SECRET_KEY": "secret",
        "PUBLIC_KEY": str(public),
        "COLUMNS": "120",
    }.items():
        monkeypatch.setenv(name, value)
    told = CliRunner().invoke(commands, ["origin", "tea", "--version", "3"])
    assert told.exit_code == 0
    assert "run-9" in told.output
    assert "by model.sig" in told.output
    public.write_bytes(new_key()[1])
    refused = CliRunner().invoke(commands, ["origin", "tea"])
    assert refused.exit_code == 1
    assert "none of the keys" in refused.output
