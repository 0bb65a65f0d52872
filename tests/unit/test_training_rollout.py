"""Rollouts: a version goes to a ring of edges, then on, or back, by what the edges say of it."""

import asyncio
import json
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from obstore.store import MemoryStore, ObjectStore

from caravan import evidence, model_index, retry, rollouts, s3
from caravan.contracts import EDGE_STATUS, evidence_key, to_json
from caravan.errors import Permanent, Transient
from caravan.evidence import MOST_SHOWN, Differing, Evidence, Finding
from caravan.manifest import Lineage, Manifest, Shared
from caravan.rollout import Order, Rollout, Told, parse_rings
from caravan.testing.kafka import record
from caravan.testing.waiting import running, until
from training import versions
from training.hearing import Hearing
from training.publish import publish, rollback
from training.release import release
from training.retention import keep_newest
from training.rolling import AGAIN_SECONDS, Rolling, go_back
from training.rollout import Step, Word, decide, differing, is_served
from training.settings import TrainingSettings
from training.settled import settle_data
from training.sharing import share
from training.stores import Stores

MODEL = "tea"
SEVEN = [f"edge{number}" for number in range(1, 8)]


# --- rings ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "edges", "sizes"),
    [
        ("1,20%,100%", 7, [1, 2, 7]),
        ("5, 100%", 7, [5, 7]),
        ("5,10,100%", 7, [5, 7]),
        ("1,50%,100%", 1, [1]),
        ("1,20%,100%", 100, [1, 20, 100]),
        ("100%", 7, [7]),
    ],
)
def test_a_ring_has_so_many_edges_or_a_share_of_them_and_those_before(
    text: str, edges: int, sizes: list[int]
) -> None:
    names = [f"edge{number}" for number in range(edges)]
    rollout: Rollout | None = Rollout(1, 0, 0, text)
    seen, new = [], 0
    while rollout is not None:
        seen.append(len(rollout.reaches(names)))
        new += len(rollout.newly(names))
        further = rollout.next_ring(names)
        rollout = None if further is None else rollout.changed("rolling", "", ring=further)
    assert (seen, new) == (sizes, edges)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("1,2", "does not end with all edges: end with 100%"),
        ("one,100%", "'one' is neither a number of edges nor a share of them"),
        ("0,100%", "'0' is neither"),
        ("1,120%", "'120%' is neither"),
        ("1,,100%", "'' is neither"),
        ("20%,10%,100%", "a ring that is not larger than the one before"),
        ("5,5,100%", "not larger"),
    ],
)
def test_what_are_no_rings_is_told_at_the_start(
    monkeypatch: pytest.MonkeyPatch, text: str, fault: str
) -> None:
    monkeypatch.setenv("ROLLOUT", text)
    with pytest.raises(ValueError, match=fault):
        TrainingSettings()
    assert parse_rings(" ") == ()


# --- what is decided -----------------------------------------------------------------------------

SERVES = Word(serves=True, is_silent=False)
COMING = Word(is_silent=False)
AWAY = Word()
REFUSES = Word(refused="the model server failed", is_silent=False)


def step(*words: Word, is_last: bool = False, served: float = 0, new: Collection[str] | None = None) -> Step:
    told = {f"edge{number}": word for number, word in enumerate(words, 1)}
    return decide(told, told if new is None else new, is_last=is_last, served=served, soak=300)


def found(answers: int, worse: int = 0, better: int = 0) -> Word:
    told = Evidence(MODEL, 3, 2, answers=answers, compared=answers, worse=worse, better=better)
    return replace(SERVES, evidence=told)


def test_where_no_edge_compares_a_version_goes_on_once_the_ring_has_served_it_for_a_while() -> None:
    assert step(SERVES, SERVES).does == "wait"
    assert step(SERVES, SERVES, served=299).why == "2 of 2 edges serve it, for 300 s before it goes on"
    assert step(SERVES, SERVES, served=300).does == "go-on"


