"""How many bytes of images the process holds at once."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from caravan.errors import Unavailable

WAIT_SECONDS = 10.0
STANDSTILL_SECONDS = 0.05
"""Seconds without memory given back, after which the waiter with the largest need gives way."""


class MemoryBudget:
    """A sum of bytes. A larger request counts as all of it, and is served alone.

    Who needs least has the next turn: a small image does not wait for large ones that come slowly. Those who
    hold some and wait for more could wait for one another: then one of them is turned away.

    Args:
        total: bytes that may be held at once.
        wait_seconds: longest wait for bytes, in seconds.
        make_room: called where there are none; may have others give theirs back soon, and tells whether.

    """

    def __init__(
        self, total: int, wait_seconds: float = WAIT_SECONDS, make_room: Callable[[], bool] = lambda: False
    ) -> None:
        self.total = total
        self._free = total
        self._wait_seconds = wait_seconds
        self._make_room = make_room
        self._waits: list[_Wait] = []
        self._count = itertools.count()
        self._standstill: asyncio.TimerHandle | None = None

    def take(self, size: int) -> bool:
        """Take so many bytes if they are free; tell whether they were."""
        size = min(size, self.total)
        if size > self._free:
            return False
        self._free -= size
        return True

    def give_back(self, size: int) -> None:
        """Return what was taken."""
        self._free += min(size, self.total)
        if self._standstill is not None:
            self._standstill.cancel()
            self._standstill = None
        self._serve()

    @asynccontextmanager
    async def hold(self, size: int) -> AsyncIterator[None]:
        """Hold so many bytes for the length of the block; wait until they are free.

        Raises:
            Unavailable: if they were not in time.

        """
        async with self.growing() as held:
            await held.grow(size, size)
            yield

    @asynccontextmanager
    async def growing(self) -> AsyncIterator[Held]:
        """Hold for the length of the block what is taken within it."""
        held = Held(self)
        try:
            yield held
        finally:
            self.give_back(held.size)

    async def wait_for(self, held: Held, size: int, need: int) -> None:
        """Give a holder so many more, in its turn.

        Raises:
            Unavailable: if that did not come in time, or others needed what it holds.

        """
        if not self._waits and self.take(size):
            held.size += size
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waits, _Wait(need, next(self._count), size, held, turn))
        self._serve()
        try:
            async with asyncio.timeout(self._wait_seconds):
                await turn
        except TimeoutError as exc:
            raise _turned_away() from exc

    def _serve(self) -> None:
        """Give those who wait what they wait for, in turn; see to room where the first does not fit."""
        while self._waits:
            first = self._waits[0]
            if not first.turn.done():  # it may have left
                if not self.take(first.size):
                    self._see_to_room()
                    return
                first.held.size += first.size
                first.turn.set_result(None)
            heapq.heappop(self._waits)

    def _see_to_room(self) -> None:
        if self._standstill is None:
            self._make_room()
            loop = asyncio.get_running_loop()
            self._standstill = loop.call_later(STANDSTILL_SECONDS, self._end_standstill)

    def _end_standstill(self) -> None:
        self._standstill = None
        holders = [wait for wait in self._waits[1:] if wait.held.size and not wait.turn.done()]
        if holders and not self._make_room():
            max(holders).turn.set_exception(_turned_away())
        self._serve()


class Held:
    """Bytes of a budget that someone holds: `size` of them."""

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self.size = 0

    async def grow(self, size: int, need: int) -> None:
        """Hold so many more.

        Args:
            size: bytes.
            need: how many more there will be until the work can be done, these among them.

        Raises:
            Unavailable: if they were not free in time.

        """
        if more := min(size, self._budget.total - self.size):
            await self._budget.wait_for(self, more, need)


@dataclass(order=True, frozen=True, slots=True)
class _Wait:
    need: int
    number: int
    size: int = field(compare=False)
    held: Held = field(compare=False)
    turn: asyncio.Future[None] = field(compare=False)


def _turned_away() -> Unavailable:
    return Unavailable("too many images at once: try again")
