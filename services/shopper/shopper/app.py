"""Where the shopper is wired together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

import grpc
import httpx
from obstore.store import ObjectStore

from caravan import dead_letters, kafka, kafka_topics, locks, s3
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
from shopper import detection, routes
from shopper.canary.canary import Canary
from shopper.canary.telling import tell_evidence
from shopper.catalogue_file import CatalogueFile
from shopper.doors import http, page, reports, review
from shopper.doors.codecs import Json, Tensor
from shopper.doors.encoding import json_limit
from shopper.doors.kafka import KafkaDoor, policy
from shopper.doors.mqtt import Exchange, Inbox, MqttDoor, Publish
from shopper.doors.relay import EventRelay
from shopper.doors.topics import DETECTION, DETECTION_REPLIES, Topics
from shopper.images.budget import MemoryBudget
from shopper.images.limits import ImageLimits
from shopper.model.class_names import ClassNames, is_rollback
from shopper.model.models import Models
from shopper.model.preparing import Preparing
from shopper.model.tfserving import TfServing, open_channel
from shopper.ports import Photo, Picture, Post
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
Loops = dict[str, Callable[[], Awaitable[None]]]


@dataclass(frozen=True)
class _Clients:
    """What talks to other processes; closed in the reverse of this order."""

    producer: kafka.Producer
    scoring: ScoringOutbox
    channel: grpc.aio.Channel
    http: httpx.AsyncClient


@dataclass(frozen=True)
class _Images:
    """What images need: memory, decoding, buckets, and the store that keeps them.

    MQTT has a share of the memory for bodies, which HTTP's senders cannot take.
    """

    senders: Senders
    http_bodies: MemoryBudget
    mqtt_bodies: MemoryBudget
    decoding: MemoryBudget
    limits: ImageLimits
    buckets: Mapping[str, ObjectStore]
    store: BufferedImageStore


@asynccontextmanager
async def wire(settings: ShopperSettings) -> AsyncIterator[Service]:
    """Make the clients, the doors and the loops; close the clients at the end."""
    async with AsyncExitStack() as stack:
        stack.enter_context(locks.held(settings.spool, "SPOOL_DIR"))
        clients = await _clients(settings, stack)
        tokens, token = await asyncio.to_thread(lambda: (settings.door, settings.token_to_show))
        sessions = Sessions(tokens, f"shopper_{settings.edge}")
        catalogue_file = await asyncio.to_thread(CatalogueFile, settings.catalogue)
        production = s3.open_bucket(settings.edge_s3, PRODUCTION)
        images = await _images(settings)
        bindings = _bindings(settings)
        relay = EventRelay()
        inbox = Inbox(relay.receive)
        mqtt = Mqtt(settings, [binding.topics.requests for binding in bindings], inbox.receive)
        serve = _serving(settings, clients.channel, images.limits, production, token)
        canary = _canary(
            settings, serve, clients.scoring, production, shrink=images.limits.picture, post=mqtt.post
        )
        models = Models(
            lambda model: canary if canary and model == settings.model_name else serve(model, 0),
            settings.model_name,
        )
        detect = partial(
            routes.detect,
            limits=images.limits,
            classifier=models,
            catalogue_file=catalogue_file,
            score_accuracy=settings.accuracy_of,
            image_store=images.store,
            record=clients.scoring.record,
            post=mqtt.post,
            compare=canary.compare if canary else detection.alone,
        )
        mqtt_door = _mqtt_door(settings, images, bindings, detect, mqtt.publish)
        inbox.detections = mqtt_door.receive
        kafka_door = _kafka_door(settings, detect, clients.producer)
        consumption = Consumption(
            routes.DETECT_KAFKA.id, partial(_consume, settings, clients.producer, kafka_door)
        )
        push = _push(settings, images.buckets[DATA], clients.http, mqtt.post)

        app = http.make_app(
            detect=detect,
            ingest=partial(
                routes.ingest,
                limits=images.limits,
                catalogue_file=catalogue_file,
                image_store=images.store,
                post=mqtt.post,
            ),
            push=push,
            catalogue_file=catalogue_file,
            bodies=images.http_bodies,
            max_image_bytes=settings.max_image_bytes,
            checks={
                "model-server": models.ping,
                "s3": partial(s3.ping, settings.edge_s3, DATA),
                "mqtt": mqtt.ping,
                routes.DETECT_KAFKA.id: consumption.ping,
            },
            sessions=sessions,
            senders=images.senders,
        )
        page.install(
            app,
            page=settings.page,
            sessions=sessions,
            relay=relay,
            count=TrainingCounts(images.buckets[DATA]),
            catalogue_file=catalogue_file,
        )
        reports.install(app, production, sessions)
        review.install(
            app,
            sessions=sessions,
            queue=ReviewQueue(images.buckets, settings.model_name, settings.certain_score, clients.scoring),
            catalogue_file=catalogue_file,
            limits=images.limits,
            post=mqtt.post,
        )

        loops: Loops = {
            "mqtt": mqtt.run,
            "events": partial(mqtt.drain, MONITOR),
            "pages": partial(
                relay.follow, partial(mqtt.subscribe, MONITOR), partial(mqtt.unsubscribe, MONITOR)
            ),
            routes.DETECT_MQTT.id: mqtt_door.serve,
            "catalogue": catalogue_file.watch,
            "buckets": partial(forever, "buckets", partial(s3.keep_buckets, settings.edge_s3, BUCKETS)),
            "spool": images.store.drain,
            "push": push.run,
            **_scoring_loops(settings, clients, images.limits, catalogue_file),
            **(_canary_loops(settings, clients, canary) if canary else {}),
        }
        if settings.kafka_detection:
            loops[routes.DETECT_KAFKA.id] = consumption.run
        yield Service(app, loops, on_stop=relay.close)


async def _clients(settings: ShopperSettings, stack: AsyncExitStack) -> _Clients:
    producer = await stack.enter_async_context(kafka.Producer(settings))
    scoring = await stack.enter_async_context(_scoring(settings, producer))
    channel = await stack.enter_async_context(open_channel(settings.tfserving_grpc, settings.tfserving_ca))
    verify = await asyncio.to_thread(verifying, settings.feeder_url, settings.feeder_ca)
    client = await stack.enter_async_context(httpx.AsyncClient(verify=verify))
    return _Clients(producer, scoring, channel, client)


async def _images(settings: ShopperSettings) -> _Images:
    senders = Senders(settings.doors)
    of_mqtt = settings.max_memory_bytes // 4
    decoding = MemoryBudget(settings.max_memory_bytes)
    bounds = ImageBounds(settings.max_image_bytes, settings.max_pixels)
    buckets = {name: s3.open_bucket(settings.edge_s3, name) for name in BUCKETS}
    spool = await ImageSpool.opened(settings.spool, settings.max_spool_bytes)
    make_buckets = partial(s3.ensure_buckets, settings.edge_s3, BUCKETS)
    return _Images(
        senders=senders,
        http_bodies=MemoryBudget(settings.max_memory_bytes - of_mqtt, make_room=senders.make_room),
        mqtt_bodies=MemoryBudget(of_mqtt),
        decoding=decoding,
        limits=ImageLimits(Decoding(settings.decodes_at_once, settings.decode_seconds, bounds), decoding),
        buckets=buckets,
        store=BufferedImageStore(buckets, make_buckets, spool, settings.keep_seconds),
    )


def _mqtt_door(
    settings: ShopperSettings,
    images: _Images,
    bindings: Sequence[Exchange],
    detect: http.Detect,
    publish: Publish,
) -> MqttDoor:
    return MqttDoor(
        bindings,
        detect,
        publish,
        images.mqtt_bodies,
        images.decoding,
        max_payload=json_limit(settings.max_image_bytes),
        concurrency=settings.mqtt_concurrency,
        waiting=settings.mqtt_waiting,
    )


def _kafka_door(settings: ShopperSettings, detect: http.Detect, producer: kafka.Producer) -> KafkaDoor:
    # An answer has the headers of its request, and no other.
    answer = partial(producer.send, traced=False)
    return KafkaDoor(
        detect, answer, detections_topic(settings.edge), patience=settings.kafka_retry_seconds / 2
    )


def _push(
    settings: ShopperSettings, data: ObjectStore, client: httpx.AsyncClient, post: Post
) -> TrainingPush:
    return TrainingPush(
        data,
        FeederClient(client, settings.feeder_url, settings.edge, settings.push_seconds),
        post,
        scratch=settings.spool,
        max_bytes=settings.max_zip_bytes,
        max_images=settings.max_zip_images,
    )


def _scoring_loops(
    settings: ShopperSettings, clients: _Clients, limits: ImageLimits, catalogue_file: CatalogueFile
) -> Loops:
    scoring = clients.scoring
    send = partial(routes.edge_metrics, scoring)
    loops: Loops = {
        "scoring": scoring.write,
        "windows": scoring.close_windows,
        "drift": partial(scoring.watch, limits.look),
        routes.EDGE_METRICS.id: partial(forever, routes.EDGE_METRICS.id, send),
    }
    if settings.audits_per_week:
        loops["quality"] = partial(
            tell_quality,
            settings.edge,
            partial(scoring.accuracy, lambda item: catalogue_file.catalogue.product(item).label),
            partial(kafka_topics.ensure_topics, settings, [EDGE_STATUS]),
            clients.producer.send,
        )
    return loops


def _serving(
    settings: ShopperSettings,
    channel: grpc.aio.Channel,
    limits: ImageLimits,
    production: ObjectStore,
    token: str,
) -> Callable[[str, int], TfServing]:
    """Return what makes a client of a model's version; of its newest for version 0."""
    configured = {model: options.classes for model, options in settings.models.items()}
    names = ClassNames(partial(s3.read, production), configured)

    def serve(model: str, version: int) -> TfServing:
        options = settings.options_of(model)
        preparing = Preparing(limits, options.scale or settings.tensor_scale, options.size)
        within = settings.predict_seconds
        return TfServing(channel, model, preparing, names.of, version=version, within=within, token=token)

    return serve


