"""The routes of the shopper, each in the order that its message travels."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from typing import Any

from caravan.contracts import DATA, OTHER
from caravan.names import metadata
from caravan.reports import ListModels, ReadReport, Report
from caravan.route import Route
from shopper import detection, events, metrics
from shopper.catalogue_file import CatalogueFile
from shopper.detection import Answer, Compare, Record
from shopper.doors.relay import EventRelay
from shopper.images.limits import ImageLimits
from shopper.ports import (
    Capture,
    Classifier,
    CountImages,
    ImageStore,
    Outbox,
    Photo,
    Picture,
    Post,
    Push,
    Sender,
    now,
)
from shopper.review.decisions import Decision, Ref
from shopper.review.review_queue import ReviewQueue

_ANSWERED = (
    "the prediction of gRPC `model-server`; the image in S3 `valid` or `unclassified`, "
    "or on the disk until S3 is back"
)
_RECORDED = "the record, on its way to `edge-metrics`; MQTT `monitor`: `detection`"
DETECT_HTTP = Route("detect-http", source="`POST /detection`", mandatory=_ANSWERED, best_effort=_RECORDED)
DETECT_BINARY = Route("detect-binary", source="`POST /binary`", mandatory=_ANSWERED, best_effort=_RECORDED)
DETECT_MQTT = Route(
    "detect-mqtt",
    source="MQTT `detection/#`",
    mandatory=_ANSWERED,
    best_effort=f"{_RECORDED}; the reply over MQTT",
)
DETECT_TENSOR = Route(
    "detect-tensor",
    source="the MQTT topics of `TENSOR_TOPICS`",
    mandatory=_ANSWERED,
    best_effort=f"{_RECORDED}; the reply over MQTT",
)
DETECT_KAFKA = Route(
    "detect-kafka",
    source="Kafka `E-images`",
    mandatory=f"{_ANSWERED}; the reply on Kafka `E-detections`; of what is refused the dead letter too",
    best_effort=_RECORDED,
)
EDGE_METRICS = Route(
    "edge-metrics",
    source="the record of every detection",
    mandatory="Kafka `edge-metrics`: counts by window, uncertain images; until then they stay on the disk",
    best_effort="the record itself",
)
INGEST = Route(
    "ingest",
    source="`POST /ingestion`: a label, or an item, in any letter case",
    mandatory="the image in S3 `data`, or on the disk until S3 is back",
    best_effort="MQTT `monitor`: `ingestion`",
)
INGEST_OPTIONS = Route(
    "ingest-options", source="`GET /ingestion/options`", mandatory="the answer: the labels"
)
INGEST_COUNTS = Route(
    "ingest-counts",
    source="`GET /ingestion/counts`",
    mandatory="the answer: how many training images wait in S3 `data`, by product",
)
REVIEW_LIST = Route(
    "review-list", source="`GET /review`", mandatory="the answer: the images that wait for a word from people"
)
REVIEW_IMAGE = Route(
    "review-image",
    source="`GET /review/<bucket>/images/<item>/<file>`",
    mandatory="the answer: the picture, as JPEG",
)
REVIEW_DECIDE = Route(
    "review-decide",
    source="`POST /review`",
    mandatory="each image in S3 `data`, or in `rejected/` of `unclassified`, with who said so, when, and "
    "what the model had said; then out of the bucket that it waited in",
    best_effort="MQTT `monitor`: `ingestion`",
)
EVENT_STREAM = Route(
    "event-stream", source="MQTT `monitor`", mandatory="none", best_effort="the stream of `GET /events`"
)
PUSH_TRAINING_DATA = Route(
    "push-training-data",
    source="`GET` or `POST /zip`",
    mandatory="what HTTP `feeder` says of every image of S3 `data`; else the request there",
    best_effort="MQTT `monitor`: `zipdata`, `zipsend`",
)
PRICE = Route("price", source="`GET /price`", mandatory="the answer: an item's label and price")
ITEM = Route("item", source="`POST /item`", mandatory="the answer: a label's item")
MODELS = Route("models", source="`GET /models`", mandatory="the answer: what S3 `production` holds")
REPORT = Route(
    "report", source="`GET /models/<model>/<version>/report`", mandatory="the answer: a version's report"
)
ROUTES = (
    *(DETECT_HTTP, DETECT_BINARY, DETECT_MQTT, DETECT_TENSOR, DETECT_KAFKA, EDGE_METRICS),
    *(INGEST, INGEST_OPTIONS, INGEST_COUNTS, REVIEW_LIST, REVIEW_IMAGE, REVIEW_DECIDE),
    *(EVENT_STREAM, PUSH_TRAINING_DATA, PRICE, ITEM, MODELS, REPORT),
)


async def detect(
    image: Picture,
    sender: Sender,
    answer: Answer = detection.answer,
    *,
    limits: ImageLimits,
    classifier: Classifier,
    catalogue_file: CatalogueFile,
    score_accuracy: Callable[[str], float],
    image_store: ImageStore,
    record: Record,
    post: Post,
    compare: Compare = detection.alone,
) -> dict[str, Any]:
    """FROM an image → checked → classified → priced → kept → recorded → event → compared → TO the reply.

    The common way of every `detect-…` route.
    """
    at = now()
    photo = await limits.as_jpeg(image, sender.origin)
    shown = Photo(image, photo) if isinstance(image, bytes) and photo is not image else image
    prediction = await classifier.classify(shown, sender.model)
    catalogue = catalogue_file.catalogue
    recognition = detection.judge(prediction, catalogue, score_accuracy(prediction.model))
    facts = detection.facts(recognition, sender)
    key = await image_store.keep(Capture(recognition.bucket, recognition.product.item, photo, at, facts))
    await record(recognition, sender, photo, at, key)
    post(events.detection(recognition, sender))
    compare(shown, prediction, f"{recognition.bucket}/{key}")
    reply = answer(recognition, catalogue)
    metrics.DETECTIONS.labels(sender.origin, reply["known"]).inc()
    return reply


async def edge_metrics(outbox: Outbox) -> None:
    """FROM the record of every detection → counts by window, uncertain images → TO Kafka `edge-metrics`.

    A message stays on the local disk until Kafka acknowledges it, whatever is killed meanwhile. It may come
    twice, with the same id. While the disk fails, detections go on, logged and counted.
    """
    async for messages in outbox.batches():
        with EDGE_METRICS.exchange(begins_trace=False):
            ends = await outbox.send(messages)
            await outbox.settle(messages, ends)


async def ingest(
    image: bytes,
    name: str,
    sender: Sender,
    *,
    new: bool = False,
    limits: ImageLimits,
    catalogue_file: CatalogueFile,
    image_store: ImageStore,
    post: Post,
) -> dict[str, str]:
    """FROM a labelled image → read to its end → event → TO S3 `data`.

    A product that the catalogue has not is taken as a new one only where the sender says so.
    """
    at = now()
    product = catalogue_file.catalogue.named_or_new(name) if new else catalogue_file.catalogue.named(name)
    await limits.verify(image)
    photo = await limits.as_jpeg(image)
    facts = metadata({"label": product.item, "origin": sender.origin, "camera": sender.camera})
    await image_store.keep(Capture(DATA, product.item, photo, at, facts))
    post(events.ingestion(product, sender))
    return {"status": "done", "item": product.item, "label": product.label} if new else {"status": "done"}


async def push_training_data(push: Push) -> dict[str, Any]:
    """FROM a request → ZIPs of S3 `data` → TO the feeder at central → out of S3 `data`.

    While the link is down the request is kept as pending, and carried out as soon as the link is up.
    """
    return await push()


async def ingest_options(catalogue_file: CatalogueFile) -> dict[str, Any]:
    """FROM a request → TO the labels of the catalogue."""
    return {"products": catalogue_file.catalogue.labels}


async def ingest_counts(count: CountImages, catalogue_file: CatalogueFile) -> dict[str, Any]:
    """FROM a request → S3 `data`, counted → TO how many training images wait, by product, most first."""
    waiting = await count()
    named = [(catalogue_file.catalogue.product(item), images) for item, images in waiting.most_common()]
    products = [{"item": each.item, "label": each.label, "images": images} for each, images in named]
    return {"images": waiting.total(), "products": products}


async def event_stream(relay: EventRelay, names: Collection[str], last: str) -> AsyncIterator[bytes]:
    """FROM MQTT `monitor` → those asked for → TO a page, as server-sent events.

    A page that is too slow misses the oldest.
    """
    return relay.listen(names, last)


async def review_list(
    after: Ref | None, most: int, queue: ReviewQueue, catalogue_file: CatalogueFile
) -> dict[str, Any]:
    """FROM S3 `unclassified` and `valid` → those not known or not sure → TO a page."""
    page = await queue.page(after, most)
    images = [waiting.as_json(catalogue_file.catalogue) for waiting in page.waiting]
    return {"images": images, "next": str(page.last) if page.last else None}


async def review_image(ref: Ref, queue: ReviewQueue, limits: ImageLimits, *, whole: bool) -> bytes:
    """FROM S3 `unclassified` or `valid` → made small, or not → TO a page, as JPEG."""
    image = await queue.image(ref)
    if not whole:
        return await limits.thumbnail(image)
    await limits.verify(image)
    return await limits.as_jpeg(image)


async def review_decide(
    decisions: Sequence[Decision], who: str, *, queue: ReviewQueue, post: Post
) -> dict[str, Any]:
    """FROM what someone says of images → TO S3 `data`, or `rejected/` of `unclassified` → out of the list."""
    outcomes = await queue.decide(decisions, who, now())
    for decision, outcome in zip(decisions, outcomes, strict=True):
        if outcome == "taught" and decision.product:
            post(events.ingestion(decision.product, Sender("http", who)))
    told = [{"image": str(d.ref), "outcome": outcome} for d, outcome in zip(decisions, outcomes, strict=True)]
    return {"decisions": told}


async def price(item: str, catalogue_file: CatalogueFile) -> dict[str, Any]:
    """FROM an item → TO its label and price, for `other` all labels too."""
    product = catalogue_file.catalogue.product(item)
    answer = {"item": product.item, "label": product.label, "price": str(product.price)}
    return {**answer, "products": catalogue_file.catalogue.labels} if product.item == OTHER else answer


async def item(name: str, catalogue_file: CatalogueFile) -> dict[str, str]:
    """FROM a label → TO its item."""
    return {"item": catalogue_file.catalogue.named(name).item}


async def models(list_models: ListModels) -> dict[str, Any]:
    """FROM a request → the versions in S3 `production` → TO what their manifests say."""
    return {"models": await list_models()}


async def report(read_report: ReadReport, model: str, version: str) -> Report:
    """FROM a model and its version, or `latest` → S3 `production` → TO the page."""
    return await read_report(model, version)
