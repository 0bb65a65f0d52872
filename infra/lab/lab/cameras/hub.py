"""What the hub at central counted, read until all of it can be there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

import httpx

from caravan import strict_json
from lab.cameras.tally import Comparison, Counted, Tally, compare
from local_stack.errors import StackError

POLL = 0.5
SECONDS = 10.0
WINDOW_SECONDS = 10.0
"""The shopper's default, for as long as the hub has no window to tell what it really is."""
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
        StackError: if the hub never answered, or shows that the shopper's threshold is another.

    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    window, last = 0.0, ""
    found: dict[str, Comparison] | None = None
    while True:
        try:
            cameras = await _cameras(http, hub, edge)
        except (httpx.HTTPError, ValueError, LookupError, TypeError, AttributeError) as exc:
            last = repr(exc)
        else:
            windows = [one for name in tallies for one in cameras.get(name, {}).get("windows", ())]
            window = max(window, *(_length(one) for one in windows)) if windows else window
            _check_thresholds(windows, tallies)
            found = {name: compare(tally, _counted(cameras.get(name, {}))) for name, tally in tallies.items()}
            on_poll(loop.time() - began, found)
        waited = loop.time() - began
        longest = window or WINDOW_SECONDS
        if found is not None and all(each.equal for each in found.values()) and waited > longest + SLACK:
            return found
        if waited > longest + patience:
            break
        await asyncio.sleep(POLL)
    if found is None:
        raise StackError(f"the hub at {hub} does not answer as it should: {last}")
    return found


async def _cameras(http: httpx.AsyncClient, hub: str, edge: str) -> dict[str, Mapping[str, Any]]:
    answer = await http.get(f"{hub}/hub", timeout=SECONDS)
    answer.raise_for_status()
    return {
        str(one["camera"]): one
        for one in strict_json.loads_object(answer.content)["cameras"]
        if one["edge"] == edge
    }


def _counted(camera: Mapping[str, Any]) -> Counted:
    totals = camera.get("totals", {})
    kinds = (
        {str(k): int(n) for k, n in totals.get(kind, {}).items() if n} for kind in ("certain", "uncertain")
    )
    return Counted(*kinds)


def _length(window: Mapping[str, Any]) -> float:
    """Return a window's length in seconds."""
    start, end = (datetime.fromisoformat(window[name]) for name in ("start", "end"))
    return (end - start).total_seconds()


def _check_thresholds(windows: Iterable[Mapping[str, Any]], tallies: Mapping[str, Tally]) -> None:
    theirs = {float(window["threshold"]) for window in windows}
    if wrong := theirs - {tally.threshold for tally in tallies.values()}:
        raise StackError(f"the shopper's threshold is {max(wrong):g}: say --threshold {max(wrong):g}")