@pytest.mark.parametrize(
    ("words", "stops"),
    [
        ([REFUSES], True),
        ([REFUSES, COMING], False),
        ([REFUSES, REFUSES], True),
        ([REFUSES, *[SERVES] * 4], False),
        ([REFUSES, REFUSES, *[SERVES] * 3], True),
        ([*[REFUSES] * 2, *[SERVES] * 18], False),
        ([*[REFUSES] * 3, *[SERVES] * 18], True),
        ([*[REFUSES] * 10, *[SERVES] * 90], False),
        ([*[REFUSES] * 11, *[SERVES] * 89], True),
    ],
)
def test_a_version_stops_that_two_edges_and_more_than_a_tenth_refuse(words: list[Word], stops: bool) -> None:
    told = step(*words)
    assert (told.does == "stop") is stops
    if stops:
        count = len([word for word in words if word is REFUSES])
        assert told.why.startswith(f"{count} of {len(words)} edges refuse it: edge1")
        assert told.why.endswith("edge1 says: the model server failed")
        assert (told.numbers["refused"], told.numbers["edges"]) == (count, len(words))


@pytest.mark.parametrize(
    ("words", "is_last", "goes_on"),
    [
        ([*[SERVES] * 9, AWAY], False, False),
        ([*[SERVES] * 10, AWAY], False, True),
        ([*[SERVES] * 10, REFUSES], False, True),
        ([*[SERVES] * 10, COMING, AWAY], False, False),
        ([SERVES, AWAY, REFUSES], True, True),
        ([SERVES, COMING], True, False),
        ([AWAY, AWAY], True, False),
    ],
)
def test_a_tenth_of_the_edges_may_be_without_it_and_in_the_last_ring_those_that_are_silent(
    words: list[Word], is_last: bool, goes_on: bool
) -> None:
    if len(words) == 10:
        words = words[1:]  # Of nine there is no tenth.
    told = step(*words, is_last=is_last, served=1000)
    assert (told.does == "go-on") is goes_on
    assert is_served({str(n): word for n, word in enumerate(words)}, is_last=is_last) is goes_on


def test_who_is_waited_for_is_told() -> None:
    assert step(SERVES, AWAY, COMING, REFUSES).why == (
        "3 of 4 edges are waited for: edge2 is silent; edge3 does not serve it yet; "
        "edge4 refuses it: the model server failed"
    )


def test_evidence_of_all_edges_stops_a_version_and_that_of_the_newest_ring_lets_it_go_on() -> None:
    assert step(found(40, worse=8), found(40, worse=8)).does == "stop"
    told = step(found(400, better=3), found(5), new=["edge2"], served=1000)
    assert told.does == "wait"
    assert "not yet told from version 2" in told.why
    assert step(found(400), found(400), new=["edge2"]).does == "go-on"
    assert step(found(5000), found(40, worse=20), new=["edge2"]).does == "stop", "a ring speaks for itself"
    assert step(found(400), SERVES, new=["edge2"], served=1000).does == "go-on", (
        "the new one does not compare"
    )


# --- a group of seven edges ----------------------------------------------------------------------


