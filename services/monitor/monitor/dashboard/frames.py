"""Frames are drawn as long as somebody reads them."""

from __future__ import annotations

import asyncio
from typing import NoReturn

from caravan.pace import Pace
from monitor.dashboard.state import FRAME_SECONDS, Dashboard
from monitor.hub_feed import Feed

UNREAD_SECONDS = 60.0
"""After the last reader went: until then one that comes back gets the frames that it missed."""


async def draw(state: Dashboard, feed: Feed) -> NoReturn:
    """Tell what changed, a few times a second while much does; rest when nobody has read for a while."""
    clock = asyncio.get_running_loop().time
    pace, read = Pace(FRAME_SECONDS), clock()
    while True:
        if feed.readers:
            read = clock()
        elif clock() - read > UNREAD_SECONDS:
            state.rest()
            await state.asked()
            pace.stir()
            read = clock()
        if state.tick():
            pace.stir()
        await asyncio.sleep(pace.pause)
