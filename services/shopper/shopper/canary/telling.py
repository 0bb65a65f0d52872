"""Tells central what a comparison of versions showed so far, on Kafka `edge-status`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import NoReturn

from caravan import telemetry
from caravan.contracts import EDGE_STATUS, evidence_key
from caravan.evidence import write
from shopper.canary.notes import Comparison
from shopper.quality.telling import SINK, Send

TELL_SECONDS = 5.0


async def tell_evidence(
    edge: str,
    stand: Callable[[], Awaitable[Comparison | None]],
    make_topic: Callable[[], Awaitable[None]],
    send: Send,
    *,
    tell_seconds: float = TELL_SECONDS,
) -> NoReturn:
    """Tell all counts whenever they have changed, every few seconds at most; best effort.

    Args:
        edge: the edge at which versions are compared.
        stand: returns the comparison as it stands; Transient where it cannot be told.
        make_topic: makes the topic if it is not there.
        send: sends one message.
        tell_seconds: between two messages.

    """
    told: Comparison | None = None
    while True:
        with telemetry.best_effort(SINK):
            comparison = await stand()
            if comparison is not None and comparison != told:
                seen = comparison.evidence
                at = datetime.now(UTC).isoformat(timespec="seconds")
                await make_topic()
                await send(
                    EDGE_STATUS, write(seen, at, comparison.outcome), key=evidence_key(edge, seen.model)
                )
                told = comparison
        await asyncio.sleep(tell_seconds)
