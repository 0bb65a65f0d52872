"""Bounds for work that runs side by side: how many at once, and how many bytes in memory."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from weakref import WeakValueDictionary


class Budget:
    """Bytes that may be in memory at once, granted in the order of asking, to each owner up to a share.

    An owner has no more than it leaves free, unless it has nothing yet: one whose bucket hangs holds half of
    all, and the others go on.

    Args:
        size: number of bytes; a larger request waits until all are free, and takes all.

    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._free = size
        self._held: Counter[str] = Counter()
        self._waiting: deque[_Waiter] = deque()

    @asynccontextmanager
    async def take(self, wanted: int, owner: str = "") -> AsyncIterator[None]:
        """Hold so many bytes for the length of the context; without an owner there is no share."""
        waiter = _Waiter(owner, min(wanted, self._size), asyncio.get_running_loop().create_future())
        self._waiting.append(waiter)
        self._serve()
        try:
            await waiter.turn
            yield
        finally:
            if waiter.turn.done() and not waiter.turn.cancelled():
                self._free += waiter.amount
                self._held[owner] -= waiter.amount
            if not self._held[owner]:
                del self._held[owner]
            self._serve()

    def _serve(self) -> None:
        left: deque[_Waiter] = deque()
        while self._waiting:
            waiter = self._waiting.popleft()
            if waiter.turn.done():
                continue
            if self._has_its_share(waiter):
                left.append(waiter)
            elif waiter.amount > self._free:
                self._waiting.appendleft(waiter)
                break
            else:
                self._free -= waiter.amount
                self._held[waiter.owner] += waiter.amount
                waiter.turn.set_result(None)
        self._waiting.extendleft(reversed(left))

    def _has_its_share(self, waiter: _Waiter) -> bool:
        held = self._held[waiter.owner] if waiter.owner else 0
        return held > 0 and held + waiter.amount > self._free - waiter.amount


@dataclass(slots=True)
class _Waiter:
    """Bytes that are waited for; `turn` ends when they are there."""

    owner: str
    amount: int
    turn: asyncio.Future[None]


class KeyedLock:
    """Lets so many go at once, and of those with the same name one after the other.

    Args:
        at_once: most holders at once.
        of_one: most holders with the same first word of their names.

    """

    def __init__(self, at_once: int, *, of_one: int | None = None) -> None:
        self._places = asyncio.Semaphore(at_once)
        self._of_one = of_one or at_once
        self._shares: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._locks: WeakValueDictionary[tuple[str, ...], asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def take(self, *name: str) -> AsyncIterator[None]:
        """Wait for the turn of this name, and hold it for the length of the context."""
        lock = self._locks.setdefault(name, asyncio.Lock())
        share = self._shares.setdefault(name[0], asyncio.Semaphore(self._of_one))
        async with lock, share, self._places:
            yield
