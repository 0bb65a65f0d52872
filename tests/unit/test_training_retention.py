"""The oldest versions are removed, but none that anybody may want; what is removed in part is never whole."""

import itertools
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.store import MemoryStore

from caravan import model_index, s3
from caravan.contracts import MANIFEST, SIGNATURE
from caravan.errors import Transient
from caravan.manifest import Lineage, Manifest, Shared
from caravan.testing.stores import Requests
from training import versions
from training.publish import begin, publish, rollback
from training.release import release
from training.retention import keep_newest, surplus
from training.sharing import share, to_nobody
from training.stores import Stores

MODEL = "tea_model_b64"
LINEAGE = Lineage(data_digest="d1", classes=("a", "other"))
REJECTED = replace(LINEAGE, rejected="worse than its parent")


def buckets(edge: str, members: tuple[Stores, ...] = ()) -> Stores:
    return Stores(MemoryStore(), MemoryStore(), MemoryStore(), edge, members)


@pytest.fixture
def stores() -> Stores:
    return buckets("edge1")


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    found = {}
    for name in (
        "saved_model.pb",
        "variables/variables.index",
        "assets.extra/twin.onnx",
        "report/index.html",
    ):
        found[name] = tmp_path / name.replace("/", "-")
        found[name].write_text(f"content of {name}")
    return found


ATTEMPTS = map(str, itertools.count())


async def make(stores: Stores, files: dict[str, Path], count: int, lineage: Lineage = LINEAGE) -> None:
    for _ in range(count):
        await publish(stores, MODEL, next(ATTEMPTS), files, lineage, key=None)


async def there(store: Any) -> set[int]:
    """Return the versions that have an object."""
    return set(await versions.stored(store, MODEL))


async def test_the_newest_stay_and_of_older_ones_nothing_is_left(
    stores: Stores, files: dict[str, Path]
) -> None:
    await make(stores, files, 5)
    await keep_newest(stores, MODEL, 3)
    assert set(await versions.complete(stores.models, MODEL)) == {3, 4, 5}
    assert set(await versions.complete(stores.ready, MODEL)) == {3, 4, 5}
    assert await there(stores.models) == await there(stores.ready) == {3, 4, 5}
    assert set((await model_index.read(stores.ready)).manifests[MODEL]) == {3, 4, 5}
    assert [taken.version for taken in await versions.claims(stores.models, MODEL)] == [3, 4, 5]
    await make(stores, files, 1)
    assert max(await there(stores.ready)) == 6


async def test_zero_keeps_all(stores: Stores, files: dict[str, Path]) -> None:
    await make(stores, files, 4)
    await keep_newest(stores, MODEL, 0)
    assert await there(stores.models) == await there(stores.ready) == {1, 2, 3, 4}


async def test_rejected_ones_are_counted_apart_and_push_out_none_that_one_can_roll_back_to(
    stores: Stores, files: dict[str, Path]
) -> None:
    await make(stores, files, 2)
    await make(stores, files, 4, REJECTED)
    await keep_newest(stores, MODEL, 2)
    assert await there(stores.models) == {1, 2, 5, 6}
    assert await there(stores.ready) == {1, 2}
    assert (await rollback(stores, MODEL, 1, key=None)).offered


async def test_what_a_hold_points_to_and_what_serves_stay_however_much_is_held_back(
    stores: Stores, files: dict[str, Path]
) -> None:
    await make(stores, files, 3)
    await rollback(stores, MODEL, 1, key=None)
    await make(stores, files, 5)
    await keep_newest(stores, MODEL, 2)
    assert await there(stores.models) == {1, 3, 4, 8, 9}
    assert await there(stores.ready) == {3, 4}
    serves = await versions.newest_complete(stores.ready, MODEL)
    assert serves is not None
    assert serves.lineage.rollback_of == 1
    await release(stores, MODEL, None)
    await keep_newest(stores, MODEL, 2)
    assert await there(stores.models) == {4, 8, 9}
    assert await there(stores.ready) == {4, 9}


async def test_an_edge_may_be_fetching_the_two_newest_so_those_stay_whatever_is_set(
    stores: Stores, files: dict[str, Path]
) -> None:
    await make(stores, files, 4)
    await keep_newest(stores, MODEL, 1)
    assert set(await versions.complete(stores.ready, MODEL)) == {3, 4}


async def test_the_newest_that_was_trained_here_stays_below_those_that_people_sent(
    stores: Stores, files: dict[str, Path]
) -> None:
    await make(stores, files, 2)
    await make(stores, files, 4, Lineage(upload="u"))
    await keep_newest(stores, MODEL, 2)
    assert await there(stores.ready) == {2, 5, 6}


