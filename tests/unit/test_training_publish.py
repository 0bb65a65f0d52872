"""Versions are published whole, once, in order, whatever is killed when."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from obstore.store import MemoryStore
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from caravan import model_index, s3, tracing
from caravan.contracts import MANIFEST, SIGNATURE
from caravan.errors import Permanent, Transient
from caravan.manifest import Lineage, Manifest
from caravan.model_signature import verify as verify_model
from caravan.signatures import digests_of, verify
from caravan.testing.stores import Requests
from training import versions
from training.publish import begin, outcome_event, publish, rollback, settle
from training.release import release
from training.stores import Stores

MODEL = "tea_model_b64"
LINEAGE = Lineage(data_digest="d1", classes=("a", "other"), metrics={"accuracy": 0.9})


@pytest.fixture
def stores() -> Stores:
    return Stores(MemoryStore(), MemoryStore(), MemoryStore(), "edge1")


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    named = ("saved_model.pb", "variables/variables.index", "assets.extra/head.npz", "report/index.html")
    for name in named:
        path = tmp_path / "version" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"content of {name}")
    return {name: tmp_path / "version" / name for name in named}


KILLED = Transient("killed")


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> Requests:
    return Requests(monkeypatch, s3, "write")


async def test_a_published_version_tells_of_its_trace_beside_the_manifest_not_in_it(
    stores: Stores, files: dict[str, Path], spans: InMemorySpanExporter
) -> None:
    with tracing.span("publish"):
        expected = tracing.headers()
        published = await publish(stores, MODEL, "first", files, LINEAGE, key=None)
    key = f"models/{MODEL}/1/{MANIFEST}"
    for store in (stores.models, stores.ready):
        content, facts = await s3.read_with_facts(store, key)
        assert expected.items() <= facts.items()
        assert content == published.manifest.to_json()
    assert [span.name for span in spans.get_finished_spans()] == ["publish"]


async def names(store: Any, prefix: str = "models/") -> set[str]:
    async def each() -> AsyncIterator[str]:
        async for entry in s3.listing(store, prefix):
            yield entry["path"]

    return {name async for name in each()}


async def test_the_model_file_is_written_late_and_the_manifest_last(
    stores: Stores, files: dict[str, Path], writes: Requests
) -> None:
    await publish(stores, MODEL, "first", files, LINEAGE, key=None)
    order = [key.removeprefix(f"models/{MODEL}/1/") for key in writes.keys]
    half = len(order) // 2
    for one in (order[:half], order[half:]):
        assert one[-2:] == ["saved_model.pb", MANIFEST]
    assert set(order[:half]) == set(order[half:])
    assert await names(stores.models) == await names(stores.ready)


async def begun_and_published(stores: Stores, files: dict[str, Path]) -> None:
    begun = await begin(stores, MODEL, "mine", model_files(files))
    await publish(stores, MODEL, "mine", files, LINEAGE, key=None, begun=begun)


async def test_killed_at_any_write_and_run_again_it_is_one_version_with_the_same_bytes(
    files: dict[str, Path], writes: Requests
) -> None:
    for passing in range(10):
        stores = Stores(MemoryStore(), MemoryStore(), MemoryStore(), "edge1")
        writes.fail(KILLED, after=passing)
        with pytest.raises(Transient):
            await begun_and_published(stores, files)
        writes.mend()
        published = await publish(stores, MODEL, "mine", files, LINEAGE, key=None)
        again = await publish(stores, MODEL, "mine", files, LINEAGE, key=None)
        assert published.manifest == again.manifest
        assert not again.offered
        assert set(await versions.complete(stores.models, MODEL)) == {1}
        assert await versions.complete(stores.ready, MODEL) == {1: published.manifest}
        ready = await s3.read(stores.ready, f"models/{MODEL}/1/{MANIFEST}")
        assert ready == await s3.read(stores.models, f"models/{MODEL}/1/{MANIFEST}")


def model_files(files: dict[str, Path]) -> dict[str, Path]:
    """Return the files that are there before a version is judged."""
    return {path: file for path, file in files.items() if not path.startswith("report/")}


async def test_what_was_written_while_a_version_was_judged_is_not_written_again(
    stores: Stores, files: dict[str, Path], writes: Requests
) -> None:
    begun = await begin(stores, MODEL, "mine", model_files(files))
    prefix = f"models/{MODEL}/1/"
    assert set(writes.keys) == {prefix + path for path in model_files(files)} - {prefix + "saved_model.pb"}
    assert await versions.complete(stores.models, MODEL) == {}
    early, writes.keys = writes.keys, []
    await publish(stores, MODEL, "mine", files, LINEAGE, key=None, begun=begun)
    assert await names(stores.models) == await names(stores.ready)
    half = len(writes.keys) - len(files) - 1
    assert not set(early) & set(writes.keys[:half])


async def test_a_version_that_lost_its_number_while_it_was_judged_is_written_whole_under_the_next(
    stores: Stores, files: dict[str, Path]
) -> None:
    begun = await begin(stores, MODEL, "mine", model_files(files))
    newer = await publish(stores, MODEL, "other", files, LINEAGE, key=None)
    mine = await publish(stores, MODEL, "mine", files, LINEAGE, key=None, begun=begun)
    assert (begun.version, newer.manifest.version, mine.manifest.version) == (1, 2, 3)
    assert set(await versions.complete(stores.models, MODEL)) == {2, 3}


async def test_a_version_whose_manifest_is_missing_is_not_complete(
    stores: Stores, files: dict[str, Path], writes: Requests
) -> None:
    writes.fail(KILLED, after=4)
    with pytest.raises(Transient):
        await publish(stores, MODEL, "mine", files, LINEAGE, key=None)
    assert await versions.complete(stores.models, MODEL) == {}
    assert await names(stores.ready) == set()


async def test_a_rejected_version_is_kept_with_its_reason_and_not_offered(
    stores: Stores, files: dict[str, Path]
) -> None:
    published = await publish(
        stores, MODEL, "mine", files, replace(LINEAGE, rejected="worse than version 3"), key=None
    )
    kept = (await versions.complete(stores.models, MODEL))[1]
    assert (kept.edge, kept.verdict, kept.lineage.rejected) == ("edge1", "rejected", "worse than version 3")
    assert await names(stores.ready) == set()
    assert not (await settle(stores, published.manifest)).offered
    event = outcome_event(published)
    assert (event["name"], event["reason"]) == ("model-rejected", "worse than version 3")


async def test_a_signature_covers_for_which_edge_a_version_is_and_that_it_passed_after_a_rollback_too(
    stores: Stores, files: dict[str, Path]
) -> None:
    key = Ed25519PrivateKey.generate()
    await publish(stores, MODEL, "of before", files, LINEAGE, key=key)
    await rollback(stores, MODEL, 1, key)
    for manifest in (await versions.complete(stores.ready, MODEL)).values():
        verify(manifest, [key.public_key()])
        assert (manifest.edge, manifest.verdict) == ("edge1", "passed")


async def test_killed_at_any_write_what_is_offered_has_the_signature_of_what_is_kept(
    files: dict[str, Path], writes: Requests
) -> None:
    key = generate_private_key(SECP256R1())
    for passing in range(13):
        stores = Stores(MemoryStore(), MemoryStore(), MemoryStore(), "edge1")
        writes.fail(KILLED, after=passing)
        writes.keys.clear()
        with suppress(Transient):
            await publish(stores, MODEL, "mine", files, LINEAGE, key=key)
        writes.mend()
        published = await publish(stores, MODEL, "mine", files, LINEAGE, key=key)
        signature = await s3.read(stores.ready, f"models/{MODEL}/1/{SIGNATURE}")
        raw = await s3.read(stores.ready, f"models/{MODEL}/1/{MANIFEST}")
        assert verify_model(signature, [key.public_key()]) == digests_of(published.manifest, raw)
        assert signature == await s3.read(stores.models, f"models/{MODEL}/1/{SIGNATURE}")
    assert writes.keys[-1].endswith(MANIFEST)


async def test_two_publishers_never_share_a_number(stores: Stores, files: dict[str, Path]) -> None:
    both = await asyncio.gather(
        *(publish(stores, MODEL, f"attempt-{i}", files, LINEAGE, key=None) for i in range(5))
    )
    assert {published.manifest.version for published in both} == {1, 2, 3, 4, 5}
    assert set(await versions.complete(stores.ready, MODEL)) == {1, 2, 3, 4, 5}


async def test_the_number_is_above_all_that_are_there_whole_or_not(
    stores: Stores, files: dict[str, Path]
) -> None:
    await s3.write(stores.models, f"models/{MODEL}/7/saved_model.pb", b"half")
    await s3.write(stores.ready, f"models/{MODEL}/9/saved_model.pb", b"someone else's")
    published = await publish(stores, MODEL, "mine", files, LINEAGE, key=None)
    assert published.manifest.version == 10


async def test_what_is_offered_is_named_in_the_index_of_the_edge(
    stores: Stores, files: dict[str, Path]
) -> None:
    await publish(stores, MODEL, "one", files, LINEAGE, key=None)
    await publish(stores, MODEL, "two", files, replace(LINEAGE, rejected="worse"), key=None)
    await rollback(stores, MODEL, 1, None)
    assert set((await model_index.read(stores.ready)).manifests[MODEL]) == {1, 3}
    assert await model_index.read(stores.models) == model_index.Index()


async def test_a_version_is_offered_though_the_index_cannot_be_written(
    stores: Stores, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(*_: Any) -> None:
        raise Transient("this store has no conditional writes")

    monkeypatch.setattr(model_index, "add", refused)
    assert (await publish(stores, MODEL, "mine", files, LINEAGE, key=None)).offered
    assert set(await versions.complete(stores.ready, MODEL)) == {1}


async def test_the_newest_whole_version_is_found_without_a_look_at_older_ones(
    stores: Stores, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for attempt in range(9, 12):
        await publish(stores, MODEL, f"{attempt}", files, LINEAGE, key=None)
    await s3.write(stores.ready, f"models/{MODEL}/4/saved_model.pb", b"half")
    reads = Requests(monkeypatch, s3, "read")
    newest = await versions.newest_complete(stores.ready, MODEL)
    assert newest is not None
    assert newest.version == 3
    assert reads.keys == [f"models/{MODEL}/3/{MANIFEST}"]
    assert await versions.newest_complete(stores.ready, "unknown") is None


async def test_an_interrupted_offer_is_finished_by_settling(
    stores: Stores, files: dict[str, Path], writes: Requests
) -> None:
    writes.fail(KILLED, after=len(files) + 2)
    with pytest.raises(Transient):
        await publish(stores, MODEL, "mine", files, LINEAGE, key=None)
    writes.mend()
    manifest = (await versions.complete(stores.models, MODEL))[1]
    assert (await settle(stores, manifest)).offered
    assert await versions.complete(stores.ready, MODEL) == {1: manifest}


async def test_a_damaged_version_is_never_offered(stores: Stores, files: dict[str, Path]) -> None:
    rejected = replace(LINEAGE, rejected="for now")
    manifest = (await publish(stores, MODEL, "mine", files, rejected, key=None)).manifest
    await s3.write(stores.models, f"models/{MODEL}/1/saved_model.pb", b"c0ntent of saved_model.pb")
    with pytest.raises(Permanent, match=r"saved_model.pb is not what"):
        await settle(stores, replace(manifest, lineage=LINEAGE, verdict="passed"))
    assert await versions.complete(stores.ready, MODEL) == {}


async def test_a_rollback_is_the_old_files_as_the_next_version(
    stores: Stores, files: dict[str, Path]
) -> None:
    first = (await publish(stores, MODEL, "one", files, LINEAGE, key=None)).manifest
    files["saved_model.pb"].write_text("another model")
    await publish(stores, MODEL, "two", files, replace(LINEAGE, data_digest="d2"), key=None)
    published = await rollback(stores, MODEL, 1, key=None)
    back = published.manifest
    assert (back.version, back.lineage.rollback_of, back.lineage.parent) == (3, 1, 2)
    assert back.files == first.files
    assert (await versions.complete(stores.ready, MODEL))[3] == back
    assert await s3.read(stores.ready, f"models/{MODEL}/3/saved_model.pb") == b"content of saved_model.pb"
    assert outcome_event(published)["rollback_of"] == 1


async def test_an_interrupted_rollback_goes_on_with_its_number_and_a_second_one_takes_another(
    stores: Stores, files: dict[str, Path], writes: Requests
) -> None:
    await publish(stores, MODEL, "one", files, LINEAGE, key=None)
    for passing in (2, 6):
        writes.fail(KILLED, after=passing)
        with pytest.raises(Transient):
            await rollback(stores, MODEL, 1, key=None)
    writes.mend()
    assert (await rollback(stores, MODEL, 1, key=None)).manifest.version == 2
    assert (await rollback(stores, MODEL, 1, key=None)).manifest.version == 3


async def test_an_interrupted_rollback_takes_another_number_once_a_newer_version_is_ready(
    stores: Stores, files: dict[str, Path], writes: Requests
) -> None:
    await publish(stores, MODEL, "one", files, LINEAGE, key=None)
    writes.fail(KILLED, after=2)
    with pytest.raises(Transient):
        await rollback(stores, MODEL, 1, key=None)
    writes.mend()
    await release(stores, MODEL, None)
    await publish(stores, MODEL, "three", files, LINEAGE, key=None)
    assert (await rollback(stores, MODEL, 1, key=None)).manifest.version == 4
    newest = await versions.newest_complete(stores.ready, MODEL)
    assert newest is not None
    assert newest.version == 4


@pytest.mark.parametrize("passing", range(12))
async def test_a_rollback_killed_at_any_write_lets_no_other_version_through_and_a_repeat_completes_it(
    stores: Stores, files: dict[str, Path], writes: Requests, passing: int
) -> None:
    await publish(stores, MODEL, "one", files, LINEAGE, key=None)
    await publish(stores, MODEL, "two", files, LINEAGE, key=None)
    writes.fail(KILLED, after=passing)
    with suppress(Transient):
        await rollback(stores, MODEL, 1, key=None)
    writes.mend()
    if await names(stores.models, "holds/"):
        assert not (await publish(stores, MODEL, "other", files, LINEAGE, key=None)).offered
    await rollback(stores, MODEL, 1, key=None)
    newest = await versions.newest_complete(stores.ready, MODEL)
    assert newest is not None
    assert newest.lineage.rollback_of == 1
    held = (await publish(stores, MODEL, "later", files, LINEAGE, key=None)).held
    assert held is not None
    assert held.to == 1


async def test_of_many_that_publish_while_an_operator_rolls_back_none_serves_after_it(
    files: dict[str, Path],
) -> None:
    for _ in range(5):
        stores = Stores(MemoryStore(), MemoryStore(), MemoryStore(), "edge1")
        await publish(stores, MODEL, "one", files, LINEAGE, key=None)
        others = [publish(stores, MODEL, f"{n}", files, LINEAGE, key=None) for n in range(6)]
        await asyncio.gather(*others[:3], rollback(stores, MODEL, 1, key=None), *others[3:])
        newest = await versions.newest_complete(stores.ready, MODEL)
        assert newest is not None
        assert newest.lineage.rollback_of == 1


async def test_of_what_was_held_the_release_offers_the_newest_that_passed_whenever_it_is_killed(
    files: dict[str, Path], writes: Requests
) -> None:
    for passing in range(9):
        stores = Stores(MemoryStore(), MemoryStore(), MemoryStore(), "edge1")
        await publish(stores, MODEL, "one", files, LINEAGE, key=None)
        await rollback(stores, MODEL, 1, key=None)
        for attempt in ("three", "four"):
            await publish(stores, MODEL, attempt, files, LINEAGE, key=None)
        await publish(stores, MODEL, "five", files, replace(LINEAGE, rejected="worse"), key=None)
        writes.fail(KILLED, after=passing)
        with suppress(Transient):
            await release(stores, MODEL, None)
        writes.mend()
        if passing < len(files) + 1:
            assert (await release(stores, MODEL, None)) is not None
        assert set(await versions.complete(stores.ready, MODEL)) == {1, 2, 4}
        with pytest.raises(Permanent, match="nothing to release"):
            await release(stores, MODEL, None)
        assert (await publish(stores, MODEL, "six", files, LINEAGE, key=None)).offered


async def test_a_hold_is_of_one_model_and_a_later_rollback_takes_its_place(
    stores: Stores, files: dict[str, Path]
) -> None:
    for attempt in ("one", "two"):
        await publish(stores, MODEL, attempt, files, LINEAGE, key=None)
    assert (await rollback(stores, MODEL, 1, key=None)).offered
    assert (await publish(stores, "another", "one", files, LINEAGE, key=None)).offered
    assert (await rollback(stores, MODEL, 2, key=None)).offered
    held = (await publish(stores, MODEL, "three", files, LINEAGE, key=None)).held
    assert held is not None
    assert held.to == 2
    with pytest.raises(Permanent, match="no rollback of another is held"):
        await release(stores, "another", None)


async def test_a_hold_that_cannot_be_read_lets_nothing_through_and_a_rollback_writes_it_anew(
    stores: Stores, files: dict[str, Path]
) -> None:
    await publish(stores, MODEL, "one", files, LINEAGE, key=None)
    await s3.write(stores.models, f"holds/{MODEL}.json", b'{"schema": 1}')
    with pytest.raises(Permanent, match="is no hold"):
        await publish(stores, MODEL, "two", files, LINEAGE, key=None)
    await rollback(stores, MODEL, 1, key=None)
    assert set(await versions.complete(stores.ready, MODEL)) == {1, 3}
    await release(stores, MODEL, None)
    assert set(await versions.complete(stores.ready, MODEL)) == {1, 3}


async def test_a_rollback_to_nothing_or_to_a_rejected_version_is_refused(
    stores: Stores, files: dict[str, Path]
) -> None:
    await publish(stores, MODEL, "one", files, replace(LINEAGE, rejected="worse"), key=None)
    with pytest.raises(Permanent, match=r"no complete version 9 of .* here, but 1"):
        await rollback(stores, MODEL, 9, key=None)
    with pytest.raises(Permanent, match="version 1 was rejected: worse"):
        await rollback(stores, MODEL, 1, key=None)
    assert await names(stores.ready) == set()


async def test_manifests_are_signed_when_there_is_a_key(stores: Stores, files: dict[str, Path]) -> None:
    key = Ed25519PrivateKey.generate()
    await publish(stores, MODEL, "one", files, LINEAGE, key=key)
    await rollback(stores, MODEL, 1, key=key)
    for version in (1, 2):
        raw = await s3.read(stores.ready, f"models/{MODEL}/{version}/{MANIFEST}")
        verify(Manifest.from_json(raw), [key.public_key()])
        assert "signature" in json.loads(raw)
