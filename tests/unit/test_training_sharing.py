"""What a group shares is offered to a member once, signed, whoever else does so at the same time."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from obstore.store import MemoryStore

from caravan import s3
from caravan.contracts import MANIFEST, SIGNATURE, Event
from caravan.errors import Transient
from caravan.manifest import Lineage, Manifest
from caravan.model_signature import verify
from caravan.signatures import digests_of
from caravan.testing.stores import Requests
from training import versions
from training.publish import publish
from training.settings import TrainingSettings
from training.sharing import share, to_nobody
from training.stores import Stores, open_stores

MODEL = "tea_model_b64"
KEY = generate_private_key(SECP256R1())


def buckets(edge: str, members: tuple[Stores, ...] = ()) -> Stores:
    return Stores(MemoryStore(), MemoryStore(), MemoryStore(), edge, members)


@pytest.fixture
def member() -> Stores:
    return buckets("edge1")


@pytest.fixture
def group(member: Stores) -> Stores:
    return buckets("north", (member,))


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    path = tmp_path / "saved_model.pb"
    path.write_text("a graph")
    return {path.name: path}


async def make(stores: Stores, files: dict[str, Path], *attempts: str) -> None:
    for attempt in attempts:
        await publish(stores, MODEL, attempt, files, Lineage(data_digest=attempt), key=KEY)


async def offered(member: Stores) -> dict[int, int]:
    """Return of each version of a member which of the group's it is, once its signature is seen to fit."""
    found = {}
    for number, paths in (await versions.stored(member.ready, MODEL)).items():
        prefix = f"models/{MODEL}/{number}/"
        if MANIFEST in paths:
            raw = await s3.read(member.ready, prefix + MANIFEST)
            manifest = Manifest.from_json(raw)
            vouched = verify(await s3.read(member.ready, prefix + SIGNATURE), [KEY.public_key()])
            assert vouched == digests_of(manifest, raw)
            if manifest.shared is not None:
                found[number] = manifest.shared.version
    return found


async def all_at_once(shares: Sequence[Stores], events: list[Event]) -> None:
    await asyncio.gather(*(share(each, MODEL, KEY, events.append) for each in shares))


async def test_of_many_runs_that_offer_a_version_at_once_one_does(
    group: Stores, member: Stores, files: dict[str, Path]
) -> None:
    await make(group, files, "one")
    events: list[Event] = []
    await all_at_once([group] * 8, events)
    assert await offered(member) == {1: 1}
    assert [event["version"] for event in events] == [1]


@pytest.mark.parametrize("passing", range(4))
async def test_killed_at_any_write_the_next_run_offers_it_under_the_same_number(
    group: Stores, member: Stores, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch, passing: int
) -> None:
    await make(group, files, "one", "two")
    with monkeypatch.context() as patch:
        Requests(patch, s3, "create").fail(Transient("killed"), after=passing)
        with suppress(Transient):
            await share(group, MODEL, KEY, to_nobody)
    await share(group, MODEL, KEY, to_nobody)
    assert await offered(member) == {2: 2}
    assert set(await versions.stored(member.ready, MODEL)) == {2}


async def test_a_signature_that_a_run_has_left_is_never_beside_the_manifest_of_another_version(
    group: Stores, member: Stores, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    await make(group, files, "one")
    await make(member, files, *"abcde")
    with monkeypatch.context() as patch:
        Requests(patch, s3, "create").fail(Transient("killed"), after=1)
        with pytest.raises(Transient):
            await share(group, MODEL, KEY, to_nobody)
    await s3.write(group.ready, f"models/{MODEL}/2/saved_model.pb", b"a graph")
    newer = Manifest.from_json(await s3.read(group.ready, f"models/{MODEL}/1/{MANIFEST}"))
    as_two = Manifest(MODEL, 2, newer.files, newer.lineage, "north", "passed")
    await s3.write(group.ready, f"models/{MODEL}/2/{MANIFEST}", as_two.to_json())
    await share(group, MODEL, KEY, to_nobody)
    assert await offered(member) == {7: 2}


async def test_an_edge_that_had_gone_further_is_offered_it_as_its_next_one_by_many_runs_at_once(
    group: Stores, member: Stores, files: dict[str, Path]
) -> None:
    await make(group, files, "one")
    await make(member, files, "a", "b", "c")
    await all_at_once([group] * 6, [])
    assert await offered(member) == {4: 1}


def test_a_group_learns_from_all_its_edges_and_offers_those_without_products_of_their_own() -> None:
    settings = TrainingSettings(
        edges=("edge1", "edge2", "edge3"),
        edge_groups={"north": ("edge1", "edge2", "edge3")},
        edge_products={"edge1": ("chai",)},
        rollout="1,100%",
    )
    north, own = open_stores(settings, "north"), open_stores(settings, "edge1")
    assert (north.member_edges, north.rings) == (("edge2", "edge3"), "1,100%")
    assert {source.edge: source.aside for source in north.sources} == dict.fromkeys(
        settings.edges, frozenset({"chai"})
    )
    assert own.member_edges == ()
    assert {source.edge: set(source.aside) for source in own.sources} == {
        "edge1": set(),
        "edge2": {"chai"},
        "edge3": {"chai"},
    }
