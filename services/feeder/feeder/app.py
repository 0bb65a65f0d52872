"""Where the feeder is wired together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from fastapi import FastAPI
from obstore.store import ObjectStore

from caravan import dead_letters, http, kafka, kafka_topics, locks, s3
from caravan.consume import Consumption, Source
from caravan.contracts import (
    TRAINING_IMAGES,
    TRAINING_IMAGES_RETRY,
    data_bucket,
    dead_letter,
    models_bucket,
)
from caravan.decoding import Decoding
from caravan.images import ImageBounds
from caravan.intake import Senders
from caravan.model_zips import ModelZipLimits
from caravan.runtime import Service
from feeder import labels
from feeder.archive import Limits
from feeder.buckets import DataBuckets
from feeder.checks import BatchBounds, Checks
from feeder.concurrency import KeyedLock
from feeder.doors import models as model_door
from feeder.doors import zips
from feeder.events import MessageProducer
from feeder.models import ModelBuckets, ModelChecks
from feeder.preparation import Preparation
from feeder.routes import (
    KAFKA_INTAKE,
    PARKED_INTAKE,
    IntakePorts,
    feed,
    kafka_intake,
    model_upload,
    parked_intake,
    zip_upload,
)
from feeder.settings import FeederSettings
from feeder.spool import SpoolLimits, UploadSpool
from feeder.stores import Stores

INTAKE_TOPICS = (TRAINING_IMAGES, TRAINING_IMAGES_RETRY, dead_letter(TRAINING_IMAGES))

Intake = Callable[[Source, IntakePorts, FeederSettings], Awaitable[None]]


@asynccontextmanager
async def wire(settings: FeederSettings) -> AsyncIterator[Service]:
    """Make the clients, the web app and the loop; close the clients at the end."""
    async with AsyncExitStack() as stack:
        if settings.spool_dir is not None:
            stack.enter_context(locks.held(settings.spool_dir, "SPOOL_DIR"))
        producer = await stack.enter_async_context(kafka.Producer(settings))
        pool = stack.enter_context(ThreadPoolExecutor(settings.checks_at_once, "check"))
        stores = {edge: s3.open_bucket(settings.central, data_bucket(edge)) for edge in settings.edges}
        owners = [*settings.edges, *settings.sharing]
        models = {owner: s3.open_bucket(settings.central, models_bucket(owner)) for owner in owners}
        preparation = Preparation(settings)
        of_kafka = decoding(settings, at_once=1)

        def intake(route: str, run: Intake, topic: str, group: str) -> Consumption:
            # Stores of its own: what is stuck in one of the loops is in nobody's way.
            buckets = data_buckets(settings, stores, preparation.missing)
            ports = IntakePorts(
                partial(labels.read, edges=settings.edges, verify=of_kafka.verify),
                partial(feed, buckets=buckets, producer=producer, retry_seconds=settings.retry_seconds),
                partial(dead_letters.send_dead_letter, producer, route),
                partial(dead_letters.park, producer, TRAINING_IMAGES_RETRY),
            )

            async def attempt() -> None:
                await kafka_topics.ensure_topics(settings, INTAKE_TOPICS)
                async with kafka.consumer(settings, topic, group=group) as source:
                    await run(source, ports, settings)

            return Consumption(route, attempt)

        group = settings.kafka_group
        intakes = [
            intake(KAFKA_INTAKE.id, kafka_intake, TRAINING_IMAGES, group),
            intake(PARKED_INTAKE.id, parked_intake, TRAINING_IMAGES_RETRY, f"{group}-retry"),
        ]
        checks: dict[str, http.Check] = {
            "s3": partial(s3.ping_any, settings.central, [*map(data_bucket, settings.edges)]),
            "kafka": producer.ping,
            "buckets": preparation.check,
            **{intake.route: intake.ping for intake in intakes},
        }
        app = make_app(
            settings, stores, models, producer, missing=preparation.missing, pool=pool, checks=checks
        )
        loops: dict[str, Callable[[], Awaitable[None]]] = {
            "prepare": preparation.run,
            **{intake.route: intake.run for intake in intakes},
        }
        yield Service(app, loops)


def make_app(
    settings: FeederSettings,
    stores: Mapping[str, ObjectStore],
    models: Mapping[str, ObjectStore],
    producer: MessageProducer,
    *,
    missing: Mapping[str, asyncio.Event],
    pool: Executor,
    checks: Mapping[str, http.Check],
) -> FastAPI:
    """Make the web app of the given parts.

    Args:
        settings: its limits.
        stores: the data bucket of each edge.
        models: the models bucket of each edge, and of each group of edges.
        producer: Kafka.
        missing: events per edge and group, set as long as its buckets or topics are not there.
        pool: threads in which archives are unpacked.
        checks: checks of `/readyz`, by name.

    """
    spool = UploadSpool(
        settings.spool_dir,
        SpoolLimits(
            settings.max_upload_bytes,
            settings.max_spool_bytes,
            settings.min_free_bytes,
        ),
    )
    limits = Limits(settings.max_entries, settings.max_entry_bytes, settings.max_unpacked_bytes)
    model_buckets = ModelBuckets(Stores(models, missing, settings.retry_seconds))
    app = FastAPI(title="Caravan feeder", openapi_url=None)
    http.install(app, checks, Senders(settings.doors))
    zips.install(
        app,
        settings.edges,
        partial(
            zip_upload,
            spool=spool,
            locks=KeyedLock(
                settings.uploads_at_once,
                of_one=max(1, settings.uploads_at_once // min(2, len(settings.edges))),
            ),
            checks=Checks(
                pool,
                decoding(settings, at_once=settings.checks_at_once),
                settings.checks_at_once,
                limits=limits,
                bounds=BatchBounds(
                    settings.max_batch_pixels, settings.max_pixels_per_byte, settings.check_seconds
                ),
                buffer_bytes=settings.store_buffer_bytes,
            ),
            buckets=data_buckets(settings, stores, missing),
            producer=producer,
            retry_seconds=settings.retry_seconds,
        ),
    )
    model_door.install(
        app,
        [*settings.edges, *settings.sharing],
        partial(
            model_upload,
            spool=spool,
            locks=KeyedLock(settings.checks_at_once),
            checks=ModelChecks(pool, ModelZipLimits(settings.max_entries, settings.max_model_bytes)),
            buckets=model_buckets,
            groups=settings.sharing,
            producer=producer,
            retry_seconds=settings.retry_seconds,
        ),
        model_buckets,
    )
    return app


def data_buckets(
    settings: FeederSettings, stores: Mapping[str, ObjectStore], missing: Mapping[str, asyncio.Event]
) -> DataBuckets:
    """Make what a route stores its images with."""
    return DataBuckets(
        Stores(stores, missing, settings.retry_seconds),
        at_once=settings.stores_at_once,
        buffer_bytes=settings.store_buffer_bytes,
    )


def decoding(settings: FeederSettings, *, at_once: int) -> Decoding:
    """Make a share of the decoding."""
    bounds = ImageBounds(settings.max_entry_bytes, settings.max_pixels)
    return Decoding(at_once, settings.decode_seconds, bounds)
