"""Waiting for news of an edge, where it may also change without any."""

from __future__ import annotations

import asyncio
from contextlib import suppress

AT_LEAST_SECONDS = 1.0
"""Between two looks, however much is told."""


async def heard(news: asyncio.Event, within: float) -> None:
    """Wait for news, for so many seconds, which may be infinite, but AT_LEAST_SECONDS in any case."""
    await asyncio.sleep(AT_LEAST_SECONDS)
    with suppress(TimeoutError):
        await asyncio.wait_for(news.wait(), max(0.0, within - AT_LEAST_SECONDS))