class North:
    """A group of seven edges: its buckets, and edges that do with a version what a test says."""

    def __init__(self, folder: Path, rings: str = "5,100%") -> None:
        members = tuple(Stores(MemoryStore(), MemoryStore(), MemoryStore(), edge) for edge in SEVEN)
        self.stores = Stores(MemoryStore(), MemoryStore(), MemoryStore(), "north", members, rings)
        self.folder = folder
        self.events: list[dict[str, Any]] = []
        self.told: list[Told] = []
        self.broken: dict[str, set[int]] = {}
        """By edge, the versions (the edge's numbers) that its model server cannot load."""
        self.restart()

    def restart(self, again: float = AGAIN_SECONDS) -> None:
        async def tell(told: Told) -> None:
            self.told.append(told)

        self.rolling = Rolling(
            {"north": self.stores}, None, self.events.append, tell, soak=0, again=again, clock=lambda: 1000.0
        )
        self.rolling.is_read.set()

    async def publish(self, content: str) -> int:
        file = self.folder / content
        file.write_text(content)
        lineage = Lineage(data_digest=content)
        done = await publish(self.stores, MODEL, content, {"saved_model.pb": file}, lineage, key=None)
        await self.share()
        return done.manifest.version

    async def share(self) -> None:
        """Do as a run does at its end."""
        await go_back(self.stores, MODEL, None)
        await share(self.stores, MODEL, None, self.events.append)

    async def has(self) -> list[str]:
        """Return what each edge is offered last, by its content; empty for nothing."""
        return [await self.content(await newest(member)) for member in self.stores.members]

    async def content(self, manifest: Manifest | None) -> str:
        if manifest is None:
            return ""
        assert manifest.shared is not None
        key = f"models/{MODEL}/{manifest.shared.version}/saved_model.pb"
        return (await s3.read(self.stores.ready, key)).decode()

    async def speak(self, *edges: str) -> None:
        """Let edges, or all, tell what they do with what they are offered."""
        for member in self.stores.members:
            if edges and member.edge not in edges:
                continue
            offers = sorted(await numbers(member))
            broken = self.broken.get(member.edge, set()) & set(offers)
            good = [number for number in offers if number not in broken]
            self.say(member.edge, max(good, default=0), dict.fromkeys(broken, "it cannot be loaded"))

    def say(self, edge: str, serving: int, refused: Mapping[int, str] = {}) -> None:
        told = [{"version": number, "cause": "load", "reason": why} for number, why in refused.items()]
        status = {"edge": edge, "models": {MODEL: {"serving": serving or None, "refused": told}}}
        self.rolling.hear(record(to_json(status), topic=EDGE_STATUS, key=edge.encode()), 1000.0)

    def find(self, edge: str, version: int, images: Collection[Differing] = (), **counts: int) -> None:
        found = Finding(Evidence(MODEL, version, 1, **counts), "wait", tuple(images))
        raw = evidence.write(found, "2026-11-29T00:00:00+00:00")
        key = evidence_key(edge, MODEL)
        self.rolling.hear(record(raw, topic=EDGE_STATUS, key=key), 1000.0)

    async def carry_on(self) -> Rollout:
        await self.rolling.carry_on("north", MODEL)
        return await self.rollout()

    async def rollout(self) -> Rollout:
        found, _ = await rollouts.read(self.stores.models, MODEL)
        assert found is not None
        return found

    async def served_by_all(self, content: str) -> int:
        """Publish a version and roll it out to the end."""
        version = await self.publish(content)
        for _ in range(3):
            await self.speak()
            await self.carry_on()
        assert (await self.rollout()).state == "done"
        assert await self.has() == [content] * 7
        return version


async def numbers(member: Stores) -> dict[int, Manifest]:
    keys = [entry["path"] for entry in await s3.listed(member.ready, f"models/{MODEL}/")]
    found = [Manifest.from_json(await s3.read(member.ready, key)) for key in keys if "manifest" in key]
    return {manifest.version: manifest for manifest in found}


async def newest(member: Stores) -> Manifest | None:
    found = await numbers(member)
    return found[max(found)] if found else None


@pytest.fixture
def north(tmp_path: Path) -> North:
    return North(tmp_path)


async def test_a_version_goes_to_the_first_ring_and_on_once_that_serves_it(north: North) -> None:
    await north.publish("one")
    assert await north.has() == ["one"] * 5 + [""] * 2
    assert (await north.carry_on()).why.startswith("5 of 5 edges are waited for: edge1 is silent")
    await north.speak("edge1", "edge2", "edge3", "edge4")
    await north.carry_on()
    assert await north.has() == ["one"] * 5 + [""] * 2
    await north.speak()
    now = await north.carry_on()
    assert (now.ring, now.state, now.why) == (
        2,
        "rolling",
        "2 of 7 edges are waited for: edge6 does not serve it yet; edge7 does not serve it yet",
    )
    assert await north.has() == ["one"] * 7
    await north.speak()
    assert (await north.carry_on()).state == "done"
    told = north.told[-1]
    assert (told.group, told.edges, told.rollout) == ("north", tuple(SEVEN), await north.rollout())
    assert Told.of(json.loads(told.to_json())) == told


