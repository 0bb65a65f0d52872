"""Work that runs side by side: so much at a time, on which event loop."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")


async def for_each(items: Iterable[T], work: Callable[[T], Awaitable[None]], *, at_once: int) -> None:
    """Do something with each item, so many at a time; the first error ends all and is raised."""
    todo = iter(items)

    async def worker() -> None:
        for item in todo:
            await work(item)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(worker())
    except ExceptionGroup as several:
        raise several.exceptions[0] from several


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run the work of a process, service or command, on its event loop: uvloop where there is one."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(work)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if sys.platform == "win32":
        return None
    from caravan.event_loop import Loop  # noqa: PLC0415 - not on every platform

    return Loop