def _canary(
    settings: ShopperSettings,
    serve: Callable[[str, int], TfServing],
    scoring: ScoringOutbox,
    production: ObjectStore,
    *,
    shrink: Callable[[Picture | Photo], Awaitable[bytes]],
    post: Post,
) -> Canary | None:
    if not settings.canary:
        return None
    return Canary(
        settings.model_name,
        partial(serve, settings.model_name),
        settings.canary,
        score_accuracy=settings.accuracy_of(settings.model_name),
        on_disk=scoring.on_disk,
        shrink=shrink,
        is_rollback=partial(is_rollback, partial(s3.read, production), settings.model_name),
        post=post,
    )


def _canary_loops(settings: ShopperSettings, clients: _Clients, canary: Canary) -> Loops:
    make_topics = partial(kafka_topics.ensure_topics, settings, [EDGE_METRICS, EDGE_STATUS])
    return {
        "canary": canary.run,
        "versions": canary.watch,
        "trusted": canary.tell,
        "evidence": partial(
            tell_evidence, settings.edge, canary.stand, canary.picture, make_topics, clients.producer.send
        ),
    }


def _bindings(settings: ShopperSettings) -> list[Exchange]:
    tensors = Tensor(json_limit(settings.max_image_bytes), settings.max_pixels)
    return [
        Exchange(Topics(DETECTION, DETECTION_REPLIES), Json()),
        *(Exchange(topics, tensors) for topics in settings.tensor_topics),
    ]


async def _consume(settings: ShopperSettings, producer: kafka.Producer, door: KafkaDoor) -> None:
    images = images_topic(settings.edge)
    await kafka_topics.ensure_topics(settings, [images, detections_topic(settings.edge), dead_letter(images)])
    send_dead_letter = partial(dead_letters.send_dead_letter, producer, routes.DETECT_KAFKA.id)
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
        partial(kafka_topics.ensure_topics, settings, [EDGE_METRICS]),
        certain_score=settings.certain_score,
        audited_model=settings.model_name,
        window_seconds=settings.window_seconds,
        max_message_bytes=settings.kafka_max_message_bytes,
    )