async def test_a_version_that_two_of_the_first_five_edges_cannot_load_reaches_no_sixth(north: North) -> None:
    await north.served_by_all("one")
    version = await north.publish("two")
    assert await north.has() == ["two"] * 5 + ["one"] * 2
    north.broken = {"edge2": {version}, "edge4": {version}}
    await north.speak("edge1", "edge2", "edge3")
    assert (await north.carry_on()).state == "rolling"
    await north.speak()
    now = await north.carry_on()
    assert now.state == "stopped"
    assert now.why == "2 of 5 edges refuse it: edge2, edge4; edge2 says: it cannot be loaded"
    assert (now.numbers["serving"], now.numbers["refused"]) == (3, 2)
    assert await north.has() == ["one"] * 7
    for member in north.stores.members[5:]:
        assert set(await numbers(member)) == {1}, "who never had it keeps what it has"
    for member in north.stores.members[:5]:
        back = await newest(member)
        assert back is not None
        assert (back.version, back.shared, back.lineage.rollback_of) == (3, Shared("north", 3), 1)
    rejected = [event for event in north.events if event["name"] == "model-rejected"]
    assert [event["edge"] for event in rejected] == SEVEN[:5]
    assert rejected[0]["reason"] == f"stopped in ring 1 of 2: {now.why}"

    await north.speak()
    await north.carry_on()
    await north.share()
    assert await north.has() == ["one"] * 7
    assert [len(await numbers(member)) for member in north.stores.members] == [3] * 5 + [1] * 2


async def test_a_version_that_does_worse_beside_the_one_before_goes_back(north: North) -> None:
    await north.served_by_all("one")
    version = await north.publish("two")
    await north.speak()
    for edge in SEVEN[:2]:
        north.find(edge, version, answers=40, compared=40, worse=8)
    now = await north.carry_on()
    assert now.state == "stopped"
    assert now.why.startswith("version 2 is worse than version 1: it did worse at 16 and better at 0 of 80")
    assert (now.numbers["worse"], now.numbers["compared"]) == (16, 80)
    assert await north.has() == ["one"] * 7


def image(number: int) -> Differing:
    return Differing(f"{number:064x}-2", f"valid/images/green/{number}.jpg", "green", 0.9, "lemon", 0.8)


async def test_a_version_that_goes_back_names_images_of_its_edges_which_stay_when_a_person_speaks(
    north: North,
) -> None:
    await north.served_by_all("one")
    version = await north.publish("two")
    await north.speak()
    north.find("edge1", version, [image(2), image(1)], answers=10, compared=10, worse=2)
    waiting = await north.carry_on()
    assert [(each.edge, each.id) for each in waiting.differing] == [
        ("edge1", image(2).id),
        ("edge1", image(1).id),
    ]
    north.find("edge2", version, [image(3)], answers=100, compared=100, worse=20)
    now = await north.carry_on()
    assert now.state == "stopped"
    assert [each.id for each in now.differing] == [image(number).id for number in (2, 3, 1)]
    assert north.told[-1].rollout.differing == now.differing
    assert Told.of(json.loads(north.told[-1].to_json())) == north.told[-1]
    assert replace(now, state="rolling").ordered("hold", SEVEN, "a person").differing == now.differing


def test_of_many_images_the_newest_of_each_edge_are_named_first() -> None:
    words = {f"edge{number}": replace(SERVES, differing=(image(number), image(90))) for number in range(4)}
    found = [(each.edge, each.id) for each in differing(words)]
    assert found[:5] == [*((f"edge{n}", image(n).id) for n in range(4)), ("edge0", image(90).id)]
    assert len(found) == MOST_SHOWN


async def test_a_version_whose_edges_compare_goes_on_by_what_they_found(north: North) -> None:
    await north.served_by_all("one")
    version = await north.publish("two")
    north.find("edge3", version, answers=10, compared=10)
    await north.speak()
    assert "not yet told from" in (await north.carry_on()).why
    assert await north.has() == ["two"] * 5 + ["one"] * 2
    north.find("edge3", version, answers=400, compared=400)
    await north.carry_on()
    assert await north.has() == ["two"] * 7


