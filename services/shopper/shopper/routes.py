"""The routes of the shopper, each in the order that its message travels."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from typing import Any, NoReturn

from caravan.contracts import DATA, OTHER
from caravan.names import metadata
from caravan.reports import ListModels, ReadReport, Report
from shopper import detection, events, metrics
from shopper.detection import Answer, Record
from shopper.doors.relay import EventRelay
from shopper.images.limits import ImageLimits
from shopper.ports import Capture, Classifier, Count, Keeper, Photo, Picture, Post, Push, Sender, now
from shopper.review.decisions import Decision, Ref
from shopper.review.desk import ReviewDesk
from shopper.shelf import Shelf

DETECT_HTTP = "detect-http"
DETECT_BINARY = "detect-binary"
DETECT_MQTT = "detect-mqtt"
DETECT_TENSOR = "detect-tensor"
DETECT_KAFKA = "detect-kafka"
INGEST = "ingest"
INGEST_OPTIONS = "ingest-options"
INGEST_COUNTS = "ingest-counts"
EVENT_STREAM = "event-stream"
REVIEW_LIST = "review-list"
REVIEW_IMAGE = "review-image"
REVIEW_DECIDE = "review-decide"
PUSH_TRAINING_DATA = "push-training-data"
PRICE = "price"
ITEM = "item"
EDGE_METRICS = "edge-metrics"
MODELS = "models"
REPORT = "report"


async def detect(
    image: Picture,
    sender: Sender,
    answer: Answer = detection.answer,
    *,
    limits: ImageLimits,
    classifier: Classifier,
    shelf: Shelf,
    score_accuracy: Callable[[str], float],
    keeper: Keeper,
    record: Record,
    post: Post,
) -> dict[str, Any]:
    """FROM an image → checked → classified → priced → kept → recorded → event → TO the reply.

    Routes `detect-http`, `detect-binary`, `detect-mqtt`, `detect-tensor`, `detect-kafka`. Mandatory: the
    model's answer, the image in S3 `valid` or `unclassified` (or on the local disk until S3 is back), and
    over Kafka the reply. Best effort: the record, on its way to `edge-metrics`, and MQTT `monitor`.
    """
    at = now()
    photo = await limits.as_jpeg(image, sender.origin)
    if isinstance(image, bytes) and photo is not image:
        prediction = await classifier.classify(Photo(image, photo), sender.model)
    else:
        prediction = await classifier.classify(image, sender.model)
    catalogue = shelf.catalogue
    verdict = detection.judge(prediction, catalogue, score_accuracy(prediction.model))
    facts = detection.facts(verdict, sender)
    key = await keeper.keep(Capture(verdict.bucket, verdict.product.item, photo, at, facts))
    await record(verdict, sender, photo, at, key)
    post(events.detection(verdict, sender))
    reply = answer(verdict, catalogue)
    metrics.DETECTIONS.labels(sender.origin, reply["known"]).inc()
    return reply


async def edge_metrics(send_notes: Callable[[], Awaitable[NoReturn]]) -> NoReturn:
    """FROM the record of every detection → counts by window, uncertain images → TO Kafka `edge-metrics`.

    Route `edge-metrics`. Mandatory: Kafka's acknowledgement; until then, and whatever is killed meanwhile,
    a message stays on the local disk. It may come twice, with the same id. Best effort is the record itself:
    while the disk fails, detections go on, logged and counted.
    """
    await send_notes()


async def ingest(
    image: bytes,
    name: str,
    sender: Sender,
    *,
    new: bool = False,
    limits: ImageLimits,
    shelf: Shelf,
    keeper: Keeper,
    post: Post,
) -> dict[str, str]:
    """FROM a labelled image → read to its end → event → TO S3 `data`.

    Route `ingest`. Mandatory: the image in S3 `data` (or on the local disk until S3 is back). Best effort:
    MQTT `monitor`. A product that the catalogue has not is taken as a new one only where the sender says so.
    """
    at = now()
    product = shelf.catalogue.named_or_new(name) if new else shelf.catalogue.named(name)
    await limits.verify(image)
    photo = await limits.as_jpeg(image)
    facts = metadata({"label": product.item, "origin": sender.origin, "camera": sender.camera})
    await keeper.keep(Capture(DATA, product.item, photo, at, facts))
    post(events.ingestion(product, sender))
    return {"status": "done", "item": product.item, "label": product.label} if new else {"status": "done"}


async def push_training_data(push: Push) -> dict[str, Any]:
    """FROM a request → ZIPs of S3 `data` → TO the feeder at central → out of S3 `data`.

    Route `push-training-data`. Mandatory: the feeder's account of every image; while the link is down, the
    wish in S3 `data`, which is fulfilled as soon as it is up. Best effort: MQTT `monitor`.
    """
    return await push()


async def ingest_options(shelf: Shelf) -> dict[str, Any]:
    """FROM a request → TO the labels of the catalogue. Route `ingest-options`; no sinks."""
    return {"products": shelf.catalogue.labels}


async def ingest_counts(count: Count) -> dict[str, Any]:
    """FROM a request → TO how many training images wait, by product. Route `ingest-counts`; no sinks."""
    return await count()


async def event_stream(relay: EventRelay, names: Collection[str], last: str) -> AsyncIterator[bytes]:
    """FROM MQTT `monitor` → those asked for → TO a page, as server-sent events.

    Route `event-stream`. Best effort: a page that is too slow misses the oldest.
    """
    return relay.listen(names, last)


async def review_list(after: Ref | None, most: int, desk: ReviewDesk, shelf: Shelf) -> dict[str, Any]:
    """FROM S3 `unclassified` and `valid` → those not known or not sure → TO a page. No sinks.

    Route `review-list`.
    """
    page = await desk.page(after, most)
    images = [waiting.told(shelf.catalogue) for waiting in page.waiting]
    return {"images": images, "next": str(page.last) if page.last else None}


async def review_image(ref: Ref, desk: ReviewDesk, limits: ImageLimits, *, whole: bool) -> bytes:
    """FROM S3 `unclassified` or `valid` → made small, or not → TO a page, as JPEG. No sinks.

    Route `review-image`.
    """
    image = await desk.image(ref)
    if not whole:
        return await limits.thumbnail(image)
    await limits.verify(image)
    return await limits.as_jpeg(image)


async def review_decide(
    decisions: Sequence[Decision], who: str, *, desk: ReviewDesk, post: Post
) -> dict[str, Any]:
    """FROM what someone says of images → TO S3 `data`, or `rejected/` of `unclassified` → out of the list.

    Route `review-decide`. Mandatory: each image where it belongs, with who said so, when, and what the
    model had said; and out of the bucket that it waited in. Best effort: MQTT `monitor`.
    """
    outcomes = await desk.decide(decisions, who, now())
    for decision, outcome in zip(decisions, outcomes, strict=True):
        if outcome == "taught" and decision.product:
            post(events.ingestion(decision.product, Sender("http", who)))
    told = [{"image": str(d.ref), "outcome": outcome} for d, outcome in zip(decisions, outcomes, strict=True)]
    return {"decisions": told}


async def price(item: str, shelf: Shelf) -> dict[str, Any]:
    """FROM an item → TO its label and price, for `other` all labels too. Route `price`; no sinks."""
    product = shelf.catalogue.product(item)
    answer = {"item": product.item, "label": product.label, "price": str(product.price)}
    return {**answer, "products": shelf.catalogue.labels} if item == OTHER else answer


async def item(name: str, shelf: Shelf) -> dict[str, str]:
    """FROM a label → TO its item. Route `item`; no sinks."""
    return {"item": shelf.catalogue.named(name).item}


async def models(list_models: ListModels) -> dict[str, Any]:
    """FROM a request → the versions in S3 `production` → TO what their manifests say.

    Route `models`; no sinks.
    """
    return {"models": await list_models()}


async def report(read_report: ReadReport, model: str, version: str) -> Report:
    """FROM a model and its version, or `latest` → S3 `production` → TO the page. Route `report`; no sinks."""
    return await read_report(model, version)
