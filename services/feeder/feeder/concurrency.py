"""Bounds for work that runs side by side: how many at once, and how many bytes in memory."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary


class Budget:
    """Bytes that may be in memory at once; who asks first is served first.

    Args:
        size: how many; one that asks for more waits until all are free, and takes all.

    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._free = size
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def take(self, wanted: int) -> AsyncIterator[None]:
        """Hold so many bytes for the length of the context."""
        amount = min(wanted, self._size)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((amount, turn))
        self._serve()
        try:
            await turn
            yield
        finally:
            if turn.done() and not turn.cancelled():
                self._free += amount
            self._serve()

    def _serve(self) -> None:
        while self._waiting:
            amount, turn = self._waiting[0]
            if not turn.done():
                if amount > self._free:
                    return
                self._free -= amount
                turn.set_result(None)
            self._waiting.popleft()


class Turns:
    """Lets so many go at once, and of those with the same name one after the other.

    Args:
        at_once: how many.

    """

    def __init__(self, at_once: int) -> None:
        self._places = asyncio.Semaphore(at_once)
        self._locks: WeakValueDictionary[tuple[str, ...], asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def take(self, *name: str) -> AsyncIterator[None]:
        """Wait for the turn of this name, and hold it for the length of the context."""
        lock = self._locks.setdefault(name, asyncio.Lock())
        async with lock, self._places:
            yield
