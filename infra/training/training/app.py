"""Where the listener is wired together. TensorFlow is in its children, never here."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from uuid import uuid4

from caravan import http, kafka, locks, s3, telemetry
from caravan.contracts import (
    central_buckets,
    data_bucket,
    events_topic,
    group_buckets,
    ready_bucket,
    training_event,
)
from caravan.intake import Senders
from caravan.retry import forever
from caravan.runtime import Service
from training.children import Children
from training.doors import triggers
from training.exporter import ExporterProcess
from training.markers import Markers
from training.routes import training_run
from training.runs import TRAINING_RUN, Runs
from training.settings import TrainingSettings
from training.sharing import unsettled


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
            for member in settings.edge_groups.get(edge, (edge,)):
                with telemetry.best_effort("kafka-events"):
                    await producer.send(events_topic(member), json.dumps(event).encode())

        markers = Markers(settings.state_dir)
        markers.hand_over(settings.edges, settings.edge_groups)
        runs = Runs(markers, children.run, tell)

        ready = {edge: s3.open_bucket(settings.central, ready_bucket(edge)) for edge in settings.edges}

        async def prepare() -> None:
            await kafka.ensure_topics(settings, [events_topic(edge) for edge in settings.edges])
            buckets = [bucket for edge in settings.edges for bucket in central_buckets(edge)]
            buckets += [bucket for group in settings.edge_groups for bucket in group_buckets(group)]
            await s3.ensure_buckets(settings.central, buckets)
            for owner in await unsettled(ready, settings.edge_groups, settings.model_name):
                await runs.accept(owner, str(uuid4()))
            if settings.warm_exporter:
                await exporter.start()
            await asyncio.Event().wait()  # A loop of a service does not end.

        app = triggers.build(settings.edges, settings.edge_groups, runs, settings.namespace)
        checks: dict[str, http.Check] = {
            "kafka": producer.ping,
            "s3": partial(s3.ping_any, settings.central, [*map(data_bucket, settings.edges)]),
        }
        http.install(app, checks, Senders(settings.doors))
        loops = {
            f"{TRAINING_RUN.id}-{n + 1}": partial(training_run, runs) for n in range(settings.runs_at_once)
        }
        yield Service(app, loops | {"prepare": partial(forever, "prepare", prepare)})
