"""Requests that a client sends again, as it missed the answer: done once, answered each time."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any

from caravan.errors import BadInput

REMEMBERED = 2000
MAX_KEY = 256

Answer = dict[str, Any]


class Once:
    """Remembers the answers of the last requests that came with an idempotency key.

    What failed is not remembered: it may be tried again. A restart forgets; then content decides, as the
    feeder knows a training image that it has.

    Args:
        remembered: how many answers.

    """

    def __init__(self, remembered: int = REMEMBERED) -> None:
        self._remembered = remembered
        self._answers: OrderedDict[str, asyncio.Task[Answer]] = OrderedDict()

    async def __call__(self, key: str, act: Callable[[], Awaitable[Answer]]) -> Answer:
        """Act, unless a request with this key did, or does; return the answer. Without a key, just act.

        Raises:
            BadInput: if the key is too long.

        """
        if not key:
            return await act()
        if len(key) > MAX_KEY:
            raise BadInput(f"an idempotency key has at most {MAX_KEY} characters", reason="long-key")
        task = self._answers.get(key)
        if task is None:
            # A task of its own: a sender that goes away takes the answer from nobody else.
            task = asyncio.ensure_future(_run(act))
            self._answers[key] = task
            task.add_done_callback(lambda done: self._forget_failure(key, done))
            while len(self._answers) > self._remembered:
                self._answers.popitem(last=False)
        return await asyncio.shield(task)

    def _forget_failure(self, key: str, task: asyncio.Task[Answer]) -> None:
        if (task.cancelled() or task.exception()) and self._answers.get(key) is task:
            del self._answers[key]


async def _run(act: Callable[[], Awaitable[Answer]]) -> Answer:
    return await act()
