"""How things stand at this edge, in one document: for who asks here, and told to central, which cannot."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NoReturn

import structlog

from caravan import retry, telemetry, times
from caravan.contracts import to_json
from caravan.errors import CaravanError
from edge_manager.edge import Edge
from edge_manager.known import Known
from edge_manager.versions import Ref

log = structlog.get_logger()

SCHEMA = 1
LOOK_SECONDS = 1.0
SINK = "edge-status"

Send = Callable[[bytes], Awaitable[None]]


def versions(edge: Edge, name: str) -> dict[str, Any]:
    """Return for each model what serves and since when, what is here, what is offered, what was refused.

    And where versions are compared, which one the shopper trusts.
    """
    known = edge.known
    refused = known.fingerprints_refused(edge.clock())
    trusted = known.trusted if edge.rules.compares else {}
    return {
        "edge": name,
        "central": known.central_fault or "ok",
        "model_server": known.server_fault or "ok",
        "models": {
            model: {**_model(known, model, refused), "trusted": trusted.get(model)}
            for model in sorted(known.models)
        },
    }


async def tell_status(edge: Edge, name: str, send: Send, every: float) -> NoReturn:
    """Tell central how things stand, when that changes and every so many seconds; best effort.

    Args:
        edge: what is told of.
        name: its id.
        send: sends one message to Kafka `edge-status`.
        every: seconds.

    """
    loop = asyncio.get_running_loop()
    told: dict[str, Any] | None = None
    again = 0.0
    failures = 0
    while True:
        current = versions(edge, name)
        # Before the first round nothing is known, which is not the same as that nothing is there.
        if edge.known.is_seen and (current != told or loop.time() >= again):
            try:
                await send(to_json({"schema": SCHEMA, "at": times.now(), **current}))
            except CaravanError as exc:
                telemetry.BEST_EFFORT_FAILURES.labels(SINK).inc()
                if not failures:
                    log.warning("central is not told how things stand; the next may be", error=str(exc))
                failures += 1
                await asyncio.sleep(retry.pause(failures))
            else:
                told, again, failures = current, loop.time() + every, 0
        await asyncio.sleep(LOOK_SECONDS)


def _model(known: Known, name: str, refused: Mapping[Ref, str]) -> dict[str, Any]:
    model = known.models[name]
    since = known.served.get(Ref(name, model.serving))
    return {
        "serving": model.serving or None,
        "serving_since": None if since is None else since.isoformat(timespec="seconds"),
        "fault": model.trouble,
        "at_edge": sorted(model.at_edge),
        "newest_ready": model.ready(refused) or None,
        "waiting": [
            {"version": version, "reason": reason} for version, reason in sorted(model.waiting.items())
        ],
        "refused": [
            {
                "version": ref.version,
                "cause": why.cause,
                "reason": why.reason,
                "at": why.at,
                "tried_again": why.may_pass,
            }
            for ref, why in sorted(known.refused.items())
            if ref.model == name
        ],
    }
