"""Versions in a bucket: objects are what counts, and one version's trouble is that version's."""

import asyncio
from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.exceptions import GenericError
from obstore.store import LocalStore, ObjectStore

from caravan.locks import FILE
from caravan.testing.stores import Requests
from model_server.errors import Code, ServingError
from model_server.loads import Loads
from model_server.manager import Model, ModelConfig, Rules, State
from model_server.scratch import PREFIX, scratch
from model_server.sources import Bucket, SourceError
from model_server.versions import All, Latest, Specific


class Place:
    """A bucket that goes on naming folders whose objects are gone, as SeaweedFS does for minutes."""

    def __init__(self, root: Path) -> None:
        self.store: ObjectStore = LocalStore(root, mkdir=True)
        self.bucket = Bucket("s3://production/models/tea", self.store, root.parent)

    def put(self, version: int, *paths: str, content: bytes = b"x") -> None:
        for path in paths:
            obstore.put(self.store, f"models/tea/{version}/{path}", content)

    def remove(self, version: int) -> None:
        for entry in obstore.list(self.store, prefix=f"models/tea/{version}").collect():
            obstore.delete(self.store, entry["path"])


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "bucket")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The entry files that were asked for."""
    return Requests(monkeypatch, obstore, "head_async").keys


async def test_a_folder_without_objects_is_no_version(place: Place) -> None:
    place.put(1, "saved_model.pb")
    place.put(2, "saved_model.pb")
    assert max(await place.bucket.versions(Latest())) == 2
    place.remove(2)
    folders = obstore.list_with_delimiter(place.store, prefix="models/tea/")["common_prefixes"]
    assert "models/tea/2" in folders, "the store still names it"
    assert max(await place.bucket.versions(Latest())) == 1
    place.put(2, "variables/x", "model.onnx")
    assert max(await place.bucket.versions(Latest())) == 2


async def test_only_versions_that_the_policy_chooses_are_looked_at(place: Place, asked: list[str]) -> None:
    for version in range(1, 51):
        place.put(version, "saved_model.pb")
    place.remove(50)
    assert max(await place.bucket.versions(Latest())) == 49
    assert {key.split("/")[2] for key in asked} == {"50", "49"}
    asked.clear()
    assert {7, 8} <= set(await place.bucket.versions(Specific(frozenset({7, 8, 99}))))
    assert {key.split("/")[2] for key in asked} == {"7", "8"}
    assert set(await place.bucket.versions(All())) == set(range(1, 50))


async def test_a_version_that_cannot_be_looked_for_stays_as_it_was_and_the_others_go_on(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.put(1, "saved_model.pb")
    place.put(2, "saved_model.pb")
    assert set(await place.bucket.versions(All())) == {1, 2}
    place.put(3, "saved_model.pb")
    place.put(4, "saved_model.pb")
    unreadable = ("models/tea/2/", "models/tea/4/")
    heads = Requests(monkeypatch, obstore, "head_async")
    heads.fail(GenericError("500 Internal Server Error"), where=lambda key: key.startswith(unreadable))
    assert set(await place.bucket.versions(All())) == {1, 2, 3}


async def test_a_base_path_that_cannot_be_listed_says_nothing_of_its_versions(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    Requests(monkeypatch, obstore, "list_with_delimiter_async").fail(GenericError("connection refused"))
    with pytest.raises(SourceError, match="Could not list"):
        await place.bucket.versions(Latest())


async def test_a_version_is_copied_whole_in_pieces(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("caravan.s3.PIECE", 100)
    place.put(1, "saved_model.pb", "variables/a/b", "manifest.json", content=bytes(range(250)))
    copy = await place.bucket.fetch("1")
    assert {path.relative_to(copy).as_posix(): path.read_bytes() for path in copy.rglob("*.*")} == {
        name: bytes(range(250)) for name in ("saved_model.pb", "manifest.json")
    }
    assert (copy / "variables/a/b").read_bytes() == bytes(range(250))
    await place.bucket.discard(copy)
    assert not copy.exists()


async def test_a_version_that_cannot_be_read_fails_alone_and_is_taken_once_it_comes_back_mended(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = {"models/tea/2/saved_model.pb"}
    gets = Requests(monkeypatch, obstore, "get_async")
    gets.fail(GenericError("500 Internal Server Error"), where=broken.__contains__)
    loaded: list[int] = []

    def load(name: str, number: int, path: Path) -> Any:
        del name
        if (path / "saved_model.pb").read_bytes() != b"good":
            raise ServingError(Code.INVALID_ARGUMENT, "bad graph")
        loaded.append(number)
        return object()

    config = ModelConfig("tea", "s3://production/models/tea", All())
    rules = Rules(poll_seconds=1, max_load_retries=0, load_retry_seconds=0.01)

    async def drain(_: Any) -> None:
        pass

    model = Model(config, place.bucket, rules=rules, loader=load, loads=Loads(), drain=drain)

    async def until(version: int, state: State) -> None:
        async with asyncio.timeout(30):
            while version not in model.versions or model.versions[version].state is not state:
                await model.poll_once()
                await asyncio.sleep(0.001)

    place.put(3, "saved_model.pb", content=b"bad")
    await until(3, State.END)
    place.remove(3)
    await model.poll_once()
    place.put(3, "saved_model.pb", content=b"good")
    await until(3, State.AVAILABLE)
    place.put(2, "saved_model.pb", content=b"good")
    place.put(1, "saved_model.pb", content=b"good")
    await until(2, State.END)
    await until(1, State.AVAILABLE)
    assert sorted(loaded) == [1, 3]
    await model.close()


def test_what_a_killed_server_left_is_removed_and_what_another_uses_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    left = tmp_path / f"{PREFIX}killed" / "copy"
    left.mkdir(parents=True)
    (left / "saved_model.pb").write_bytes(b"x")
    with scratch() as one:
        (one / "saved_model.pb").write_bytes(b"x")
        with scratch() as other:
            assert {path.name for path in tmp_path.iterdir()} == {one.name, other.name}
            assert (one / "saved_model.pb").exists()
    assert not list(tmp_path.iterdir())


def test_what_another_user_left_stays_and_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    theirs = tmp_path / f"{PREFIX}theirs"
    (theirs / FILE).mkdir(parents=True)  # refuses to be written, to root as well
    with scratch() as mine:
        assert mine.is_dir()
    assert theirs.is_dir()
