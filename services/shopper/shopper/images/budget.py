"""How many bytes of images the process holds at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from caravan.errors import Unavailable

WAIT_SECONDS = 10.0


class MemoryBudget:
    """A sum of bytes; what is larger than all of it counts as all of it, and so has it alone.

    Args:
        total: bytes that may be held at once.
        wait_seconds: how long is waited for bytes that are not free.
        make_room: called where there are none; may have others give theirs back soon.

    """

    def __init__(
        self, total: int, wait_seconds: float = WAIT_SECONDS, make_room: Callable[[], object] = lambda: None
    ) -> None:
        self.total = total
        self._free = total
        self._wait_seconds = wait_seconds
        self._make_room = make_room
        self._returned = asyncio.Event()

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
        self._returned.set()

    @asynccontextmanager
    async def hold(self, size: int) -> AsyncIterator[None]:
        """Hold so many bytes for the length of the block; wait until they are free.

        Raises:
            Unavailable: if they were not in time.

        """
        async with self.growing() as held:
            await held.grow(size)
            yield

    @asynccontextmanager
    async def growing(self) -> AsyncIterator[Held]:
        """Hold for the length of the block what is taken within it."""
        held = Held(self)
        try:
            yield held
        finally:
            self.give_back(held.size)

    async def wait_for(self, size: int) -> None:
        """Take so many bytes as soon as they are free.

        Raises:
            Unavailable: if they were not in time.

        """
        if self.take(size):
            return
        try:
            async with asyncio.timeout(self._wait_seconds):
                while not self.take(size):
                    self._make_room()
                    self._returned.clear()
                    await self._returned.wait()
        except TimeoutError as exc:
            raise Unavailable("too many images at once: try again") from exc


class Held:
    """Bytes of a budget that someone holds: `size` of them."""

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self.size = 0

    async def grow(self, size: int) -> None:
        """Hold so many more.

        Raises:
            Unavailable: if they were not free in time.

        """
        more = min(size, self._budget.total - self.size)
        await self._budget.wait_for(more)
        self.size += more
