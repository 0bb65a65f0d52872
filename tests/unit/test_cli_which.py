"""Which versions saw an image: members are read in pieces, and what cannot tell is named with the reason."""

import gzip
import hashlib
from collections.abc import Collection
from pathlib import Path

import pytest
from obstore.store import MemoryStore
from typer.testing import CliRunner

from caravan import members, s3
from caravan.errors import Permanent
from caravan.manifest import Lineage, Manifest, Shared
from caravan.members import FACT, Image, find_members, members_key, read_members, write_members
from caravan_cli.__main__ import commands
from caravan_cli.which import Seen, Unknown, which


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


async def publish(
    store: MemoryStore,
    version: int,
    folder: Path,
    *,
    learnt: Collection[Image] = (),
    asked: Collection[Image] = (),
    model: str = "tea",
) -> None:
    path = folder / f"{model}-{version}"
    write_members(path, {"seed": 0}, learnt, asked)
    raw = path.read_bytes()
    await s3.write(store, members_key(model, version), raw)
    metrics = {FACT: hashlib.sha256(raw).hexdigest()}
    manifest = Manifest(model, version, (), Lineage(metrics=metrics))
    await s3.write(store, f"models/{model}/{version}/saved_model.pb", b"a graph")
    await s3.write(store, f"models/{model}/{version}/manifest.json", manifest.to_json())


async def test_versions_of_all_models_are_named_with_what_they_did_and_whether_they_serve(
    tmp_path: Path,
) -> None:
    models, ready = MemoryStore(), MemoryStore()
    for store in (models, ready):
        await publish(store, 1, tmp_path, learnt=[("green", sha("a")), ("lemon", sha("b"))])
        await publish(store, 2, tmp_path, learnt=[("lemon", sha("b"))], asked=[("green", sha("a"))])
    await publish(models, 1, tmp_path, learnt=[("lemon", sha("b"))], model="coffee")
    seen, unknown = await which(models, ready, {sha("a")})
    assert seen == [
        Seen("tea", 1, "learnt", "green", serves=False),
        Seen("tea", 2, "held-out", "green", serves=True),
    ]
    assert unknown == []
    assert await which(models, ready, {sha("c")}) == ([], [])
    assert await which(models, ready, set()) == ([], [])


async def test_a_version_that_cannot_tell_is_named_with_the_reason(tmp_path: Path) -> None:
    models, ready = MemoryStore(), MemoryStore()
    old, sent = Manifest("tea", 1, ()), Manifest("tea", 2, (), Lineage(upload="u"))
    for manifest in (old, sent):
        key = f"models/tea/{manifest.version}/manifest.json"
        await s3.write(models, key, manifest.to_json())
    await publish(models, 3, tmp_path, learnt=[("green", sha("a"))])
    await s3.write(models, members_key("tea", 3), gzip.compress(b"{}\n"))
    await publish(models, 4, tmp_path, learnt=[("green", sha("a"))])
    await s3.delete(models, [members_key("tea", 4)])
    await publish(models, 5, tmp_path, learnt=[("green", sha("a"))])
    await s3.write(models, members_key("tea", 5), b"no gzip")
    await s3.write(ready, "models/tea/6/saved_model.pb", b"by others")
    seen, unknown = await which(models, ready, {sha("a")})
    assert seen == []
    assert [one.version for one in unknown] == [1, 2, 3, 4, 5, 6]
    reasons = ("does not say", "ready-made", "not what its manifest says", "is missing", "unpacked", "others")
    for one, words in zip(unknown, reasons, strict=True):
        assert isinstance(one, Unknown)
        assert words in one.why


async def test_many_members_are_written_the_same_each_time_and_read_in_bounded_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [(f"tea \u2603 {n % 7}", sha(str(n))) for n in range(5000)]
    write_members(tmp_path / "a", {"seed": 1}, images, ())
    write_members(tmp_path / "b", {"seed": 1}, reversed(images), ())
    made_of = [("learnt", *image) for image in images]
    raw = (tmp_path / "a").read_bytes()
    assert raw == (tmp_path / "b").read_bytes()
    assert len(raw) < 60 * len(made_of)
    store, digest = MemoryStore(), hashlib.sha256(raw).hexdigest()
    await s3.write(store, "m", raw)
    monkeypatch.setattr(members, "UNPACKED_AT_ONCE", 1000)
    assert {member async for member in read_members(store, "m", digest)} == set(made_of)
    assert await find_members(store, "m", digest, {sha("4321")}) == [made_of[4321]]


async def test_a_line_without_an_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    store, raw = MemoryStore(), gzip.compress(b"x" * 100_000)
    await s3.write(store, "m", raw)
    monkeypatch.setattr(members, "LONGEST_LINE", 1000)
    monkeypatch.setattr(members, "UNPACKED_AT_ONCE", 500)
    with pytest.raises(Permanent, match="more than 1000 bytes"):
        await find_members(store, "m", hashlib.sha256(raw).hexdigest(), {sha("a")})


@pytest.mark.parametrize("digest", [sha("a"), sha("a").upper()])
def test_a_sha_256_may_be_written_in_capitals(digest: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "open_bucket", lambda *_: MemoryStore())
    monkeypatch.setenv("EDGES", "edge1")
    result = CliRunner().invoke(commands, ["which", digest])
    assert "No version says that it saw this image." in result.output


async def test_of_what_a_group_shares_the_group_tells_and_not_its_edges() -> None:
    models, ready = MemoryStore(), MemoryStore()
    lineage = Lineage(metrics={FACT: sha("members")})
    shared = Manifest("tea", 4, (), lineage, edge="edge1", shared=Shared("north", 4))
    await s3.write(ready, "models/tea/4/manifest.json", shared.to_json())
    assert await which(models, ready, {sha("a")}) == ([], [])