async def test_what_a_restart_finds_was_said_before_it_decides_by_the_same(north: North) -> None:
    await north.served_by_all("one")
    version = await north.publish("two")
    north.broken = {"edge1": {version}}
    await north.speak()
    await north.carry_on()
    north.restart()
    assert (await north.carry_on()).state == "rolling", "nothing is heard yet"
    north.broken["edge2"] = {version}
    await north.speak()
    assert (await north.carry_on()).state == "stopped"
    assert await north.has() == ["one"] * 7


async def test_a_rollout_that_is_killed_between_any_two_writes_ends_the_same_when_it_is_carried_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    real_create, real_replace, real_write = s3.create, s3.replace, s3.write
    left = 0

    def lived() -> None:
        nonlocal left
        if left == 0:
            raise Killed
        left -= 1

    async def create(*args: Any) -> bool:
        lived()
        return await real_create(*args)

    async def replaced(*args: Any) -> bool:
        lived()
        return await real_replace(*args)

    async def write(*args: Any) -> None:
        lived()
        await real_write(*args)

    kills = 0
    while True:
        folder = tmp_path / str(kills)
        folder.mkdir()
        north = North(folder)
        await north.served_by_all("one")
        with monkeypatch.context() as patch:
            patch.setattr(s3, "create", create)
            patch.setattr(s3, "replace", replaced)
            patch.setattr(s3, "write", write)
            left = kills
            was_killed = await _is_killed(north, Killed)
        north.restart()
        newest = await versions.newest_complete(north.stores.ready, MODEL)
        assert newest is not None
        if newest.version == 1:
            await north.publish("two")  # The run is made again.
        await north.share()
        await north.speak()
        await north.carry_on()
        north.broken = {"edge2": {2}, "edge4": {2}}
        await north.speak()
        assert (await north.carry_on()).state == "stopped", kills
        assert await north.has() == ["one"] * 7, kills
        reached = [set(await numbers(member)) for member in north.stores.members[5:]]
        assert reached == [{1}, {1}], kills
        if not was_killed:
            break
        kills += 1
    assert kills > 20


async def _is_killed(north: North, killed: type[BaseException]) -> bool:
    north.broken = {"edge2": {2}, "edge4": {2}}
    try:
        await north.publish("two")
        await north.speak()
        await north.carry_on()
    except (killed, BaseExceptionGroup):
        return True
    return False


async def test_a_newer_version_takes_the_place_of_one_that_is_rolled_out(north: North) -> None:
    await north.served_by_all("one")
    await north.publish("two")
    await north.speak()
    await north.carry_on()
    assert await north.has() == ["two"] * 7
    version = await north.publish("three")
    assert await north.has() == ["three"] * 5 + ["two"] * 2
    north.broken = {edge: {version} for edge in SEVEN}
    await north.speak()
    now = await north.carry_on()
    assert (now.version, now.state, now.before) == (3, "stopped", 1)
    assert await north.has() == ["one"] * 7, "back to the last one that was seen to the end"


async def test_after_one_that_was_stopped_the_next_begins_with_the_first_ring_and_may_go_back_too(
    north: North,
) -> None:
    await north.served_by_all("one")
    for content in ("two", "three"):
        version = await north.publish(content)
        assert await north.has() == [content] * 5 + ["one"] * 2
        north.broken = {edge: {version} for edge in SEVEN[:5]}
        await north.speak()
        assert (await north.carry_on()).state == "stopped"
        assert await north.has() == ["one"] * 7
    north.broken = {}
    await north.served_by_all("four")


async def test_a_version_that_comes_while_another_is_stopped_leaves_nobody_with_that(
    north: North, monkeypatch: pytest.MonkeyPatch
) -> None:
    await north.served_by_all("one")
    await north.publish("two")
    await north.speak()
    await north.carry_on()
    assert await north.has() == ["two"] * 7
    await rollouts.order(north.stores.models, MODEL, "stop", SEVEN)
    await north.publish("three")
    assert await north.has() == ["three"] * 5 + ["one"] * 2


