"""shopper: memory is bounded whatever comes in."""

import asyncio

import pytest

from caravan.errors import Unavailable
from shopper.images.budget import MemoryBudget


async def test_who_does_not_fit_waits_until_others_are_done() -> None:
    budget = MemoryBudget(100)
    held = most = 0

    async def request(size: int) -> None:
        nonlocal held, most
        async with budget.hold(size):
            held += size
            most = max(most, held)
            await asyncio.sleep(0)
            held -= size

    async with asyncio.timeout(20):
        await asyncio.gather(*(request(size) for size in [60, 50, 30, 100, 20, 40, 10] * 10))
    assert 0 < most <= 100


async def test_who_waits_too_long_is_turned_away_and_takes_nothing() -> None:
    budget = MemoryBudget(100, wait_seconds=0.05)
    async with budget.hold(60):
        with pytest.raises(Unavailable, match="too many"):
            async with budget.hold(60):
                pytest.fail("there was no room")
    assert budget.take(100)


async def test_one_that_is_larger_than_all_has_it_alone() -> None:
    budget = MemoryBudget(100, wait_seconds=0.05)
    async with budget.hold(1000):
        assert not budget.take(1)
    assert budget.take(100)


async def test_one_that_holds_all_of_it_grows_though_others_wait() -> None:
    budget = MemoryBudget(100)
    async with asyncio.timeout(20), budget.growing() as held:
        await held.grow(100, 1000)
        other = asyncio.create_task(hold(budget, 10))
        await asyncio.sleep(0)  # it waits now
        await held.grow(900, 900)
    await other


async def hold(budget: MemoryBudget, size: int) -> None:
    async with budget.hold(size):
        pass


async def test_who_needs_least_has_the_next_turn() -> None:
    budget = MemoryBudget(100)
    done: list[int] = []

    async def request(size: int) -> None:
        async with budget.hold(size):
            done.append(size)

    async with asyncio.timeout(20), asyncio.TaskGroup() as group, budget.hold(95):
        for size in (90, 30, 80, 20):
            group.create_task(request(size))
        await asyncio.sleep(0)
        assert not done
    assert done == [20, 30, 80, 90]


async def test_of_those_who_hold_some_and_wait_for_one_another_who_needs_most_is_turned_away() -> None:
    budget = MemoryBudget(100)
    outcomes: dict[int, str] = {}

    async def send(size: int) -> None:
        try:
            async with budget.growing() as held:
                for left in range(size, 0, -10):
                    await held.grow(10, left)
                    await asyncio.sleep(0)
            outcomes[size] = "done"
        except Unavailable:
            outcomes[size] = "turned away"

    async with asyncio.timeout(5):  # sooner than anyone has waited too long
        await asyncio.gather(*(send(size) for size in (40, 80, 50, 90)))
    assert outcomes == {40: "done", 50: "done", 80: "done", 90: "turned away"}


async def test_room_is_asked_for_until_there_is_some() -> None:
    asked = 0

    def make_room() -> bool:
        nonlocal asked
        asked += 1
        if asked == 3:  # before, nobody was slow enough
            budget.give_back(100)
        return asked >= 3

    budget = MemoryBudget(100, make_room=make_room)
    assert budget.take(100)
    async with asyncio.timeout(5), budget.hold(10):
        assert asked == 3
