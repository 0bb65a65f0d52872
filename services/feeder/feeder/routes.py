"""The routes of the feeder."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import structlog
from aiokafka import ConsumerRecord

from caravan import tracing
from caravan.aggregate import Aggregator
from caravan.consume import Effect, Park, Policy, Source, consume
from caravan.contracts import TRIGGER, class_of
from caravan.dead_letters import SendDeadLetter
from caravan.errors import BadInput, Permanent, Transient
from caravan.groups import Groups
from caravan.kafka import Headers, trace_of
from caravan.moments import in_one_moment
from caravan.retry import retried
from caravan.route import Route
from caravan.uploads import Upload, Verdict
from feeder.archive import SHAPE, RejectedEntry
from feeder.buckets import DataBuckets
from feeder.checks import Batch, Checks, Labelled
from feeder.concurrency import KeyedLock
from feeder.events import MessageProducer, tell_model, tell_pipeline, zipfile_events
from feeder.gathering import GATHERED, as_batch
from feeder.models import ModelBuckets, ModelChecks
from feeder.settings import FeederSettings
from feeder.spool import UploadSpool

log = structlog.get_logger()

ZIP_UPLOAD = Route(
    "zip-upload",
    source="`PUT` or `POST /zip`",
    mandatory="the receipt and every image in S3 `E-data`; Kafka `trigger`",
    best_effort="the events on Kafka `E`",
)
MODEL_UPLOAD = Route(
    "model-upload",
    source="`PUT` or `POST /model`",
    mandatory="the ZIP and the upload's record in S3 `E-models`; Kafka `trigger`",
    best_effort="the event `model-upload` on Kafka `E`",
)
KAFKA_INTAKE = Route(
    "kafka-intake",
    source="Kafka `training-images`",
    mandatory="as `zip-upload`; or, of what cannot be fed now, the message on Kafka `training-images-retry`; "
    "or the dead letter of what is no labelled image",
    best_effort="the events on Kafka `E`",
)
PARKED_INTAKE = Route(
    "parked-intake",
    source="Kafka `training-images-retry`",
    mandatory="as `kafka-intake`: what cannot be fed goes to the end of the topic, what is too old is a dead "
    "letter of `training-images`",
    best_effort="the events on Kafka `E`",
)
ROUTES = (ZIP_UPLOAD, MODEL_UPLOAD, KAFKA_INTAKE, PARKED_INTAKE)

BATCHES_IN_MEMORY = 4
"""Batches from Kafka in memory; a fetch takes KAFKA_MAX_MESSAGE_BYTES per partition more."""
PATIENCE_SECONDS = 5.0
"""Seconds of storing after which an edge counts as stuck; then at most one more batch of it waits."""
PARKED_AT_ONCE = 100
"""Parked images tried side by side; with fewer, one edge's would hold up all others."""

Feed = Callable[[str, Batch], Awaitable["Fed"]]
Check = Callable[[ConsumerRecord], Awaitable[tuple[str, Labelled]]]