async def test_data_whose_version_was_stopped_is_not_published_again(north: North) -> None:
    await north.served_by_all("one")
    version = await north.publish("two")
    north.broken = {edge: {version} for edge in SEVEN}
    await north.speak()
    now = await north.carry_on()
    settled = await settle_data(north.stores, MODEL, "two", None, north.events.append)
    assert settled is not None
    assert (settled.state, settled.version, settled.reason) == (
        "held",
        2,
        f"its rollout was stopped: {now.why}",
    )


async def test_a_person_holds_a_rollout_promotes_it_and_stops_it(north: North) -> None:
    await north.served_by_all("one")
    await north.publish("two")
    models = north.stores.models
    await rollouts.order(models, MODEL, "hold", SEVEN, "the fair is on")
    await north.speak()
    now = await north.carry_on()
    assert (now.state, now.ring, now.why) == ("held", 1, "a person said so: the fair is on")
    assert await north.has() == ["two"] * 5 + ["one"] * 2

    await rollouts.order(models, MODEL, "promote", SEVEN)
    now = await north.carry_on()
    assert (now.state, now.ring) == ("rolling", 2)
    assert await north.has() == ["two"] * 7

    await rollouts.order(models, MODEL, "stop", SEVEN)
    await north.share()
    assert await north.has() == ["one"] * 7
    orders: tuple[Order, ...] = ("hold", "promote", "stop")
    for what in orders:
        with pytest.raises(Permanent, match="the rollout of version 2 is stopped since"):
            await rollouts.order(models, MODEL, what, SEVEN)
    with pytest.raises(Permanent, match="there is no rollout of coffee"):
        await rollouts.order(models, "coffee", "hold", SEVEN)


async def test_a_version_that_is_held_stops_by_itself_all_the_same(north: North) -> None:
    await north.served_by_all("one")
    version = await north.publish("two")
    await rollouts.order(north.stores.models, MODEL, "hold", SEVEN)
    north.broken = {edge: {version} for edge in SEVEN}
    await north.speak()
    assert (await north.carry_on()).state == "stopped"


async def test_a_version_that_went_to_all_can_be_stopped_later(north: North) -> None:
    await north.served_by_all("one")
    await north.served_by_all("two")
    await rollouts.order(north.stores.models, MODEL, "stop", SEVEN)
    await north.carry_on()
    assert await north.has() == ["one"] * 7


async def test_an_operators_rollback_goes_to_all_at_once_and_a_release_by_rings(north: North) -> None:
    await north.served_by_all("one")
    await north.served_by_all("two")
    await rollback(north.stores, MODEL, 1, None)
    assert await north.has() == ["one"] * 7
    assert (await north.rollout()).state == "done"
    await north.publish("three")
    assert await north.has() == ["one"] * 7, "the rollback holds"
    await release(north.stores, MODEL, None)
    assert await north.has() == ["three"] * 5 + ["one"] * 2


async def test_who_had_a_version_before_there_were_rings_keeps_it(tmp_path: Path) -> None:
    north = North(tmp_path, rings="")
    await north.publish("one")
    assert await north.has() == ["one"] * 7
    north.stores = replace(north.stores, rings="5,100%")
    await north.share()
    assert (await north.rollout()).state == "done"
    await north.publish("two")
    assert await north.has() == ["two"] * 5 + ["one"] * 2

    north.stores = replace(north.stores, rings="")
    await north.publish("three")
    north.stores = replace(north.stores, rings="1,100%")
    await north.publish("four")
    assert await north.has() == ["four"] + ["three"] * 6


async def test_an_edge_that_joins_beyond_the_ring_is_offered_the_version_before(north: North) -> None:
    all_of_it = north.stores
    north.stores = replace(all_of_it, members=all_of_it.members[:6])
    await north.publish("one")
    await rollouts.order(north.stores.models, MODEL, "promote", SEVEN[:6])
    await rollouts.order(north.stores.models, MODEL, "promote", SEVEN[:6])
    await north.share()
    await north.publish("two")
    north.stores = all_of_it
    await north.share()
    assert await north.has() == ["two"] * 5 + ["one"] * 2


