"""The index of the newest versions, and what folders say."""

import asyncio
import json

import obstore
import pytest
import structlog
from obstore.store import MemoryStore

from caravan import model_index
from caravan.model_index import NEWEST, Index


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


async def test_a_version_that_is_added_is_named_beside_those_of_before(store: MemoryStore) -> None:
    assert await model_index.read(store) == Index()
    await model_index.add(store, "tea", 1, b"one")
    await model_index.add(store, "tea", 2, b"two")
    await model_index.add(store, "digits", 7, b"seven")
    found = (await model_index.read(store)).manifests
    assert {model: set(versions) for model, versions in found.items()} == {"tea": {1, 2}, "digits": {7}}


async def test_an_index_that_has_not_changed_is_not_sent_again(store: MemoryStore) -> None:
    await model_index.add(store, "tea", 1, b"one")
    known = await model_index.read(store)
    assert await model_index.read(store, known) is known
    await model_index.add(store, "tea", 1, b"one")
    assert await model_index.read(store, known) is known
    await model_index.add(store, "tea", 1, b"one, published anew")
    assert await model_index.read(store, known) != known


async def test_many_publishers_at_once_lose_none_of_their_versions(store: MemoryStore) -> None:
    await asyncio.gather(*(model_index.add(store, "tea", version, b"m") for version in range(1, 6)))
    assert set((await model_index.read(store)).manifests["tea"]) == set(range(1, 6))


async def test_an_index_names_the_newest_only(store: MemoryStore) -> None:
    for version in range(1, NEWEST + 6):
        await model_index.add(store, "tea", version, b"m")
    assert set((await model_index.read(store)).manifests["tea"]) == set(range(6, NEWEST + 6))


def test_of_an_index_that_names_more_only_the_newest_are_taken() -> None:
    raw = json.dumps({"schema": 1, "models": {"tea": dict.fromkeys(map(str, range(1, 10_000)), "sha")}})
    assert set(Index.from_json(raw.encode()).manifests["tea"]) == set(range(10_000 - NEWEST, 10_000))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"\xff",
        b'{"schema": 2, "models": {"tea": {"1": "x"}}}',
        b'{"schema": 1, "models": {"tea": [1]}}',
        b'{"schema": 1, "models": {"../tea": {"1": "x"}}}',
        b'{"schema": 1}',
    ],
)
async def test_what_is_no_index_of_ours_says_nothing_and_is_replaced(store: MemoryStore, raw: bytes) -> None:
    obstore.put(store, model_index.INDEX, raw)
    assert not (await model_index.read(store)).manifests
    await model_index.add(store, "tea", 1, b"one")
    assert set((await model_index.read(store)).manifests["tea"]) == {1}


async def test_an_index_that_is_too_large_is_not_read(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await model_index.add(store, "tea", 1, b"one")
    monkeypatch.setattr(model_index, "_MOST_BYTES", 10)
    assert not (await model_index.read(store)).manifests


async def test_models_and_versions_are_found_by_their_folders(store: MemoryStore) -> None:
    for key in (
        "models/tea/9/saved_model.pb",
        "models/tea/10/variables/x",
        "models/tea/007/saved_model.pb",
        "models/tea/latest/saved_model.pb",
        "models/tea/99999999999999999999/saved_model.pb",
        "models/.staging/1/saved_model.pb",
        "models/models.config",
        "images/tea/1.jpg",
    ):
        obstore.put(store, key, b"x")
    assert await model_index.models(store) == ["tea"]
    assert await model_index.numbers(store, "tea") == [10, 9]
    assert set(await model_index.files(store, "tea", 10)) == {"variables/x"}


async def test_a_folder_that_is_no_model_or_no_version_is_named_once_with_the_rule(
    store: MemoryStore,
) -> None:
    for folder in ("pour over/1", "kettle/001", "kettle/2", "kettle/latest"):
        obstore.put(store, f"models/{folder}/model.onnx", b"m")
    with structlog.testing.capture_logs() as lines:
        for _ in range(2):
            assert await model_index.models(store) == ["kettle"]
            assert await model_index.numbers(store, "kettle") == [2]
    told = {line["folder"]: line["rule"] for line in lines}
    assert len(lines) == 3
    assert "letters, digits" in told["models/pour over/"]
    assert "without zeros" in told["models/kettle/001/"] == told["models/kettle/latest/"]


async def test_the_newest_version_of_each_model_is_the_newest_with_a_manifest_or_an_entry_file(
    store: MemoryStore,
) -> None:
    for key in (
        "tea/9/saved_model.pb",
        "tea/10/variables/x",
        "digits/2/model.onnx",
        "shared/4/manifest.json",
        "empty/1/assets/x",
    ):
        obstore.put(store, f"models/{key}", b"x")
    assert await model_index.newest(store) == {"tea": 9, "digits": 2, "shared": 4}
