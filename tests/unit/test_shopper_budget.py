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
