"""Tells central how good an edge's answers are, on Kafka `edge-status`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, Protocol

from caravan import telemetry, times
from caravan.contracts import EDGE_STATUS, answers_key, to_json
from shopper import metrics

SINK = "edge-status"
LOOK_SECONDS = 60.0
AGAIN_SECONDS = 600.0
"""Seconds after which unchanged figures are sent again: the hub forgets them at its start."""


class Send(Protocol):
    """Sends a message to Kafka."""

    async def __call__(self, topic: str, value: bytes | None, *, key: bytes | None = None) -> None:
        """Return once the broker has it."""
        ...


async def tell_quality(
    edge: str,
    read: Callable[[], Awaitable[dict[str, Any]]],
    make_topic: Callable[[], Awaitable[None]],
    send: Send,
    *,
    look_seconds: float = LOOK_SECONDS,
) -> NoReturn:
    """Tell how good the answers are whenever that has changed, once a minute at most; best effort.

    Args:
        edge: the edge whose answers these are.
        read: returns the accuracy; Transient where it cannot be told.
        make_topic: makes the topic if it is not there.
        send: sends one message.
        look_seconds: between two looks.

    """
    clock = asyncio.get_running_loop().time
    told: dict[str, Any] | None = None
    again = 0.0
    while True:
        with telemetry.best_effort(SINK):
            current = await read()
            _measure(current)
            if current != told or clock() >= again:
                at = times.now()
                await make_topic()
                await send(EDGE_STATUS, to_json({"at": at, **current}), key=answers_key(edge))
                told, again = current, clock() + AGAIN_SECONDS
        await asyncio.sleep(look_seconds)


def _measure(current: dict[str, Any]) -> None:
    for bound in ("low", "accuracy", "high"):
        if current[bound] is not None:
            metrics.ACCURACY.labels(bound).set(current[bound])
