"""What the hub at central counted, read until all of it can be there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import httpx

from local_stack.cameras.tally import Comparison, Counted, Tally, compare
from local_stack.errors import StackError

POLL = 0.5
SECONDS = 10.0
WINDOW_SECONDS = 10.0
"""The shopper's default; the hub tells what it really is."""
SLACK = 3.0
"""Seconds from a window's end to its counts at the hub, when nothing is amiss."""

OnPoll = Callable[[float, Mapping[str, Comparison]], None]


async def settled(
    http: httpx.AsyncClient,
    hub: str,
    edge: str,
    tallies: Mapping[str, Tally],
    *,
    patience: float,
    on_poll: OnPoll,
) -> dict[str, Comparison]:
    """Compare with the hub until all is equal after the last window's end, or patience is at its end.

    Equal before that end is not enough: an image that was counted twice might still be on its way.

    Args:
        http: a client.
        hub: its address.
        edge: whose cameras.
        tallies: by the camera's name.
        patience: seconds to wait beyond a window.
        on_poll: told how long has been waited, and how things stand.

    Raises:
        StackError: if the hub never answered.

    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    window, last = WINDOW_SECONDS, ""
    found: dict[str, Comparison] | None = None
    while True:
        try:
            cameras = await _cameras(http, hub, edge)
        except (httpx.HTTPError, ValueError, LookupError, TypeError, AttributeError) as exc:
            last = repr(exc)
        else:
            window = max([window, *(_window(camera) for camera in cameras.values())])
            found = {name: compare(tally, _counted(cameras.get(name, {}))) for name, tally in tallies.items()}
            on_poll(loop.time() - began, found)
        waited = loop.time() - began
        if found is not None and all(each.equal for each in found.values()) and waited > window + SLACK:
            return found
        if waited > window + patience:
            break
        await asyncio.sleep(POLL)
    if found is None:
        raise StackError(f"the hub at {hub} does not answer as it should: {last}")
    return found


async def _cameras(http: httpx.AsyncClient, hub: str, edge: str) -> dict[str, Mapping[str, Any]]:
    answer = await http.get(f"{hub}/hub", timeout=SECONDS)
    answer.raise_for_status()
    return {str(one["camera"]): one for one in answer.json()["cameras"] if one["edge"] == edge}


def _counted(camera: Mapping[str, Any]) -> Counted:
    totals = camera.get("totals", {})
    kinds = (
        {str(k): int(n) for k, n in totals.get(kind, {}).items() if n} for kind in ("certain", "uncertain")
    )
    return Counted(*kinds)


def _window(camera: Mapping[str, Any]) -> float:
    sizes = [window.get("config", window).get("window_size", 0) for window in camera.get("windows", ())]
    return max((float(size) for size in sizes), default=0.0)