async def test_what_others_wrote_without_a_manifest_stays(stores: Stores, files: dict[str, Path]) -> None:
    await s3.write(stores.ready, f"models/{MODEL}/1/saved_model.pb", b"by others")
    await make(stores, files, 4)
    await keep_newest(stores, MODEL, 2)
    assert await there(stores.ready) == {1, 4, 5}


async def test_what_was_cut_short_goes_with_those_that_are_older_and_what_is_under_way_stays(
    stores: Stores, files: dict[str, Path]
) -> None:
    for step in range(4):
        await begin(stores, MODEL, f"cut short {step}", files)
        await make(stores, files, 1)
    await begin(stores, MODEL, "under way", files)
    assert await there(stores.models) == {1, 2, 3, 4, 5, 6, 7, 8, 9}
    await keep_newest(stores, MODEL, 2)
    assert await there(stores.models) == {6, 7, 8, 9}
    assert surplus({9: None, 8: Manifest(MODEL, 8, ()), 7: None}, 1, ()) == [7]


async def test_killed_at_any_removal_no_version_that_is_visible_lacks_a_file_and_the_next_run_ends_it(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for passing in itertools.count():
        stores = buckets("edge1")
        await make(stores, files, 4)
        with monkeypatch.context() as patch:
            requests = Requests(patch, obstore, "delete_async")
            requests.fail(Transient("killed"), after=passing)
            with suppress(Transient):
                await keep_newest(stores, MODEL, 2)
            is_done = len(requests.keys) == passing and await there(stores.models) == {3, 4}
        for store in (stores.models, stores.ready):
            for number, paths in (await versions.stored(store, MODEL)).items():
                if "saved_model.pb" in paths:
                    assert await versions.whole(store, MODEL, number) is not None
                else:
                    assert MANIFEST in paths
            assert {3, 4} <= set(await versions.complete(store, MODEL))
        assert (await model_index.read(stores.ready)).manifests[MODEL].keys() <= {1, 2, 3, 4}
        await keep_newest(stores, MODEL, 2)
        assert await there(stores.models) == await there(stores.ready) == {3, 4}
        if is_done and passing > 20:
            break


async def test_of_a_group_the_members_are_tidied_too_and_what_one_still_points_to_stays(
    files: dict[str, Path],
) -> None:
    one, two = buckets("edge1"), buckets("edge2")
    both, alone = buckets("north", (one, two)), None
    await make(both, files, 1)
    await share(both, MODEL, None, to_nobody)
    alone = replace(both, members=(one,))
    for _ in range(3):
        await make(both, files, 1)
        await share(alone, MODEL, None, to_nobody)
    await keep_newest(both, MODEL, 2)
    assert await there(one.ready) == {3, 4}
    assert await there(two.ready) == {1}
    assert await there(both.ready) == {1, 3, 4}
    assert await versions.whole(both.ready, MODEL, 1) is not None
    for _ in range(2):
        await make(both, files, 1)
        await share(both, MODEL, None, to_nobody)
    await keep_newest(both, MODEL, 2)
    assert await there(one.ready) == await there(two.ready) == await there(both.ready) == {5, 6}
    assert await there(both.models) == {5, 6}


async def test_a_members_versions_of_its_own_go_where_its_group_has_followed(files: dict[str, Path]) -> None:
    one = buckets("edge1")
    await make(one, files, 5)
    both = buckets("north", (one,))
    await make(both, files, 1)
    await share(both, MODEL, None, to_nobody)
    await keep_newest(both, MODEL, 3)
    assert await there(one.ready) == {4, 5, 6}
    assert await there(one.models) == {1, 2, 3, 4, 5}
    raw = await s3.read(one.ready, f"models/{MODEL}/6/{MANIFEST}")
    assert Manifest.from_json(raw).shared == Shared("north", 6)


async def test_a_signature_goes_before_its_manifest(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    prefix = f"models/{MODEL}/"
    for number in (1, 2, 3):
        for path in (SIGNATURE, "variables/a", "model.onnx"):
            await s3.write(stores.ready, f"{prefix}{number}/{path}", b"x")
        await s3.write(stores.ready, f"{prefix}{number}/{MANIFEST}", Manifest(MODEL, number, ()).to_json())
    requests = Requests(monkeypatch, obstore, "delete_async")
    await keep_newest(stores, MODEL, 2)
    gone = [key.removeprefix(f"{prefix}1/") for key in requests.keys]
    assert (gone[0], gone[-1]) == ("model.onnx", MANIFEST)
    assert set(gone[1:-1]) == {SIGNATURE, "variables/a"}
