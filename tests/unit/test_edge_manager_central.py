"""A look at what central offers costs what is new."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.store import LocalStore, MemoryStore, ObjectStore

from caravan import model_index
from caravan.errors import Permanent, Transient
from edge_manager.central import INDEXED_SECONDS, LISTINGS, LONGEST_SECONDS, Central, CentralAway
from edge_manager.versions import Offered, Standing

FILES = ("manifest.json", "saved_model.pb", "variables/variables.index")


class Ready:
    """`E-ready`, and an edge that looks at it once a second."""

    def __init__(self, store: ObjectStore | None = None) -> None:
        self.store = store or MemoryStore()
        self.central = Central(self.store)
        self.now = 0.0
        self.above = {"tea": 0}
        self.refused: set[int] = set()
        self.waiting: set[int] = set()

    def put(self, *versions: int, model: str = "tea", files: Collection[str] = FILES) -> None:
        for version in versions:
            for path in files:
                obstore.put(self.store, f"models/{model}/{version}/{path}", f"{path} {version}".encode())

    async def publish(self, version: int) -> None:
        self.put(version)
        await model_index.add(self.store, "tea", version, hashlib.sha256(b"%d" % version).digest())

    def standing(self, offered: Offered) -> Standing:
        version = offered.ref.version
        return "refused" if version in self.refused else "waiting" if version in self.waiting else "open"

    async def look(self, model: str = "tea") -> list[int]:
        """Return the versions that were looked at and are there."""
        offers = await self.central.look(self.now, above=self.above, standing=self.standing)
        self.now += 1
        return [offered.ref.version for offered in offers[model].offered] if model in offers else []


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """What is asked of the store: the index, folders, the files of a version."""
    counted: Counter[str] = Counter()
    get, folders, files = obstore.get_async, obstore.list_with_delimiter_async, obstore.list

    async def get_async(*arguments: Any, **options: Any) -> Any:
        counted["index"] += 1
        return await get(*arguments, **options)

    async def list_with_delimiter_async(*arguments: Any, **options: Any) -> Any:
        counted["folders"] += 1
        return await folders(*arguments, **options)

    def list_(store: ObjectStore, prefix: str | None = None, **options: Any) -> Any:
        counted[f"files of {prefix}"] += 1
        return files(store, prefix=prefix, **options)

    monkeypatch.setattr(obstore, "get_async", get_async)
    monkeypatch.setattr(obstore, "list_with_delimiter_async", list_with_delimiter_async)
    monkeypatch.setattr(obstore, "list", list_)
    return counted


async def test_a_look_at_5000_versions_is_one_request_until_there_is_a_new_one(
    requests: Counter[str],
) -> None:
    ready = Ready()
    ready.put(*range(1, 5000), files=("saved_model.pb",))
    await ready.publish(5000)
    assert await ready.look() == [5000, 4999]
    ready.above = {"tea": 5000}
    requests.clear()
    for _ in range(10):
        assert await ready.look() == []
    assert requests == {"index": 10}
    await ready.publish(5001)
    requests.clear()
    assert await ready.look() == [5001]
    assert requests == {"index": 1, "files of models/tea/5001/": 1}


async def test_what_others_put_there_without_the_index_is_found_by_its_folder_within_a_minute(
    requests: Counter[str],
) -> None:
    ready = Ready()
    ready.put(*range(1, 5001), files=("saved_model.pb",))
    ready.above = {"tea": 5000}
    await ready.look()
    ready.put(5001)
    requests.clear()
    while await ready.look() != [5001]:
        assert ready.now <= LONGEST_SECONDS + 1
    assert requests["folders"] == 2, "the models, and the versions of one"
    assert sum(requests.values()) - requests["index"] == 3


async def test_where_there_are_few_each_look_finds_what_others_put_there() -> None:
    ready = Ready()
    ready.put(1)
    assert await ready.look() == [1]
    ready.put(7)
    ready.put(3, model="digits")
    assert await ready.look() == [7, 1]
    assert await ready.look("digits") == [3]


async def test_where_the_index_names_what_is_newest_the_folders_are_looked_at_each_half_minute(
    requests: Counter[str],
) -> None:
    ready = Ready()
    await ready.publish(1)
    assert await ready.look() == [1]
    ready.above = {"tea": 1}
    requests.clear()
    for _ in range(INDEXED_SECONDS - 1):
        assert await ready.look() == []
    assert requests == {"index": INDEXED_SECONDS - 1}
    ready.put(2)
    assert await ready.look() == [2], "without the index"
    requests.clear()
    ready.put(3)
    assert await ready.look() == [3, 2], "and then at each look"
    assert requests["folders"] == 2


async def test_the_first_version_of_others_is_found_at_the_next_look() -> None:
    ready = Ready()
    assert await ready.look() == []
    ready.put(1)
    assert await ready.look() == [1]


async def test_a_folder_without_files_or_an_index_without_a_version_offers_nothing(tmp_path: Path) -> None:
    ready = Ready(LocalStore(tmp_path))
    ready.put(1, 2)
    for path in FILES:
        obstore.delete(ready.store, f"models/tea/2/{path}")
    await model_index.add(ready.store, "tea", 9, b"gone")
    folders = obstore.list_with_delimiter(ready.store, prefix="models/tea/")["common_prefixes"]
    assert "models/tea/2" in folders, "as SeaweedFS names it for minutes"
    assert await ready.look() == [1]
    ready.put(2)
    assert await ready.look() == [2, 1]


async def test_a_version_published_anew_under_its_number_is_looked_at_anew() -> None:
    ready = Ready()
    ready.put(*range(1, 4000), files=("saved_model.pb",))
    await ready.publish(4000)
    (before, _) = (await ready.central.look(0, above={}, standing=ready.standing))["tea"].offered
    ready.refused = {4000}
    ready.now = 1
    await ready.look()
    obstore.put(ready.store, "models/tea/4000/manifest.json", b"mended")
    await model_index.add(ready.store, "tea", 4000, b"mended")
    after = (await ready.central.look(2, above={}, standing=ready.standing))["tea"].offered[0]
    assert after.ref == before.ref
    assert after.fingerprint != before.fingerprint


async def test_below_many_refused_versions_one_that_may_be_taken_is_found_and_they_are_not_listed_each_time(
    requests: Counter[str],
) -> None:
    ready = Ready()
    ready.put(*range(1, 101))
    ready.refused = set(range(51, 101))
    assert await ready.look() == [*range(100, 48, -1)]
    requests.clear()
    await ready.look()
    assert not any("folders" in name for name in requests)
    assert sum(requests.values()) <= 1 + 2


async def test_between_looks_at_all_folders_few_of_many_incomplete_versions_are_listed(
    requests: Counter[str],
) -> None:
    ready = Ready()
    ready.put(*range(1, 201), files=("saved_model.pb",))
    ready.waiting = set(range(101, 201))
    assert await ready.look() == [*range(200, 98, -1)]
    requests.clear()
    assert await ready.look() == [*range(200, 98, -1)]
    assert sum(requests.values()) == 1 + LISTINGS


async def test_a_version_is_settled_once_it_was_listed_twice_the_same() -> None:
    ready = Ready()
    ready.put(1)

    async def settled() -> bool:
        offers = await ready.central.look(ready.now, above={}, standing=ready.standing)
        ready.now += 1
        return offers["tea"].offered[0].is_settled

    assert [await settled() for _ in range(3)] == [False, True, True]
    obstore.put(ready.store, "models/tea/1/assets/a", b"more")
    assert [await settled() for _ in range(2)] == [False, True]


async def test_a_model_that_cannot_be_listed_stays_as_it_was_and_says_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ready = Ready()
    ready.put(1)
    ready.put(1, model="broken")
    await ready.look()
    real = model_index.numbers

    async def numbers(store: ObjectStore, model: str) -> list[int]:
        if model == "broken":
            raise Transient("500 Internal Server Error")
        return await real(store, model)

    monkeypatch.setattr(model_index, "numbers", numbers)
    ready.put(2)
    offers = await ready.central.look(ready.now, above={}, standing=ready.standing)
    assert [offered.ref.version for offered in offers["tea"].offered] == [2, 1]
    assert offers["broken"].fault == "500 Internal Server Error"
    assert [offered.ref.version for offered in offers["broken"].offered] == [1]


async def test_an_index_that_may_not_be_read_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    async def forbidden(*_: Any) -> Any:
        raise Permanent("403")

    monkeypatch.setattr(model_index, "read", forbidden)
    ready = Ready()
    ready.put(1)
    assert await ready.look() == [1]


async def test_a_store_that_does_not_answer_is_central_being_away(monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_: Any) -> Any:
        raise Transient("connection refused")

    monkeypatch.setattr(model_index, "models", away)
    with pytest.raises(CentralAway, match="connection refused"):
        await Ready().look()
