"""Where the shopper is wired together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import aiomqtt
import grpc
import httpx
from obstore.store import ObjectStore

from caravan import kafka, locks, s3
from caravan.consume import Consumption, consume
from caravan.contracts import (
    DATA,
    EDGE_METRICS,
    EDGE_STATUS,
    MONITOR,
    PRODUCTION,
    UNCLASSIFIED,
    VALID,
    dead_letter,
    detections_topic,
    images_topic,
)
from caravan.decoding import Decoding
from caravan.images import ImageBounds
from caravan.intake import Senders
from caravan.mqtt import Mqtt
from caravan.retry import forever
from caravan.runtime import Service
from caravan.sessions import Sessions
from caravan.tls import verifying
from shopper import routes
from shopper.catalogue_file import CatalogueFile
from shopper.doors import http, page, reports, review
from shopper.doors.codecs import Json, Tensor
from shopper.doors.encoding import json_limit
from shopper.doors.kafka import KafkaDoor, policy
from shopper.doors.mqtt import Binding, MqttDoor
from shopper.doors.relay import EventRelay
from shopper.doors.topics import DETECTION, DETECTION_REPLIES, Topics
from shopper.images.budget import MemoryBudget
from shopper.images.limits import ImageLimits
from shopper.model.class_names import ClassNames
from shopper.model.models import Models
from shopper.model.preparing import Preparing
from shopper.model.tfserving import TfServing, open_channel
from shopper.quality.telling import tell_quality
from shopper.review.review_queue import ReviewQueue
from shopper.scoring.journal import Journal
from shopper.scoring.outbox import ScoringOutbox
from shopper.settings import ShopperSettings
from shopper.storage.counts import TrainingCounts
from shopper.storage.feeder import FeederClient
from shopper.storage.image_store import BufferedImageStore
from shopper.storage.push import TrainingPush
from shopper.storage.spool import ImageSpool

BUCKETS = (DATA, VALID, UNCLASSIFIED)


@asynccontextmanager
async def wire(settings: ShopperSettings) -> AsyncIterator[Service]:
    """Make the clients, the doors and the loops; close the clients at the end."""
    async with AsyncExitStack() as stack:
        stack.enter_context(locks.held(settings.spool, "SPOOL_DIR"))
        producer = await stack.enter_async_context(kafka.Producer(settings))
        scoring = await stack.enter_async_context(_scoring(settings, producer))
        channel = await stack.enter_async_context(
            open_channel(settings.tfserving_grpc, settings.tfserving_ca)
        )
        tokens, token = await asyncio.to_thread(lambda: (settings.door, settings.token_to_show))
        verify = await asyncio.to_thread(verifying, settings.feeder_url, settings.feeder_ca)
        client = await stack.enter_async_context(httpx.AsyncClient(verify=verify))

        catalogue_file = await asyncio.to_thread(CatalogueFile, settings.catalogue)
        stores = {name: s3.open_bucket(settings.edge_s3, name) for name in BUCKETS}
        production = s3.open_bucket(settings.edge_s3, PRODUCTION)
        make_buckets = partial(s3.ensure_buckets, settings.edge_s3, BUCKETS)
        spool = await ImageSpool.opened(settings.spool, settings.max_spool_bytes)
        image_store = BufferedImageStore(stores, make_buckets, spool, settings.keep_seconds)
        senders = Senders(settings.doors)
        # A share for MQTT, which HTTP's senders cannot take.
        of_mqtt = settings.max_memory_bytes // 4
        bodies = MemoryBudget(settings.max_memory_bytes - of_mqtt, make_room=senders.make_room)
        decoding = MemoryBudget(settings.max_memory_bytes)
        bounds = ImageBounds(settings.max_image_bytes, settings.max_pixels)
        limits = ImageLimits(Decoding(settings.decodes_at_once, settings.decode_seconds, bounds), decoding)
        models = _models(settings, channel, limits, production, token)

        relay = EventRelay()

        async def receive(message: aiomqtt.Message) -> None:
            if message.topic.value == MONITOR and isinstance(message.payload, bytes):
                if not message.retain:  # pages are told what happens, not what happened once
                    relay.receive(message.payload)
            else:
                await mqtt_door.receive(message)

        bindings = _bindings(settings)
        mqtt = Mqtt(settings, [binding.topics.requests for binding in bindings], receive)
        detect = partial(
            routes.detect,
            limits=limits,
            classifier=models,
            catalogue_file=catalogue_file,
            score_accuracy=settings.accuracy_of,
            image_store=image_store,
            record=scoring.record,
            post=mqtt.post,
        )
        push = TrainingPush(
            stores[DATA],
            FeederClient(client, settings.feeder_url, settings.edge, settings.push_seconds),
            mqtt.post,
            scratch=settings.spool,
            max_bytes=settings.max_zip_bytes,
            max_images=settings.max_zip_images,
        )
        mqtt_door = MqttDoor(
            bindings,
            detect,
            mqtt.publish,
            MemoryBudget(of_mqtt),
            decoding,
            max_payload=json_limit(settings.max_image_bytes),
            concurrency=settings.mqtt_concurrency,
            waiting=settings.mqtt_waiting,
        )
        # An answer has the headers of its request, and no other.
        answer = partial(producer.send, traced=False)
        kafka_door = KafkaDoor(
            detect, answer, detections_topic(settings.edge), patience=settings.kafka_retry_seconds / 2
        )
        images = Consumption(routes.DETECT_KAFKA.id, partial(_consume, settings, producer, kafka_door))

        sessions = Sessions(tokens, f"shopper_{settings.edge}")
        app = http.make_app(
            detect=detect,
            ingest=partial(
                routes.ingest,
                limits=limits,
                catalogue_file=catalogue_file,
                image_store=image_store,
                post=mqtt.post,
            ),
            push=push,
            catalogue_file=catalogue_file,
            bodies=bodies,
            max_image_bytes=settings.max_image_bytes,
            checks={
                "model-server": models.ping,
                "s3": partial(s3.ping, settings.edge_s3, DATA),
                "mqtt": mqtt.ping,
                routes.DETECT_KAFKA.id: images.ping,
            },
            sessions=sessions,
            senders=senders,
        )
        count = TrainingCounts(stores[DATA], catalogue_file)
        page.install(app, page=settings.page, sessions=sessions, relay=relay, count=count)
        reports.install(app, production, sessions)
        queue = ReviewQueue(stores, settings.model_name, settings.certain_score, scoring)
        review.install(
            app, sessions=sessions, queue=queue, catalogue_file=catalogue_file, limits=limits, post=mqtt.post
        )

        loops: dict[str, Callable[[], Awaitable[None]]] = {
            "mqtt": mqtt.run,
            "events": partial(mqtt.drain, MONITOR),
            "pages": partial(
                relay.follow, partial(mqtt.subscribe, MONITOR), partial(mqtt.unsubscribe, MONITOR)
            ),
            routes.DETECT_MQTT.id: mqtt_door.serve,
            "catalogue": catalogue_file.watch,
            "buckets": partial(forever, "buckets", partial(s3.keep_buckets, settings.edge_s3, BUCKETS)),
            "spool": image_store.drain,
            "push": push.run,
            "scoring": scoring.write,
            "windows": scoring.close_windows,
            "drift": partial(scoring.watch, limits.look),
            routes.EDGE_METRICS.id: partial(routes.edge_metrics, scoring.send),
        }
        if settings.audits_per_week:
            loops["quality"] = partial(
                tell_quality,
                settings.edge,
                partial(scoring.accuracy, lambda item: catalogue_file.catalogue.product(item).label),
                partial(kafka.ensure_topics, settings, [EDGE_STATUS]),
                producer.send,
            )
        if settings.kafka_detection:
            loops[routes.DETECT_KAFKA.id] = images.run
        yield Service(app, loops, on_stop=relay.close)


def _models(
    settings: ShopperSettings,
    channel: grpc.aio.Channel,
    limits: ImageLimits,
    production: ObjectStore,
    token: str,
) -> Models:
    configured = {model: options.classes for model, options in settings.models.items()}
    names = ClassNames(partial(s3.read, production), configured)

    def served(model: str) -> TfServing:
        options = settings.options_of(model)
        preparing = Preparing(limits, options.scale or settings.tensor_scale, options.size)
        return TfServing(channel, model, preparing, names.of, within=settings.predict_seconds, token=token)

    return Models(served, settings.model_name)


def _bindings(settings: ShopperSettings) -> list[Binding]:
    tensors = Tensor(json_limit(settings.max_image_bytes), settings.max_pixels)
    return [
        Binding(Topics(DETECTION, DETECTION_REPLIES), Json()),
        *(Binding(topics, tensors) for topics in settings.tensor_topics),
    ]


async def _consume(settings: ShopperSettings, producer: kafka.Producer, door: KafkaDoor) -> None:
    images = images_topic(settings.edge)
    await kafka.ensure_topics(settings, [images, detections_topic(settings.edge), dead_letter(images)])
    send_dead_letter = partial(kafka.send_dead_letter, producer, routes.DETECT_KAFKA.id)
    how = policy(settings.kafka_concurrency, settings.kafka_retry_seconds)
    async with kafka.consumer(settings, images, group=settings.group) as source:
        await consume(source, door.handle, send_dead_letter, how)


def _scoring(settings: ShopperSettings, producer: kafka.Producer) -> ScoringOutbox:
    return ScoringOutbox(
        partial(
            Journal,
            settings.spool,
            settings.edge,
            settings.window_seconds,
            settings.certain_score,
            settings.max_scoring_bytes,
            audits_per_week=settings.audits_per_week,
        ),
        producer.send,
        partial(kafka.ensure_topics, settings, [EDGE_METRICS]),
        certain_score=settings.certain_score,
        audited_model=settings.model_name,
        window_seconds=settings.window_seconds,
        max_message_bytes=settings.kafka_max_message_bytes,
    )
