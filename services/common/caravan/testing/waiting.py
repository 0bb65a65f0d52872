"""Loops that run while a test looks, and waiting for what they do."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

T = TypeVar("T")

SECONDS = 20.0


async def until(holds: Callable[[], T | Awaitable[T]], seconds: float = SECONDS, every: float = 0.001) -> T:
    """Ask again and again until the answer is true, and return it; an assertion that fails counts as no.

    Args:
        holds: the question; what it returns is awaited if it can be.
        seconds: how long it may take.
        every: seconds between two questions.

    Raises:
        AssertionError: if it took longer; it names the last answer.

    """
    deadline = time.monotonic() + seconds
    while True:
        last: object
        try:
            asked = holds()
            answer: T = await asked if inspect.isawaitable(asked) else asked
            if answer:
                return answer
            last = answer
        except AssertionError as exc:
            last = exc
        if time.monotonic() > deadline:
            raise AssertionError(f"still not after {seconds:g} s; the last answer was {last!r}")
        await asyncio.sleep(every)


@asynccontextmanager
async def running(*loops: Coroutine[Any, Any, Any]) -> AsyncIterator[list[asyncio.Task[Any]]]:
    """Run loops beside a test, which ends them; an error of one of them is raised at the end."""
    tasks = [asyncio.create_task(loop) for loop in loops]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled() and (error := task.exception()):
            raise error
