"""A customer who never stops asking: proof that the swap of models costs nobody an answer."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from caravan.errors import CaravanError
from lab.demo.doors import Answer

PAUSE = 0.1
"""Seconds between an answer and the next question."""


@dataclass(slots=True)
class Tally:
    """What the prober saw: answers by version, errors, the longest wait, and how long it asked (seconds)."""

    answers: Counter[int] = field(default_factory=Counter)
    errors: int = 0
    first_error: str = ""
    slowest: float = 0.0
    seconds: float = 0.0

    @property
    def asked(self) -> int:
        """How many questions were asked."""
        return self.answers.total() + self.errors


@asynccontextmanager
async def probing(
    detect: Callable[[bytes], Awaitable[Answer]], photos: Sequence[bytes], pause: float = PAUSE
) -> AsyncIterator[Tally]:
    """Ask about the photos in turn, all the while; the tally grows as answers come."""
    tally = Tally()
    task = asyncio.create_task(_probe(detect, photos, pause, tally), name="prober")
    try:
        yield tally
    finally:
        task.cancel()
        await asyncio.wait([task])
    if not task.cancelled():
        task.result()  # raises what ended it before its time


async def _probe(
    detect: Callable[[bytes], Awaitable[Answer]], photos: Sequence[bytes], pause: float, tally: Tally
) -> None:
    start = time.monotonic()
    while True:
        for photo in photos:
            began = time.monotonic()
            try:
                answer = await detect(photo)
            except CaravanError as exc:
                tally.errors += 1
                tally.first_error = tally.first_error or str(exc)
            else:
                tally.answers[answer.version] += 1
            now = time.monotonic()
            tally.slowest, tally.seconds = max(tally.slowest, now - began), now - start
            await asyncio.sleep(pause)
