"""`model.sig`: made here and read by OpenSSF's own tool, made by it and read here, and refused if changed."""

import base64
import hashlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from caravan.contracts import SIGNATURE
from caravan.errors import Permanent
from caravan.model_signature import read, sign, verify
from caravan.signatures import new_key, read_private_key, read_public_keys
from support import clients
from support.mutations import FILES, ORIGIN, TOOL, digests, laid_out, mutation, refused_here, signed

Tool = Callable[..., Any]


def p256(pem: bytes) -> EllipticCurvePrivateKey:
    key = load_pem_private_key(pem, None)
    assert isinstance(key, EllipticCurvePrivateKey)
    return key


PRIVATE, PUBLIC = new_key()
KEY = p256(PRIVATE)


@pytest.fixture(scope="module")
def tool() -> Tool:
    """Run OpenSSF's tool, and return what it printed as JSON."""
    try:
        python = clients.python_of("model-signing")
    except clients.NotInstalled as exc:
        pytest.skip(f"model-signing cannot be installed here: {str(exc).splitlines()[-1]}")

    def run(*words: str | Path) -> Any:
        done = subprocess.run(
            [python, TOOL, *words], capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if done.stdout else None

    return run


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    private, public = tmp_path / "key.pem", tmp_path / "key.pub.pem"
    private.write_bytes(PRIVATE)
    public.write_bytes(PUBLIC)
    return private, public


def test_their_tool_verifies_what_is_signed_here(tool: Tool, tmp_path: Path, keys: tuple[Path, Path]) -> None:
    assert tool("verify", keys[1], laid_out(tmp_path / "tea", signed(KEY))) == [None]


def test_what_their_tool_signs_is_verified_here(tool: Tool, tmp_path: Path, keys: tuple[Path, Path]) -> None:
    folder = laid_out(tmp_path / "tea", FILES)
    tool("sign", folder, keys[0])
    found = read((folder / SIGNATURE).read_bytes(), read_public_keys(keys[1]).models)
    assert (found.digests, found.provenance) == (digests(FILES), None)


def test_their_tool_verifies_it_with_and_without_where_it_comes_from(
    tool: Tool, tmp_path: Path, keys: tuple[Path, Path]
) -> None:
    plain = {**FILES, SIGNATURE: sign("tea/1", digests(FILES), KEY)}
    folders = [laid_out(tmp_path / str(n) / "tea", files) for n, files in enumerate([plain, signed(KEY)])]
    assert tool("verify", keys[1], *folders) == [None, None]
    found = [read((folder / SIGNATURE).read_bytes(), [KEY.public_key()]) for folder in folders]
    assert [each.provenance for each in found] == [None, ORIGIN]


def test_what_was_changed_in_any_way_is_refused_here_and_by_their_tool(
    tool: Tool, tmp_path: Path, keys: tuple[Path, Path]
) -> None:
    changed = [mutation(seed, KEY)[1] for seed in range(63)]
    models = read_public_keys(keys[1]).models
    folders = [laid_out(tmp_path / str(n) / "tea", files) for n, files in enumerate(changed)]
    theirs = [fault is not None for fault in tool("verify", keys[1], *folders)]
    ours = [refused_here(files, models) for files in changed]
    assert (ours, theirs) == ([True] * 63, [True] * 63)


def rebuilt(**changed: Any) -> bytes:
    """Return a bundle that is signed by the right key, over a statement that has these members instead."""
    bundle = json.loads(sign("tea/1", digests(FILES), KEY))
    envelope = bundle["dsseEnvelope"]
    statement = json.loads(base64.b64decode(envelope["payload"])) | changed
    payload = json.dumps(statement).encode()
    kind = envelope["payloadType"]
    over = b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload)
    envelope["payload"] = base64.b64encode(payload).decode()
    envelope["signatures"] = [{"sig": base64.b64encode(KEY.sign(over, ECDSA(SHA256()))).decode()}]
    return json.dumps(bundle).encode()


def of_bundle(**changed: Any) -> bytes:
    return json.dumps(json.loads(sign("tea/1", digests(FILES), KEY)) | changed).encode()


TWICE = {"name": "a", "algorithm": "sha256", "digest": "0" * 64}
ROOT_OF_TWICE = hashlib.sha256(bytes(64)).hexdigest()


@pytest.mark.parametrize(
    ("bundle", "reason"),
    [
        (b"", "cannot be read"),
        (b"[]", "cannot be read"),
        (of_bundle(mediaType="application/vnd.dev.sigstore.bundle+json;version=0.1"), "mediaType"),
        (of_bundle(dsseEnvelope={}), "dsseEnvelope.payload"),
        (rebuilt(_type="https://in-toto.io/Statement/v0.1"), "_type"),
        (rebuilt(predicateType="https://slsa.dev/provenance/v1"), "predicateType"),
        (rebuilt(subject=[]), "subject"),
        (rebuilt(subject=[{"name": "x", "digest": {"sha256": "0" * 64}}]), "contradicts itself"),
        (
            rebuilt(
                subject=[{"name": "x", "digest": {"sha256": ROOT_OF_TWICE}}],
                predicate={
                    "resources": [TWICE, TWICE],
                    "serialization": {"method": "files", "hash_type": "sha256"},
                },
            ),
            "names a file twice",
        ),
        (rebuilt(predicate={"resources": [], "serialization": {"method": "shards"}}), "serialization.method"),
    ],
    ids=range(10),
)
def test_a_bundle_of_another_kind_is_refused_with_the_reason(bundle: bytes, reason: str) -> None:
    with pytest.raises(Permanent, match=reason):
        verify(bundle, [KEY.public_key()])


def test_a_signature_by_an_unknown_key_is_refused(keys: tuple[Path, Path]) -> None:
    other = p256(new_key()[0])
    with pytest.raises(Permanent, match="none of the keys"):
        verify(sign("tea/1", digests(FILES), other), read_public_keys(keys[1]).models)


def test_keys_are_read_from_pem_several_in_one_file(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    private, public = keys
    other, of_other = new_key()
    both = tmp_path / "both.pem"
    both.write_bytes(b"# the one before\n" + PUBLIC + of_other)
    (tmp_path / "other.pem").write_bytes(other)
    for path in (private, tmp_path / "other.pem"):
        assert isinstance(read_private_key(path), EllipticCurvePrivateKey)
        key = p256(path.read_bytes())
        assert verify(sign("tea/1", digests(FILES), key), read_public_keys(both).models) == digests(FILES)
    with pytest.raises(Permanent, match="public keys"):
        read_public_keys(private)
    assert len(read_public_keys(public).models) == 1
