"""The route of the delivery service."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Protocol

import structlog
from aiokafka import ConsumerRecord
from prometheus_client import Gauge

from caravan import tracing
from caravan.aggregate import Aggregator
from caravan.consume import Effect, Park, Policy, Source, consume
from caravan.contracts import is_edge_id
from caravan.dead_letters import SendDeadLetter
from caravan.errors import BadInput
from caravan.kafka import trace_of
from caravan.route import Route

log = structlog.get_logger()

WAITING = Gauge("caravan_triggers_waiting", "Edges whose trigger waits for the EventListener")

LISTENER = "eventlistener"
TRIGGER_PIPELINE = Route(
    "trigger-pipeline",
    source="Kafka `trigger`",
    mandatory="the 2xx of HTTP `training`, or of another EventListener; or, of one that waits too long, "
    "the same on Kafka `trigger` again; or the dead letter of what is refused or too old",
)
ROUTES = (TRIGGER_PIPELINE,)

EDGES_IN_FLIGHT = 1000
TRY_SECONDS = 30.0
"""Seconds for which a run is requested before its trigger is parked at the end of the topic."""


class Listener(Protocol):
    """Starts a training run."""

    async def start_run(self, edge: str) -> str:
        """Return the event's id."""
        ...


def policy(max_age: float, tried: float = TRY_SECONDS) -> Policy:
    """Return how `trigger-pipeline` consumes: a run is asked for until its trigger is so many seconds old."""
    return Policy(
        route=TRIGGER_PIPELINE.id,
        sink=LISTENER,
        at_once=EDGES_IN_FLIGHT,
        in_flight=EDGES_IN_FLIGHT,
        within=tried,
        then="park",
        age=max_age,
        gathers=True,
    )


async def trigger_pipeline(
    source: Source,
    listener: Listener,
    send_dead_letter: SendDeadLetter,
    park: Park,
    policy: Policy,
    *,
    coalesce_seconds: float,
) -> None:
    """FROM Kafka `trigger` → one waiting trigger per edge → TO the EventListener → commit.

    Of several triggers of one edge the last one stands for all. A repeat asks for a run that finds nothing
    new to train.
    """

    async def start_run(edge: str, triggers: Sequence[ConsumerRecord]) -> None:
        tracing.note(edge=edge, joined=len(triggers))
        event = await listener.start_run(edge)
        log.info("run asked for", edge=edge, joined=len(triggers), event_id=event)

    async def handle(record: ConsumerRecord) -> Effect:
        edge = (record.value or b"").decode(errors="replace").strip()
        if not is_edge_id(edge):
            raise BadInput("the value is not an edge id", reason="not-an-edge")
        return partial(waiting.add, edge, record, trace=trace_of(record))

    waiting = Aggregator[str, ConsumerRecord](
        TRIGGER_PIPELINE.id, LISTENER, start_run, within=policy.within, age=coalesce_seconds, coalesces=True
    )
    WAITING.set_function(lambda: waiting.keys)
    async with waiting:
        await consume(source, handle, send_dead_letter, policy, park)
