"""Where the listener is wired together. TensorFlow is in its children, never here."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any
from uuid import uuid4

from caravan import http, kafka, kafka_topics, locks, s3, telemetry
from caravan.contracts import (
    EDGE_STATUS,
    central_buckets,
    data_bucket,
    events_topic,
    group_buckets,
    ready_bucket,
    rollout_key,
    training_event,
)
from caravan.groups import learners
from caravan.history import History, reader
from caravan.intake import Senders
from caravan.retry import forever
from caravan.rollout import Told
from caravan.runtime import Service
from training.children import Children, Ended
from training.doors import triggers
from training.events import Events
from training.exporter import ExporterProcess
from training.markers import Markers
from training.publish import read_key
from training.rolling import SILENT_SECONDS, Rolling
from training.routes import ROLLOUT, rollout, training_run
from training.runs import TRAINING_RUN, Runs
from training.settings import TrainingSettings
from training.sharing import unsettled
from training.stores import open_stores

BATCH = 1000
MOST_MESSAGES = 1_000_000
"""Messages of edges that are read again at a start; a hundred edges say so many in a week."""


@asynccontextmanager
async def wire(settings: TrainingSettings) -> AsyncIterator[Service]:
    """Make the queue, the children, the web app and the loops; leave no process behind."""
    async with AsyncExitStack() as stack:
        stack.enter_context(locks.held(settings.state_dir, "STATE_DIR"))
        stack.enter_context(locks.held(settings.work_dir, "WORK_DIR"))
        producer = await stack.enter_async_context(kafka.Producer(settings))
        exporter = await stack.enter_async_context(ExporterProcess(settings.cache_dir))
        children = await stack.enter_async_context(
            Children(
                warm=settings.warm_worker,
                seconds=settings.run_seconds,
                ask=exporter.ask if settings.warm_exporter else None,
            )
        )

        async def tell(edge: str, run: str, reason: str) -> None:
            event = training_event("failed", 1, edge=edge, run=run, reason=reason)
            for member in settings.sharing.get(edge, (edge,)):
                with telemetry.best_effort("kafka-events"):
                    await producer.send(events_topic(member), json.dumps(event).encode())

        markers = Markers(settings.state_dir)
        markers.hand_over(settings.edges, settings.sharing)
        rolling = await stack.enter_async_context(_rolling(settings, producer))

        async def run(edge: str, run: str, heard: Callable[[dict[str, Any]], None]) -> Ended:
            ended = await children.run(edge, run, heard)
            if rolling is not None and edge in settings.sharing:
                rolling.look(edge)
            return ended

        groups, products = settings.edge_groups, settings.edge_products
        of_each = {name: learners(name, groups, products) for name in (*settings.edges, *groups)}
        # The group goes first: it embeds what is new, which they then find in the cache.
        behind = {owner: others[0] for others in of_each.values() for owner in others[1:]}
        runs = Runs(markers, run, tell, behind=behind)
        ready = {edge: s3.open_bucket(settings.central, ready_bucket(edge)) for edge in settings.edges}

        async def prepare() -> None:
            await kafka_topics.ensure_topics(settings, [events_topic(edge) for edge in settings.edges])
            buckets = [bucket for edge in settings.edges for bucket in central_buckets(edge)]
            buckets += [bucket for group in settings.edge_groups for bucket in group_buckets(group)]
            await s3.ensure_buckets(settings.central, buckets)
            unlike = await unsettled(ready, settings.sharing, settings.model_name)
            for owner in dict.fromkeys(owner for each in sorted(unlike) for owner in of_each[each]):
                await runs.accept(owner, str(uuid4()))
            if settings.warm_exporter:
                await exporter.start()
            await asyncio.Event().wait()  # A loop of a service does not end.

        app = triggers.build(of_each, runs, settings.namespace)
        checks: dict[str, http.Check] = {
            "kafka": producer.ping,
            "s3": partial(s3.ping_any, settings.central, [*map(data_bucket, settings.edges)]),
        }
        http.install(app, checks, Senders(settings.doors))
        loops: dict[str, Callable[[], Awaitable[None]]] = {
            f"{TRAINING_RUN.id}-{n + 1}": partial(training_run, runs) for n in range(settings.runs_at_once)
        }
        if rolling is not None:
            loops |= _rollouts(settings, rolling)
        yield Service(app, loops | {"prepare": partial(forever, "prepare", prepare)})


@asynccontextmanager
async def _rolling(settings: TrainingSettings, producer: kafka.Producer) -> AsyncIterator[Rolling | None]:
    """Make what carries rollouts on; None where versions go to all edges of a group at once."""
    if not settings.rollout or not settings.sharing:
        yield None
        return

    async def tell(told: Told) -> None:
        with telemetry.best_effort(EDGE_STATUS):
            await producer.send(EDGE_STATUS, told.to_json(), key=rollout_key(told.group, told.model))

    groups = {group: open_stores(settings, group) for group in settings.sharing}
    async with Events(producer.send, *settings.edges) as events:
        key = read_key(settings.signing_key)
        yield Rolling(groups, key, events.emit, tell, soak=settings.rollout_soak)


def _rollouts(settings: TrainingSettings, rolling: Rolling) -> dict[str, Callable[[], Awaitable[None]]]:
    """Return the loops: one reads what edges have said since the first rollout began, the other decides."""
    history = History(rolling.is_read.set)

    async def hear() -> None:
        await kafka_topics.ensure_topics(settings, [EDGE_STATUS])
        since = await rolling.begun() - SILENT_SECONDS
        async with reader(settings, [EDGE_STATUS], since, MOST_MESSAGES, history) as source:
            await rollout(kafka.batches(source, most=BATCH), history, rolling)

    return {
        ROLLOUT.id: partial(forever, ROLLOUT.id, hear),
        "rings": partial(forever, "rings", rolling.work),
    }
