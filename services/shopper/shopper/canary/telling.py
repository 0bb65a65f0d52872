"""Tells central what a comparison of versions showed so far: Kafka `edge-status`, pictures `edge-metrics`."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable
from typing import NoReturn

from caravan import telemetry, times
from caravan.contracts import EDGE_METRICS, EDGE_STATUS, evidence_key, to_json
from caravan.evidence import Differing, Evidence, Finding, write
from shopper.canary.notes import Comparison
from shopper.quality.telling import SINK, Send

TELL_SECONDS = 5.0
AGAIN_SECONDS = 3600.0
"""Seconds after which all is told again, changed or not: a hub that starts reads what came of late."""
CAMERA = "canary"
"""Camera in the message with a picture: its own was told with the image's detection."""


async def tell_evidence(
    edge: str,
    stand: Callable[[], Awaitable[Comparison | None]],
    picture: Callable[[str], Awaitable[bytes]],
    make_topics: Callable[[], Awaitable[None]],
    send: Send,
    *,
    tell_seconds: float = TELL_SECONDS,
    again_seconds: float = AGAIN_SECONDS,
) -> NoReturn:
    """Tell all counts whenever they have changed, every few seconds at most; best effort.

    A picture goes before the word that names it.

    Args:
        edge: the edge at which versions are compared.
        stand: returns the comparison as it stands; Transient where it cannot be told.
        picture: returns the picture of an image by its id, as late as it is sent; Transient likewise.
        make_topics: makes the topics if they are not there.
        send: sends one message.
        tell_seconds: between two messages.
        again_seconds: after which all is told again.

    """
    clock = asyncio.get_running_loop().time
    told: Finding | None = None
    sent: set[str] = set()
    again = clock() + again_seconds
    while True:
        with telemetry.best_effort(SINK):
            comparison = await stand()
            if clock() >= again:
                told, sent, again = None, set(), clock() + again_seconds
            if comparison is not None and comparison.finding != told:
                finding = comparison.finding
                at = times.now()
                await make_topics()
                for each in finding.differing:
                    if each.id not in sent:
                        value = picture_message(edge, finding.evidence, each, await picture(each.id), at)
                        await send(EDGE_METRICS, value, key=CAMERA.encode())
                        sent.add(each.id)
                sent &= {each.id for each in finding.differing}
                await send(EDGE_STATUS, write(finding, at), key=evidence_key(edge, finding.evidence.model))
                told = finding
        await asyncio.sleep(tell_seconds)


def picture_message(edge: str, seen: Evidence, found: Differing, picture: bytes, at: str) -> bytes:
    """Return an image where versions differ, for `edge-metrics`: an uncertain one that `differs`.

    Whoever does not know `differs` shows it as one that the new version was unsure of.
    """
    body = {
        "image": base64.b64encode(picture).decode() if picture else None,
        "id": found.id,
        "edge": edge,
        "result_class": found.item,
        "result_probability": found.score,
        "predictions": [found.score],
        "classes": [found.item],
        "camera": CAMERA,
        "timestamp_str": at,
        "predict_time": 0.0,
        "prep_time": 0.0,
        "model": seen.model,
        "model_version": seen.version,
        "differs": {"item": found.beside_item, "score": found.beside_score, "version": seen.beside},
    }
    return to_json({"uncertain_metrics_json": to_json(body).decode()})
