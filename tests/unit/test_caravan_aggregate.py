"""Messages that are gathered by key: when they are due, and whom a failure concerns."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from caravan.aggregate import Aggregator
from caravan.errors import Permanent, Transient


class Sink:
    """Takes aggregates; some items make it fail, some keys wait for their gate."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, list[str]]] = []
        self.tries: list[tuple[str, list[str]]] = []
        self.gates: dict[str, asyncio.Event] = {}
        self.errors: dict[str, list[Exception]] = {}

    async def hand_over(self, key: str, items: Sequence[str]) -> None:
        self.tries.append((key, list(items)))
        if gate := self.gates.get(key):
            await gate.wait()
        for item in items:
            if self.errors.get(item):
                raise self.errors[item].pop(0)
        self.taken.append((key, list(items)))


@asynccontextmanager
async def gathering(sink: Sink, **changed: Any) -> AsyncIterator[Aggregator[str, str]]:
    settings: dict[str, Any] = {"within": 0.0, "age": 0.01, "count": 100}
    async with (
        asyncio.timeout(20),
        Aggregator[str, str]("a-route", "a-sink", sink.hand_over, **(settings | changed)) as aggregator,
    ):
        yield aggregator


def add(aggregator: Aggregator[str, str], *items: str, size: int = 0) -> list[asyncio.Task[None]]:
    """Add items, each named for its key and a number."""
    return [asyncio.create_task(aggregator.add(item[0], item, size=size)) for item in items]


async def outcomes(tasks: list[asyncio.Task[None]]) -> list[str]:
    results = await asyncio.gather(*tasks, return_exceptions=True)
    return [type(result).__name__ for result in results]


async def test_an_aggregate_is_due_by_count_and_the_rest_by_age() -> None:
    sink = Sink()
    async with gathering(sink, count=2) as aggregator:
        assert await outcomes(add(aggregator, "a1", "a2", "a3")) == ["NoneType"] * 3
        assert (aggregator.keys, aggregator.waiting) == (0, 0)
    assert sink.taken == [("a", ["a1", "a2"]), ("a", ["a3"])]


async def test_an_aggregate_is_due_by_its_bytes() -> None:
    sink = Sink()
    async with gathering(sink, age=60.0, size=20) as aggregator:
        await outcomes(add(aggregator, "a1", "a2", "a3", "a4", size=10))
    assert sink.taken == [("a", ["a1", "a2"]), ("a", ["a3", "a4"])]


async def test_all_are_due_when_all_together_have_as_many_bytes() -> None:
    sink = Sink()
    async with gathering(sink, age=60.0, size=20) as aggregator:
        await outcomes(add(aggregator, "a1", "b1", size=10))
    assert sorted(sink.taken) == [("a", ["a1"]), ("b", ["b1"])]


async def test_aggregates_of_one_key_follow_one_another_and_those_of_others_pass() -> None:
    sink = Sink()
    sink.gates["a"] = asyncio.Event()
    async with gathering(sink, count=1) as aggregator:
        slow = add(aggregator, "a1", "a2")
        await outcomes(add(aggregator, "b1", "b2"))
        assert sink.tries.count(("a", ["a1"])) == 1
        assert ("a", ["a2"]) not in sink.tries
        sink.gates["a"].set()
        await outcomes(slow)
    assert sink.taken == [("b", ["b1"]), ("b", ["b2"]), ("a", ["a1"]), ("a", ["a2"])]


async def test_what_fails_for_now_is_tried_again_as_it_was() -> None:
    sink = Sink()
    sink.errors["a2"] = [Transient("away")]
    async with gathering(sink, within=20.0) as aggregator:
        assert await outcomes(add(aggregator, "a1", "a2")) == ["NoneType"] * 2
    assert sink.tries == [("a", ["a1", "a2"])] * 2


async def test_what_fails_for_too_long_fails_for_all_that_wait_behind_it_and_for_no_other_key() -> None:
    sink = Sink()
    sink.errors["a1"] = [Transient("away")]
    async with gathering(sink, count=1) as aggregator:
        tasks = add(aggregator, "a1", "a2", "a3", "b1")
        assert await outcomes(tasks) == ["Transient", "Transient", "Transient", "NoneType"]
        await outcomes(add(aggregator, "a4"))
    assert sink.taken == [("b", ["b1"]), ("a", ["a4"])]


@pytest.mark.parametrize("error", [Permanent("no"), ZeroDivisionError()])
async def test_what_fails_for_good_fails_alone(error: Exception) -> None:
    sink = Sink()
    sink.errors["a2"] = [error, error]
    async with gathering(sink) as aggregator:
        failed = type(error).__name__
        assert await outcomes(add(aggregator, "a1", "a2", "a3")) == ["NoneType", failed, "NoneType"]
    assert sink.taken == [("a", ["a1"]), ("a", ["a3"])]


async def test_the_last_message_stands_for_those_before_also_while_it_is_tried_again() -> None:
    sink = Sink()
    sink.errors["a2"] = [Transient("away")]
    async with gathering(sink, coalesces=True, within=20.0) as aggregator:
        first, last = add(aggregator, "a1", "a2")
        await first
        assert not last.done()
        while not sink.tries:
            await asyncio.sleep(0)
        more = add(aggregator, "a3")
        assert await outcomes([last, *more]) == ["NoneType"] * 2
    assert sink.taken == [("a", ["a1", "a2", "a3"])]


async def test_of_many_that_one_stands_for_a_few_are_remembered() -> None:
    sink = Sink()
    async with gathering(sink, coalesces=True) as aggregator:
        await outcomes(add(aggregator, *(f"a{n}" for n in range(1000))))
    ((_, items),) = sink.taken
    assert items == [f"a{n}" for n in range(979, 1000)]


async def test_of_a_key_that_is_stuck_no_more_wait_than_the_next_aggregate_has_room_for() -> None:
    sink = Sink()
    sink.gates["a"] = asyncio.Event()
    async with gathering(sink, count=2, patience=0.01) as aggregator:
        first = add(aggregator, *(f"a{n}" for n in range(8)))
        assert await outcomes(first[4:]) == ["Transient"] * 4
        assert await outcomes(add(aggregator, "a8")) == ["Transient"]
        assert await outcomes(add(aggregator, "b0")) == ["NoneType"]
        sink.gates["a"].set()
        assert await outcomes(first[:4]) == ["NoneType"] * 4
        assert await outcomes(add(aggregator, "a9", "a10", "a11")) == ["NoneType"] * 3


async def test_at_the_end_what_is_on_its_way_is_let_go() -> None:
    sink = Sink()
    sink.gates["a"] = asyncio.Event()
    async with gathering(sink) as aggregator:
        (task,) = add(aggregator, "a1")
        while not sink.tries:
            await asyncio.sleep(0.001)
        task.cancel()
    assert sink.taken == []