async def test_what_edges_go_back_to_is_kept_however_many_versions_come(north: North) -> None:
    await north.served_by_all("one")
    for content in ("two", "three", "four"):
        await north.publish(content)
        await rollouts.order(north.stores.models, MODEL, "promote", SEVEN)
        await north.share()
        assert await north.has() == [content] * 7
        await keep_newest(north.stores, MODEL, 1)
    await rollouts.order(north.stores.models, MODEL, "stop", SEVEN)
    await north.share()
    assert await north.has() == ["one"] * 7


async def test_no_rollout_is_held_up_by_one_that_cannot_be_carried_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    north = North(tmp_path)
    await north.publish("one")
    await s3.write(north.stores.models, "rollouts/coffee.json", b"{")
    await s3.write(north.stores.ready, "models/coffee/1/manifest.json", Manifest("coffee", 1, ()).to_json())

    async def speak() -> None:
        while True:
            await north.speak()
            await asyncio.sleep(0.001)

    async with running(north.rolling.work(), speak()):
        await until(lambda: north.told and north.told[-1].rollout.state == "done")
    assert await north.has() == ["one"] * 7


@pytest.mark.parametrize("state", ["stopped", "held"])
async def test_how_a_rollout_stands_that_is_not_done_is_told_again(north: North, state: str) -> None:
    await north.served_by_all("one")
    await north.publish("two")
    what: Order = "stop" if state == "stopped" else "hold"
    await rollouts.order(north.stores.models, MODEL, what, SEVEN)
    north.restart(again=0.001)
    told = len(north.told)

    def is_told_again() -> bool:
        if state == "held":
            north.rolling.look("north")
        return len(north.told) > told + 1

    async with running(north.rolling.work()):
        await until(is_told_again)
    assert {each.rollout.state for each in north.told[told:]} == {state}


async def test_where_the_store_was_away_a_group_is_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    north = North(tmp_path)
    await north.publish("one")
    await north.speak()
    models = model_index.models
    asked: list[ObjectStore] = []

    async def away_at_first(store: ObjectStore) -> list[str]:
        asked.append(store)
        if len(asked) == 1:
            raise Transient("the store is away")
        return await models(store)

    monkeypatch.setattr(model_index, "models", away_at_first)
    monkeypatch.setattr(retry, "pause", lambda failures: 0.0)
    async with running(north.rolling.work()):
        await until(lambda: north.told and north.told[-1].rollout.ring == 2)


async def test_what_an_edge_says_that_cannot_be_read_is_passed_over(north: North) -> None:
    await north.publish("one")
    for raw in (b"", b"[]", b'{"models": 1}', b'{"models": {"tea": {"serving": "x"}}}', b"\xff"):
        for key in (b"edge1", evidence_key("edge1", MODEL), b"edge9", b"north/rollout/tea", None):
            north.rolling.hear(record(raw, topic=EDGE_STATUS, key=key), 1000.0)
    await north.speak()
    await north.carry_on()
    assert await north.has() == ["one"] * 7


@pytest.mark.parametrize(
    "raw", [b"{", b"[]", b'{"schema": 1}', json.dumps({"schema": 2, "version": 1}).encode()]
)
async def test_a_rollout_that_cannot_be_read_lets_nothing_through(north: North, raw: bytes) -> None:
    await north.served_by_all("one")
    await s3.write(north.stores.models, f"rollouts/{MODEL}.json", raw)
    with pytest.raises(Permanent, match=r"rollouts/tea\.json"):
        await north.publish("two")
    assert await north.has() == ["one"] * 7


def test_an_edge_falls_silent_in_time_after_the_clock_was_set_back() -> None:
    hearing = Hearing({"edge1"})
    assert hearing.silent_for("edge1", 1000.0) == float("inf")
    hearing.take(record(to_json({"models": {}}), topic=EDGE_STATUS, key=b"edge1"), 5000.0)
    assert [hearing.silent_for("edge1", now) for now in (5010.0, 1400.0, 1560.0)] == [10.0, 0.0, 160.0]
