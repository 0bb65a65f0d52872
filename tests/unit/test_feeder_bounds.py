"""feeder: the spool, connections closed before their body was read, and bounds on work side by side."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from caravan.concurrency import for_each
from caravan.errors import BadInput, Unavailable
from caravan.testing.kafka import Kafka
from feeder.concurrency import Budget, KeyedLock
from feeder.events import zipfile_events
from feeder.spool import SpoolLimits, UploadSpool

MEBI = 2**20


def spool(folder: Path, *, upload: int = 8, total: int = 10, free: int = 0) -> UploadSpool:
    return UploadSpool(folder, SpoolLimits(upload * MEBI, total * MEBI, free))


async def sent(*chunks: bytes, then: Callable[[], Any] | None = None) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk
    if then is not None:
        await then()


def left_in(folder: Path) -> list[Path]:
    return list(folder.iterdir())


# --- the spool ----------------------------------------------------------------------------------


async def test_a_body_lies_whole_on_disk_and_leaves_nothing(tmp_path: Path) -> None:
    one = spool(tmp_path / "made when needed")
    parts = [bytes([n]) * 700_000 for n in range(5)]

    async with one.taken_in(sent(*parts), None) as body:
        body.file.seek(0)
        assert body.file.read() == b"".join(parts)
        assert (body.size, one.used) == (3_500_000, 3_500_000)
        assert len(body.sha256) == 64

    assert one.used == 0
    assert left_in(tmp_path / "made when needed") == []


@pytest.mark.parametrize("declared", [None, 9 * MEBI])
async def test_a_body_that_is_too_large_is_refused(tmp_path: Path, declared: int | None) -> None:
    one = spool(tmp_path)
    with pytest.raises(BadInput) as refused:
        async with one.taken_in(sent(*[bytes(MEBI)] * 9), declared):
            pytest.fail("it was taken")

    assert refused.value.status == 413
    assert one.used == 0


@pytest.mark.parametrize("declared", [None, 6 * MEBI])
async def test_uploads_share_the_room_and_give_it_back(tmp_path: Path, declared: int | None) -> None:
    one = spool(tmp_path)
    async with one.taken_in(sent(*[bytes(MEBI)] * 6), None):
        with pytest.raises(Unavailable) as refused:
            async with one.taken_in(sent(*[bytes(MEBI)] * 6), declared):
                pytest.fail("it was taken")
    async with one.taken_in(sent(*[bytes(MEBI)] * 6), declared) as body:
        assert body.size == 6 * MEBI

    assert refused.value.status == 503


async def test_a_disk_without_room_is_a_507(tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as refused:
        async with spool(tmp_path, free=2**62).taken_in(sent(b"x"), None):
            pytest.fail("it was taken")

    assert refused.value.status == 507


async def test_a_sender_that_hangs_up_leaves_nothing(tmp_path: Path) -> None:
    async def hang_up() -> None:
        raise ConnectionResetError

    one = spool(tmp_path)
    with pytest.raises(ConnectionResetError):
        async with one.taken_in(sent(bytes(2 * MEBI), then=hang_up), None):
            pytest.fail("it was taken")

    assert one.used == 0
    assert left_in(tmp_path) == []


# --- side by side -------------------------------------------------------------------------------


async def test_work_is_done_so_many_at_a_time() -> None:
    busy, most, done = 0, 0, []

    async def work(item: int) -> None:
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        await asyncio.sleep(0)
        busy -= 1
        done.append(item)

    await for_each(range(20), work, at_once=3)

    assert (sorted(done), most) == (list(range(20)), 3)


async def test_the_first_error_ends_the_work_and_is_raised_as_it_is() -> None:
    done = []

    async def work(item: int) -> None:
        await asyncio.sleep(0)
        if item == 5:
            raise BadInput("five")
        done.append(item)

    with pytest.raises(BadInput, match="five"):
        await for_each(range(1000), work, at_once=2)
    assert len(done) < 20


async def test_a_budget_is_never_overdrawn_and_serves_in_order() -> None:
    budget, held, most, order = Budget(10), 0, 0, []

    async def use(number: int, amount: int) -> None:
        nonlocal held, most
        async with budget.take(amount):
            order.append(number)
            held += min(amount, 10)
            most = max(most, held)
            await asyncio.sleep(0)
            held -= min(amount, 10)

    await asyncio.gather(*(use(number, amount) for number, amount in enumerate([6, 6, 1, 99, 3, 3, 3])))

    assert (order, held) == (list(range(7)), 0)
    assert most <= 10


async def test_one_that_gives_up_waiting_does_not_keep_its_place_in_the_budget() -> None:
    budget = Budget(10)

    async def take() -> None:
        async with budget.take(10):
            pass

    async with budget.take(5):
        waiting = asyncio.create_task(take())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        async with asyncio.timeout(5), budget.take(5):
            pass
    async with asyncio.timeout(5):
        await take()


async def test_an_owner_that_gives_nothing_back_leaves_room_for_the_others() -> None:
    budget, hangs = Budget(10), asyncio.Event()
    served: list[str] = []

    async def use(owner: str, amount: int) -> None:
        async with budget.take(amount, owner):
            served.append(owner)
            if owner == "edge1":
                await hangs.wait()

    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        for _ in range(5):
            group.create_task(use("edge1", 2))
        for _ in range(5):
            group.create_task(use("edge2", 4))
        while served.count("edge2") < 5:
            await asyncio.sleep(0)
        assert served.count("edge1") == 2
        await use("", 4)
        hangs.set()
    assert served.count("edge1") == 5


async def test_one_edge_does_not_take_all_places() -> None:
    locks, hangs = KeyedLock(4, of_one=2), asyncio.Event()

    async def go(edge: str, batch: str) -> None:
        async with locks.take(edge, batch):
            if edge == "edge1":
                await hangs.wait()

    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        for batch in "abcdef":
            group.create_task(go("edge1", batch))
        await asyncio.sleep(0)
        await go("edge2", "a")
        hangs.set()


async def test_the_same_name_goes_one_after_the_other_without_taking_the_place_of_others() -> None:
    locks, most = KeyedLock(2), 0
    held: list[str] = []

    async def go(name: str) -> None:
        nonlocal most
        async with locks.take(name):
            assert name not in held
            held.append(name)
            most = max(most, len(held))
            await asyncio.sleep(0)
            held.remove(name)

    await asyncio.gather(*(go(name) for name in "aaaaabbbbbccccc"))

    assert most == 2


# --- events -------------------------------------------------------------------------------------


async def test_every_stored_image_is_told_by_the_end() -> None:
    kafka = Kafka()
    async with zipfile_events(kafka, "edge1") as one_stored:
        for _ in range(3):
            for _ in range(400):
                one_stored()
            await asyncio.sleep(0.01)

    assert len(kafka.sent) == 1200


async def test_events_are_given_up_once_kafka_takes_none() -> None:
    kafka = Kafka()
    kafka.fail(ConnectionError(), after=10)
    async with zipfile_events(kafka, "edge1") as one_stored:
        for _ in range(5000):
            one_stored()

    assert len(kafka.sent) == 10
    assert kafka.failed < 1990