@dataclass(frozen=True, slots=True)
class Fed:
    """What became of a batch: counts of images, the rejected ones, and advice to the sender."""

    edge: str
    batch: str
    stored: int
    duplicates: int
    ignored: int
    rejected: tuple[RejectedEntry, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class IntakePorts:
    """What images from Kafka meet on their way: checks, stores, and where messages go that cannot go on."""

    check: Check
    feed: Feed
    send_dead_letter: SendDeadLetter
    park: Park


class NothingToStore(BadInput):
    """A batch without a single image that can be stored: 422, and nothing of it is kept."""

    def __init__(self, batch: Batch) -> None:
        why = f"entries named {SHAPE} are taken" + (f", not {batch.misplaced!r}" if batch.misplaced else "")
        if batch.rejected:
            first, *others = batch.rejected
            why = f"{first.name!r}: {first.reason}" + (f"; {len(others)} more are rejected" if others else "")
        super().__init__(f"there is no image to store: {why}", status=422)
        self.batch = batch


async def zip_upload(
    edge: str,
    body: AsyncIterator[bytes],
    declared: int | None,
    *,
    spool: UploadSpool,
    locks: KeyedLock,
    checks: Checks,
    buckets: DataBuckets,
    producer: MessageProducer,
    retry_seconds: float,
) -> Fed:
    """FROM HTTP `PUT` or `POST /zip` → spool → check every entry → TO S3 `E-data` → TO Kafka `trigger`, `E`.

    Nothing is stored before the whole archive has passed; a repeat of any part does no harm.
    """
    with ZIP_UPLOAD.exchange():
        async with spool.taken_in(body, declared) as zipped, locks.take(edge, zipped.sha256):
            tracing.note(edge=edge, batch=zipped.sha256, bytes=zipped.size)
            async with checks.sorted_out(zipped.file, zipped.sha256, zipped.size) as batch:
                return await feed(
                    edge, batch, buckets=buckets, producer=producer, retry_seconds=retry_seconds
                )


def intake_policy(settings: FeederSettings) -> Policy:
    """Return how `kafka-intake` consumes: what cannot be fed is parked, and in the way of nobody."""
    return Policy(
        route=KAFKA_INTAKE.id,
        sink="s3",
        at_once=settings.checks_at_once,
        # An edge whose bucket hangs holds one batch on its way and one that waits: the others have as much.
        in_flight=2 * settings.intake_count * (len(settings.edges) + 1),
        in_flight_bytes=settings.intake_bytes,
        within=settings.retry_seconds,
        then="park",
        age=settings.intake_max_age_seconds,
        gathers=True,
    )


async def kafka_intake(source: Source, ports: IntakePorts, settings: FeederSettings) -> None:
    """FROM Kafka `training-images` → check → gather → TO S3 `E-data` → TO Kafka `trigger`, `E` → commit.

    Offsets are committed as far as everything before is fed: after a crash the rest comes again, and what of
    it is there already is a duplicate.
    """

    async def handle(record: ConsumerRecord) -> Effect:
        edge, image = await ports.check(record)
        return partial(gathered.add, edge, image, size=image.size, trace=trace_of(record))

    gathered = Aggregator[str, Labelled](
        KAFKA_INTAKE.id,
        "s3",
        partial(_feed_images, ports.feed),
        within=0,  # each of its steps is tried again by itself
        age=settings.intake_seconds,
        count=settings.intake_count,
        size=max(1, settings.intake_bytes // BATCHES_IN_MEMORY),
        patience=PATIENCE_SECONDS,
    )
    GATHERED.set_function(lambda: gathered.waiting)
    async with gathered:
        await consume(source, handle, ports.send_dead_letter, intake_policy(settings), ports.park)


def parked_policy(settings: FeederSettings) -> Policy:
    """Return how `parked-intake` consumes: some at a time, and again from the end of the topic."""
    return Policy(
        route=PARKED_INTAKE.id,
        sink="s3",
        at_once=settings.checks_at_once,
        in_flight=PARKED_AT_ONCE,
        in_flight_bytes=settings.intake_bytes,
        within=settings.retry_seconds,
        then="park",
        age=settings.intake_max_age_seconds,
    )


async def parked_intake(source: Source, ports: IntakePorts, settings: FeederSettings) -> None:
    """FROM Kafka `training-images-retry` → check → TO S3 `E-data` → TO Kafka `trigger`, `E` → commit.

    What `kafka-intake` has parked, each image a batch of its own, so that one that S3 does not take spoils no
    other.
    """

    async def handle(record: ConsumerRecord) -> Effect:
        edge, image = await ports.check(record)
        return partial(_feed_images, ports.feed, edge, [image])

    await consume(source, handle, ports.send_dead_letter, parked_policy(settings), ports.park)


async def _feed_images(feed: Feed, edge: str, images: Sequence[Labelled]) -> None:
    tracing.note(edge=edge)
    try:
        await feed(edge, as_batch(images))
    except NothingToStore as exc:
        log.warning("batch withdrawn", edge=edge, batch=exc.batch.id, images=len(exc.batch.rejected))
    except Permanent as exc:
        # Rights, say, can be mended while we run; until then the images wait.
        raise Transient(str(exc)) from exc


async def feed(
    edge: str, batch: Batch, *, buckets: DataBuckets, producer: MessageProducer, retry_seconds: float
) -> Fed:
    """Store a checked batch and trigger training: the common end of every route that takes images in.

    The receipt is done last: as long as it is pending, something promised may be missing, and the batch
    must come again.

    Raises:
        NothingToStore: if it has no image.
        Transient: if S3 or Kafka are away for too long.

    """
    screened = await buckets.screened(edge, batch) if batch.images else batch
    if not screened.images:
        if batch.images:
            # The receipt is all that tells of images which came by Kafka.
            await buckets.finish(await buckets.begin(edge, screened), screened, ())
        raise NothingToStore(screened)
    batch = screened
    with tracing.span("store", images=len(batch.images)):
        receipt = await buckets.begin(edge, batch)
        async with zipfile_events(producer, edge) as one_stored:
            placed = await buckets.store(edge, batch, one_stored)
    outcomes = Counter(image.outcome for image in placed)
    refused = tuple(
        RejectedEntry(image.name, image.reason) for image in placed if image.outcome == "rejected"
    )
    stored, duplicates = outcomes["stored"], outcomes["duplicate"]
    fed = Fed(
        edge, batch.id, stored, duplicates, batch.ignored, batch.rejected + refused, tuple(_warnings(batch))
    )

    headers = {
        "batch": fed.batch,
        "stored": str(fed.stored),
        "duplicates": str(fed.duplicates),
        "files": str(fed.stored + fed.duplicates),
    }
    with tracing.span("trigger"):
        await retried(lambda: _trigger(producer, edge, headers), to="kafka", within=retry_seconds)
    await buckets.finish(receipt, batch, placed)
    await tell_pipeline(producer, edge, files=stored + duplicates)

    counts = {"stored": stored, "duplicates": fed.duplicates, "rejected": len(fed.rejected)}
    tracing.note(**counts)
    log.info("batch fed", edge=edge, batch=batch.id, bytes=batch.size, ignored=fed.ignored, **counts)
    return fed


def _warnings(batch: Batch) -> Iterator[str]:
    """Yield what the sender of a batch that was taken had better know, and may not have meant."""
    if batch.misplaced:
        place = f"entries named {SHAPE} are taken, not {batch.misplaced!r}"
        yield f"images in other places were passed over: {place}"
    classes: dict[str, str] = {}
    for name in sorted({class_of(image.key) for image in batch.images}):
        if (other := classes.setdefault(name.casefold(), name)) != name:
            yield f"{other} and {name} are two classes: the letter case counts"
    yield from in_one_moment((class_of(image.key), image.taken) for image in batch.images)


async def model_upload(
    edge: str,
    model: str,
    classes: tuple[str, ...],
    body: AsyncIterator[bytes],
    declared: int | None,
    *,
    spool: UploadSpool,
    locks: KeyedLock,
    checks: ModelChecks,
    buckets: ModelBuckets,
    groups: Groups,
    producer: MessageProducer,
    retry_seconds: float,
) -> tuple[Upload, Verdict | None]:
    """FROM HTTP `PUT` or `POST /model` → spool → check → TO S3 `E-models` → TO Kafka `trigger`, `E`.

    The pipeline that the trigger starts loads the model, gives it a version and writes the verdict. A repeat
    does no harm: what is ready is answered so, what was rejected is judged again. A model may be sent to a
    group of edges as to an edge; all of them hear of it.
    """
    with MODEL_UPLOAD.exchange():
        async with spool.taken_in(body, declared) as zipped, locks.take(edge, zipped.sha256):
            tracing.note(edge=edge, model=model, batch=zipped.sha256, bytes=zipped.size)
            with tracing.span("check"):
                checked = await checks.check(model, classes, zipped)
            with tracing.span("store"):
                upload, verdict = await buckets.keep(edge, checked, zipped.file)
        facts = {"model": model, "upload": upload.id}
        if verdict is None:
            with tracing.span("trigger"):
                await retried(lambda: _trigger(producer, edge, facts), to="kafka", within=retry_seconds)
            await tell_model(producer, groups.get(edge, (edge,)), upload)
        log.info("model taken in", edge=edge, bytes=upload.size, is_new=verdict is None, **facts)
        return upload, verdict


async def _trigger(producer: MessageProducer, edge: str, headers: Headers) -> None:
    await producer.send(TRIGGER, edge.encode(), key=edge.encode(), headers=headers)
