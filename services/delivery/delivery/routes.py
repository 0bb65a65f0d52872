"""The route of the delivery service."""

from __future__ import annotations

import asyncio
from typing import NoReturn, Protocol

import structlog
from aiokafka import AIOKafkaConsumer
from prometheus_client import Gauge

from caravan import telemetry, tracing
from caravan.contracts import is_edge_id
from caravan.errors import Permanent, Transient
from caravan.kafka import PutAside, trace_of
from delivery.triggers import Trigger, Triggers

log = structlog.get_logger()

WAITING = Gauge("caravan_triggers_waiting", "Edges whose trigger waits for the EventListener")

ROUTE = "trigger-pipeline"
POLL_SECONDS = 1.0


class Listener(Protocol):
    """Starts a training run."""

    async def start_run(self, edge: str) -> str:
        """Return the event's id."""
        ...


async def trigger_pipeline(
    source: AIOKafkaConsumer, listener: Listener, put_aside: PutAside, triggers: Triggers
) -> NoReturn:
    """FROM Kafka `trigger` → one waiting trigger per edge → TO the EventListener → commit.

    Mandatory: the listener's 2xx, or the dead letter of what it refuses. Offsets are committed only when
    no trigger waits, so a crash at any line brings the waiting ones back; a repeat asks for a run that
    finds nothing new to train. While the listener is away, triggers go on being taken and joined.
    """
    clock = asyncio.get_running_loop().time
    while True:
        wait = triggers.next_due(clock(), at_most=POLL_SECONDS)
        batch = await source.getmany(timeout_ms=int(wait * 1000))
        for record in (record for records in batch.values() for record in records):
            edge = (record.value or b"").decode(errors="replace").strip()
            if is_edge_id(edge):
                triggers.add(edge, record, clock())
            else:
                await put_aside(record, "the value is not an edge id", "not-an-edge")
        WAITING.set(len(triggers.waiting))
        due = triggers.due(clock())
        for trigger in due:
            await _deliver(trigger, listener, put_aside, triggers)
        WAITING.set(len(triggers.waiting))
        if (batch or due) and not triggers.waiting:
            await source.commit()


async def _deliver(trigger: Trigger, listener: Listener, put_aside: PutAside, triggers: Triggers) -> None:
    try:
        with tracing.following(trace_of(trigger.latest)), telemetry.exchange(ROUTE):
            tracing.note(edge=trigger.edge, joined=trigger.count)
            for trace in trigger.joined:
                tracing.link(trace)
            event = await listener.start_run(trigger.edge)
            log.info("run asked for", edge=trigger.edge, joined=trigger.count, event_id=event)
    except Transient as exc:
        triggers.failed(trigger, asyncio.get_running_loop().time())
        telemetry.RETRIES.labels("eventlistener").inc()
        log.warning("run put off", edge=trigger.edge, failures=trigger.failures, error=str(exc))
        return
    except Permanent as exc:
        await put_aside(trigger.latest, str(exc))
    triggers.done(trigger)
