"""How many bytes of images the process holds at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from caravan.errors import Unavailable

WAIT_SECONDS = 10.0


class MemoryBudget:
    """A sum of bytes; what is larger than all of it counts as all of it, and so has it alone.

    Args:
        total: bytes that may be held at once.
        wait_seconds: how long `hold` waits before it gives up.

    """

    def __init__(self, total: int, wait_seconds: float = WAIT_SECONDS) -> None:
        self._total = total
        self._free = total
        self._wait_seconds = wait_seconds
        self._returned = asyncio.Event()

    def take(self, size: int) -> bool:
        """Take so many bytes if they are free; tell whether they were."""
        size = min(size, self._total)
        if size > self._free:
            return False
        self._free -= size
        return True

    def give_back(self, size: int) -> None:
        """Return what was taken."""
        self._free += min(size, self._total)
        self._returned.set()

    @asynccontextmanager
    async def hold(self, size: int) -> AsyncIterator[None]:
        """Hold so many bytes for the length of the block; wait until they are free.

        Raises:
            Unavailable: if they were not in time.

        """
        try:
            async with asyncio.timeout(self._wait_seconds):
                while not self.take(size):
                    self._returned.clear()
                    await self._returned.wait()
        except TimeoutError as exc:
            raise Unavailable("too many images at once: try again") from exc
        try:
            yield
        finally:
            self.give_back(size)
