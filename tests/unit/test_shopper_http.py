"""shopper: what a client sees at the HTTP door."""

import asyncio
import base64
import errno
import gzip
import io
import json
import struct
import zlib
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from prometheus_client import REGISTRY

from caravan.decoding import Decoding
from caravan.errors import BadInput, Permanent, Refused, Transient, Unavailable
from caravan.images import ImageBounds
from caravan.sessions import Sessions
from caravan.testing.waiting import until
from caravan.tokens import Tokens
from shopper import routes
from shopper.catalogue_file import CatalogueFile
from shopper.doors.http import make_app
from shopper.images.budget import MemoryBudget
from shopper.images.limits import ImageLimits
from shopper.ports import Capture, Photo, Picture, Pixels, Prediction, Sender
from support.files import as_file

MAX_BYTES = 200_000
LABELS = ["Earl Grey Tea", "Green Tea", "Lemon Tea", "Licorice Tea", "Other"]


def encoded(image_format: str = "JPEG", size: tuple[int, int] = (64, 48)) -> bytes:
    return as_file(Image.effect_noise(size, 50).convert("RGB"), image_format)


PHOTO = encoded()


class Classifier:
    """A model that always says the same, or fails."""

    def __init__(self) -> None:
        self.item = "tea-green"
        self.score = 0.8382341234
        self.error: Exception | None = None
        self.seen: list[Picture | Photo] = []
        self.models: list[str] = []
        self.probabilities: dict[str, float] = {}

    async def classify(self, image: Picture | Photo, model: str = "") -> Prediction:
        self.seen.append(image)
        self.models.append(model)
        if self.error:
            raise self.error
        return Prediction(self.item, self.score, "tea_model_b64", 3, self.probabilities)


class ImageStore:
    """Remembers what it was given, or fails."""

    def __init__(self) -> None:
        self.captures: list[Capture] = []
        self.error: Exception | None = None

    async def keep(self, capture: Capture) -> str:
        if self.error:
            raise self.error
        self.captures.append(capture)
        return f"images/{capture.item}/{len(self.captures)}.jpg"


class Push:
    """A push with a prepared outcome."""

    def __init__(self) -> None:
        self.outcome: dict[str, Any] | Exception = {"status": "done", "files": 2}

    async def __call__(self) -> dict[str, Any]:
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


class Shopper:
    """The service with fakes behind it, and a client before it."""

    def __init__(self, tokens: dict[str, str] | None = None) -> None:
        self.classifier = Classifier()
        self.image_store = ImageStore()
        self.push = Push()
        self.events: list[dict[str, Any]] = []
        self.records: list[Any] = []
        self.answers: list[Any] = []
        self.thresholds: dict[str, float] = {}
        self.model_ready = True
        catalogue_file = CatalogueFile()
        limits = ImageLimits(Decoding(2, bounds=ImageBounds(MAX_BYTES, 1_000_000)), MemoryBudget(10**8))
        self.route = partial(
            routes.detect,
            limits=limits,
            classifier=self.classifier,
            catalogue_file=catalogue_file,
            score_accuracy=lambda model: self.thresholds.get(model, 0.6),
            image_store=self.image_store,
            record=self._record,
            post=self.events.append,
            compare=lambda *answer: self.answers.append(answer),
        )
        app = make_app(
            detect=self.route,
            ingest=partial(
                routes.ingest,
                limits=limits,
                catalogue_file=catalogue_file,
                image_store=self.image_store,
                post=self.events.append,
            ),
            push=self.push,
            catalogue_file=catalogue_file,
            bodies=MemoryBudget(10**7),
            max_image_bytes=MAX_BYTES,
            checks={"model-server": self._check},
            sessions=Sessions(Tokens(tokens or {}), "shopper"),
        )
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://shopper:8080")

    async def _record(self, *recognition: Any) -> None:
        self.records.append(recognition)

    async def _check(self) -> None:
        if not self.model_ready:
            raise Unavailable("no version of model tea_model_b64 is available")

    async def detect(self, image: bytes = PHOTO) -> httpx.Response:
        return await self.client.post("/detection", json={"image": base64.b64encode(image).decode()})

    async def ingest(self, image: bytes = PHOTO, product: str = "Green Tea") -> httpx.Response:
        body = {"image": base64.b64encode(image).decode(), "product": product}
        return await self.client.post("/ingestion", json=body)


@pytest.fixture
async def shopper() -> AsyncIterator[Shopper]:
    shopper = Shopper()
    async with shopper.client:
        yield shopper


def is_problem(response: httpx.Response, status: int, says: str) -> bool:
    body = response.json()
    assert response.headers["content-type"] == "application/problem+json"
    assert (response.status_code, body["status"]) == (status, status), body
    assert set(body) >= {"type", "title", "status", "detail"}
    assert says in body["detail"], body
    return True


# --- detection ----------------------------------------------------------------------------------------


async def test_a_known_product_is_answered_with_its_price(shopper: Shopper) -> None:
    response = await shopper.detect()
    assert response.status_code == 200
    assert response.json() == {
        "known": "true",
        "pricetag": "Green Tea: 2.99",
        "products": LABELS,
        "item": "tea-green",
        "label": "Green Tea",
        "price": "2.99",
        "score": 0.838234,
        "model": "tea_model_b64",
        "version": 3,
    }


@pytest.mark.parametrize(("item", "score"), [("other", 0.99), ("tea-green", 0.59), ("tea-mint", 0.1)])
async def test_other_or_a_low_score_is_not_known(shopper: Shopper, item: str, score: float) -> None:
    shopper.classifier.item, shopper.classifier.score = item, score
    assert (await shopper.detect()).json() == {
        "known": "false",
        "pricetag": "Other: N/A",
        "products": LABELS,
        "item": "other",
        "label": "Other",
        "price": "N/A",
        "score": score,
        "model": "tea_model_b64",
        "version": 3,
        "guess": item,
        "guess_label": {"other": "Other", "tea-green": "Green Tea"}.get(item, item),
    }


async def test_a_score_at_the_threshold_is_known(shopper: Shopper) -> None:
    shopper.classifier.score = 0.6
    assert (await shopper.detect()).json()["known"] == "true"


async def test_a_label_without_an_entry_is_known_and_has_no_price(shopper: Shopper) -> None:
    shopper.classifier.item = "tea-mint"
    body = (await shopper.detect()).json()
    assert (body["known"], body["pricetag"]) == ("true", "tea-mint: N/A")


async def test_raw_bytes_are_answered_the_same(shopper: Shopper) -> None:
    raw = await shopper.client.post("/binary", content=PHOTO)
    assert raw.json() == (await shopper.detect()).json()
    assert shopper.classifier.seen == [PHOTO, PHOTO]


async def test_a_data_url_is_tolerated(shopper: Shopper) -> None:
    image = " data:image/jpeg; base64," + base64.b64encode(PHOTO).decode()
    response = await shopper.client.post("/detection", content=json.dumps({"image": image}))
    assert response.json()["known"] == "true"


@pytest.mark.parametrize(
    ("item", "bucket", "folder"), [("tea-green", "valid", "tea-green"), ("other", "unclassified", "other")]
)
async def test_the_image_is_kept_with_the_models_opinion(
    shopper: Shopper, item: str, bucket: str, folder: str
) -> None:
    shopper.classifier.item = item
    await shopper.client.post("/binary", content=PHOTO, headers={b"camera": "till 3/é".encode()})
    (capture,) = shopper.image_store.captures
    assert (capture.bucket, capture.item, capture.image) == (bucket, folder, PHOTO)
    assert capture.facts == {
        "label": item,
        "score": "0.838234",
        "model": "tea_model_b64",
        "version": "3",
        "origin": "http",
        "camera": "till 3/%C3%A9",
    }


async def test_the_dashboard_learns_of_a_known_product(shopper: Shopper) -> None:
    await shopper.detect()
    (event,) = shopper.events
    contract = {"origin": "http", "valid": True, "item": "Green Tea", "price": "$2.99", "name": "detection"}
    assert contract.items() <= event.items()


async def test_the_dashboard_learns_of_an_unknown_product(shopper: Shopper) -> None:
    shopper.classifier.score = 0.1
    await shopper.detect()
    (event,) = shopper.events
    contract = {"origin": "http", "valid": False, "item": "Other", "price": "N/A", "name": "detection"}
    assert contract.items() <= event.items()


async def test_an_answer_may_be_compared_once_its_image_is_kept(shopper: Shopper) -> None:
    await shopper.detect()
    ((image, prediction, place),) = shopper.answers
    assert (image, prediction.version) == (PHOTO, 3)
    assert place == "valid/images/tea-green/1.jpg"


@pytest.mark.parametrize("image_format", ["PNG", "WEBP"])
async def test_other_formats_reach_the_model_as_sent_too_and_the_bucket_as_jpeg(
    shopper: Shopper, image_format: str
) -> None:
    image = encoded(image_format)
    assert (await shopper.detect(image)).status_code == 200
    kept = shopper.image_store.captures[0].image
    assert Image.open(io.BytesIO(kept)).format == "JPEG"
    assert shopper.classifier.seen == [Photo(image, kept)]


async def test_an_image_that_is_longer_than_a_jpeg_can_be_is_answered_and_kept_smaller(
    shopper: Shopper,
) -> None:
    assert (await shopper.detect(encoded("PNG", (65_501, 1)))).status_code == 200
    kept = shopper.image_store.captures[0].image
    assert Image.open(io.BytesIO(kept)).size == (65_500, 1)


# --- bad input: each costs its sender alone -----------------------------------------------------------


def png_header(width: int, height: int) -> bytes:
    """Return the start of a PNG of this size: all that is read before it is refused."""
    whole = encoded("PNG", (8, 8))
    chunk = whole[12:16] + struct.pack(">II", width, height) + whole[24:29]
    return whole[:12] + chunk + struct.pack(">I", zlib.crc32(chunk)) + whole[33:]


def jpeg_header(width: int, height: int) -> bytes:
    start = PHOTO.index(b"\xff\xc0") + 5
    return PHOTO[:start] + struct.pack(">HH", height, width) + PHOTO[start + 4 :]


@pytest.mark.parametrize("make", [png_header, jpeg_header])
async def test_an_image_of_30000_by_30000_pixels_is_refused(
    shopper: Shopper, make: Callable[[int, int], bytes]
) -> None:
    response = await shopper.client.post("/binary", content=make(30_000, 30_000))
    assert is_problem(response, 413, "pixels")
    assert (shopper.classifier.seen, shopper.image_store.captures) == ([], [])


async def test_too_many_pixels_are_refused(shopper: Shopper) -> None:
    assert is_problem(await shopper.detect(png_header(1001, 1000)), 413, "1001 x 1000")


@pytest.mark.parametrize("content", [b"text", b"GIF89a" + bytes(50), b"<svg/>", b"\xff\xd8\xff"])
async def test_what_is_not_an_image_is_refused(shopper: Shopper, content: bytes) -> None:
    assert is_problem(await shopper.client.post("/binary", content=content), 422, "image")
    assert is_problem(await shopper.detect(content), 422, "image")
    assert shopper.image_store.captures == []


async def test_an_empty_body_is_refused(shopper: Shopper) -> None:
    assert is_problem(await shopper.client.post("/binary"), 422, "empty")
    assert is_problem(await shopper.client.post("/detection"), 400, "not JSON")


async def test_a_damaged_png_is_refused(shopper: Shopper) -> None:
    assert is_problem(await shopper.detect(encoded("PNG")[:-500]), 422, "damaged")


async def test_an_image_that_the_model_cannot_read_is_refused_and_not_kept(shopper: Shopper) -> None:
    shopper.classifier.error = BadInput("the model cannot read this image", status=422)
    assert is_problem(await shopper.detect(PHOTO[:-500]), 422, "cannot read")
    assert shopper.image_store.captures == []


async def test_a_body_that_is_too_large_is_refused(shopper: Shopper) -> None:
    assert is_problem(await shopper.client.post("/binary", content=bytes(MAX_BYTES + 1)), 413, "larger")
    assert is_problem(await shopper.detect(bytes(MAX_BYTES + 60_000)), 413, "")


async def test_a_body_of_unknown_length_that_is_too_large_is_refused(shopper: Shopper) -> None:
    async def stream() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield bytes(10_000)

    assert is_problem(await shopper.client.post("/binary", content=stream()), 413, "larger")


@pytest.mark.parametrize("body", [b"{", b"", b"\xff\xfe", b"image"])
@pytest.mark.parametrize("path", ["/detection", "/ingestion", "/item"])
async def test_json_that_is_not_json_is_refused(shopper: Shopper, path: str, body: bytes) -> None:
    assert is_problem(await shopper.client.post(path, content=body), 400, "not JSON")


@pytest.mark.parametrize("body", ["{}", "[]", '{"image": 7}', '{"image": null}', '"image"'])
async def test_json_of_another_shape_is_refused(shopper: Shopper, body: str) -> None:
    assert is_problem(await shopper.client.post("/detection", content=body), 422, "")


async def test_an_image_that_is_not_base64_is_refused(shopper: Shopper) -> None:
    response = await shopper.client.post("/detection", json={"image": "not base64!"})
    assert is_problem(response, 400, "base64")


async def test_after_all_bad_input_the_next_image_is_answered(shopper: Shopper) -> None:
    await shopper.client.post("/binary", content=b"text")
    assert (await shopper.detect()).json()["known"] == "true"


# --- what is behind it fails --------------------------------------------------------------------------


async def test_without_a_model_the_answer_says_what_to_do(shopper: Shopper) -> None:
    shopper.classifier.error = Unavailable("no model serves yet: upload training images")
    response = await shopper.detect()
    assert is_problem(response, 503, "upload training images")
    assert response.headers["retry-after"] == "5"


async def test_a_full_spool_is_said(shopper: Shopper) -> None:
    shopper.image_store.error = Unavailable("the local spool is full", 507)
    assert is_problem(await shopper.detect(), 507, "full")
    assert shopper.events == []


async def test_a_model_of_another_kind_is_a_bad_gateway_without_details(shopper: Shopper) -> None:
    shopper.classifier.error = Permanent("model tea_model_b64: INTERNAL: /secret/path")
    response = await shopper.detect()
    assert is_problem(response, 502, "")
    assert "secret" not in response.text


async def test_a_bug_is_answered_without_a_trace(shopper: Shopper) -> None:
    shopper.classifier.error = ZeroDivisionError("in line 12")
    response = await shopper.detect()
    assert is_problem(response, 500, "ZeroDivisionError")
    assert "line 12" not in response.text


async def test_ready_names_what_is_missing(shopper: Shopper) -> None:
    assert (await shopper.client.get("/readyz")).json() == {"ready": True, "checks": {"model-server": "ok"}}
    shopper.model_ready = False
    response = await shopper.client.get("/readyz")
    assert response.status_code == 503
    assert "no version" in response.json()["checks"]["model-server"]


# --- teaching -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("product", ["Green Tea", "green tea", "tea-green"])
async def test_a_training_image_is_taken_in(shopper: Shopper, product: str) -> None:
    response = await shopper.ingest(product=product)
    assert (response.status_code, response.json()) == (200, {"status": "done"})
    (capture,) = shopper.image_store.captures
    assert (capture.bucket, capture.item, capture.image) == ("data", "tea-green", PHOTO)
    (event,) = shopper.events
    assert (event["name"], event["item"], event["origin"]) == ("ingestion", "Green Tea", "http")


async def test_a_new_product_is_taken_where_the_sender_says_that_it_is_new(shopper: Shopper) -> None:
    body = {"image": base64.b64encode(PHOTO).decode(), "product": "Mint Tea", "new": True}
    answer = await shopper.client.post("/ingestion", json=body)
    assert answer.json() == {"status": "done", "item": "mint-tea", "label": "mint-tea"}
    assert shopper.image_store.captures[-1].item == "mint-tea"
    answer = await shopper.client.post("/ingestion", json=body | {"product": "GREEN tea"})
    assert answer.json() == {"status": "done", "item": "tea-green", "label": "Green Tea"}
    assert is_problem(await shopper.client.post("/ingestion", json=body | {"product": "…"}), 422, "letters")


async def test_a_repeated_request_with_its_key_is_kept_once(shopper: Shopper) -> None:
    headers = {"Idempotency-Key": "a-photo"}
    answers = [await shopper.client.post("/binary", content=PHOTO, headers=headers) for _ in range(2)]
    assert answers[0].json() == answers[1].json()
    assert len(shopper.image_store.captures) == 1
    too_long = await shopper.client.post("/binary", content=PHOTO, headers={"Idempotency-Key": "x" * 500})
    assert is_problem(too_long, 400, "idempotency key")


async def test_an_unknown_product_is_refused_with_the_list(shopper: Shopper) -> None:
    assert is_problem(await shopper.ingest(product="Mint Tea"), 422, "Lemon Tea")
    assert shopper.image_store.captures == []


async def test_a_truncated_training_image_is_refused(shopper: Shopper) -> None:
    assert is_problem(await shopper.ingest(PHOTO[:-500]), 422, "damaged")
    assert (shopper.image_store.captures, shopper.events) == ([], [])


async def test_a_training_image_without_a_product_is_refused(shopper: Shopper) -> None:
    assert is_problem(await shopper.client.post("/ingestion", json={"image": ""}), 422, "product")


async def test_a_training_image_in_another_format_is_kept_as_jpeg(shopper: Shopper) -> None:
    await shopper.ingest(encoded("WEBP"))
    assert Image.open(io.BytesIO(shopper.image_store.captures[0].image)).format == "JPEG"


async def test_the_options_are_the_labels(shopper: Shopper) -> None:
    assert (await shopper.client.get("/ingestion/options")).json() == {"products": LABELS}


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(("status", "code"), [("done", 200), ("empty", 200), ("queued", 202)])
async def test_a_push_answers_what_became_of_it(
    shopper: Shopper, method: str, status: str, code: int
) -> None:
    shopper.push.outcome = {"status": status}
    response = await shopper.client.request(method, "/zip")
    assert (response.status_code, response.json()) == (code, {"status": status})


async def test_a_push_that_the_feeder_refuses_says_why(shopper: Shopper) -> None:
    shopper.push.outcome = Refused("the feeder refused the images: 404 edge 'edge9' is not configured here")
    assert is_problem(await shopper.client.get("/zip"), 502, "edge9")


async def test_a_push_without_an_object_store_is_not_taken(shopper: Shopper) -> None:
    shopper.push.outcome = Transient("S3 could not write: connection refused to 10.0.0.1")
    response = await shopper.client.get("/zip")
    assert is_problem(response, 503, "try again")
    assert "10.0.0.1" not in response.text


# --- the catalogue ------------------------------------------------------------------------------------


async def test_an_item_is_priced(shopper: Shopper) -> None:
    response = await shopper.client.get("/price", headers={"item": "tea-green"})
    assert response.json() == {"item": "tea-green", "label": "Green Tea", "price": "2.99"}


async def test_other_is_priced_with_all_labels(shopper: Shopper) -> None:
    response = await shopper.client.get("/price", headers={"item": "other"})
    assert response.json() == {"item": "other", "label": "Other", "price": "N/A", "products": LABELS}


async def test_an_item_without_an_entry_is_its_own_label(shopper: Shopper) -> None:
    response = await shopper.client.get("/price", headers={"item": "tea-mint"})
    assert response.json() == {"item": "tea-mint", "label": "tea-mint", "price": "N/A"}


@pytest.mark.parametrize("headers", [{}, {"item": " "}])
async def test_a_price_of_nothing_is_refused(shopper: Shopper, headers: dict[str, str]) -> None:
    assert is_problem(await shopper.client.get("/price", headers=headers), 400, "header item")


async def test_a_label_has_its_item(shopper: Shopper) -> None:
    response = await shopper.client.post("/item", json={"product": "Green Tea"})
    assert response.json() == {"item": "tea-green"}
    assert is_problem(await shopper.client.post("/item", json={"product": "Mint Tea"}), 422, "Green Tea")


# --- browsers -----------------------------------------------------------------------------------------

ELSEWHERE = {"origin": "https://elsewhere.example"}
OWN = {"origin": "http://shopper:8080"}


@pytest.mark.parametrize("path", ["/ingestion/options", "/price", "/healthz", "/readyz"])
async def test_reads_are_open_to_pages_of_any_origin(shopper: Shopper, path: str) -> None:
    response = await shopper.client.get(path, headers={**ELSEWHERE, "item": "other"})
    assert response.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize("path", ["/detection", "/binary", "/item"])
async def test_detections_are_open_to_pages_of_any_origin_errors_too(shopper: Shopper, path: str) -> None:
    preflight = await shopper.client.options(
        path,
        headers={
            **ELSEWHERE,
            "access-control-request-method": "POST",
            "access-control-request-headers": "content-type",
        },
    )
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-origin"] == "*"
    assert preflight.headers["access-control-allow-methods"] == "POST"
    assert "content-type" in preflight.headers["access-control-allow-headers"]
    response = await shopper.client.post(path, headers=ELSEWHERE)
    assert response.status_code >= 400
    assert response.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize(("method", "path"), [("POST", "/ingestion"), ("POST", "/zip"), ("GET", "/zip")])
async def test_teaching_and_sending_are_refused_to_pages_of_other_origins(
    shopper: Shopper, method: str, path: str
) -> None:
    response = await shopper.client.request(method, path, headers=ELSEWHERE)
    assert is_problem(response, 403, "own page")
    assert "access-control-allow-origin" not in response.headers
    for headers in ({"sec-fetch-site": "cross-site"}, {"origin": "http://[no-address"}):
        link = await shopper.client.request(method, path, headers=headers)
        assert link.status_code == 403
    preflight = await shopper.client.options(
        path, headers={**ELSEWHERE, "access-control-request-method": method}
    )
    assert "access-control-allow-origin" not in preflight.headers


@pytest.mark.parametrize("headers", [OWN, {"sec-fetch-site": "same-origin"}, {"sec-fetch-site": "none"}])
async def test_the_own_page_may_send(shopper: Shopper, headers: dict[str, str]) -> None:
    assert (await shopper.client.post("/zip", headers=headers)).status_code == 200


# --- several models, and what they think of other classes ---------------------------------------------


async def test_a_request_names_its_model(shopper: Shopper) -> None:
    image = base64.b64encode(PHOTO).decode()
    await shopper.client.post("/binary?model=digits", content=PHOTO)
    await shopper.client.post("/detection?model=digits", json={"image": image})
    await shopper.client.post("/detection", json={"image": image, "model": "fashion"})
    await shopper.detect()
    assert shopper.classifier.models == ["digits", "digits", "fashion", ""]


async def test_an_unknown_model_is_not_found(shopper: Shopper) -> None:
    shopper.classifier.error = BadInput("model 'coffee' is not served here", 404, reason="unknown-model")
    response = await shopper.client.post("/binary?model=coffee", content=PHOTO)
    assert is_problem(response, 404, "coffee")
    assert shopper.image_store.captures == []


@pytest.mark.parametrize(("top", "classes"), [(1, ["b"]), (2, ["b", "c"]), (10, ["b", "c", "a"])])
async def test_the_likeliest_classes_are_told_when_asked_for(
    shopper: Shopper, top: int, classes: list[str]
) -> None:
    shopper.classifier.probabilities = {"a": 0.1, "b": 0.7, "c": 0.2}
    plain = (await shopper.detect()).json()
    answer = (await shopper.client.post(f"/binary?top={top}", content=PHOTO)).json()
    assert "probabilities" not in plain
    assert list(answer["probabilities"]) == classes
    assert {**plain, "probabilities": answer["probabilities"]} == answer


@pytest.mark.parametrize("top", ["0", "-1", "x", "", "1001", "9" * 5000, "²"])
async def test_a_top_that_is_no_number_is_refused(shopper: Shopper, top: str) -> None:
    assert is_problem(await shopper.client.post("/binary", params={"top": top}, content=PHOTO), 400, "top")


async def test_a_threshold_may_be_a_models_own(shopper: Shopper) -> None:
    shopper.thresholds["tea_model_b64"] = 0.9
    assert (await shopper.detect()).json()["known"] == "false"


# --- pixels -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "mode"),
    [
        (np.full((28, 28, 1), 0.5, np.float32), "L"),
        (np.full((28, 28, 1), 128, np.uint8), "L"),
        (np.full((28, 28, 3), 128, np.uint8), "RGB"),
    ],
)
async def test_the_pixels_of_a_camera_are_classified_as_they_are_and_kept_as_jpeg(
    shopper: Shopper, values: Any, mode: str
) -> None:
    pixels = Pixels(values)
    await shopper.route(pixels, Sender("mqtt", "door"))
    assert shopper.classifier.seen == [pixels]
    (capture,) = shopper.image_store.captures
    kept = Image.open(io.BytesIO(capture.image))
    assert (kept.format, kept.size, kept.mode) == ("JPEG", (28, 28), mode)
    assert kept.convert("L").getpixel((14, 14)) == pytest.approx(128, abs=2)


async def test_the_record_is_made_of_what_is_kept(shopper: Shopper) -> None:
    await shopper.route(PHOTO, Sender("http", "door"))
    ((recognition, sender, image, at, key),) = shopper.records
    assert key == "images/tea-green/1.jpg"
    assert (recognition.prediction.item, sender.camera, image) == ("tea-green", "door", PHOTO)
    assert at == shopper.image_store.captures[0].at


# --- tokens -------------------------------------------------------------------------------------------

TOKENS = {"till": "correct-horse", "door": "battery-staple"}


@pytest.fixture
async def guarded() -> AsyncIterator[Shopper]:
    shopper = Shopper(TOKENS)
    async with shopper.client:
        yield shopper


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/detection"), ("POST", "/binary"), ("POST", "/ingestion"), ("POST", "/zip"), ("GET", "/zip")],
)
@pytest.mark.parametrize(
    ("header", "reason"),
    [(None, "no-token"), ("Bearer wrong-token", "wrong-token"), ("Basic abc", "no-token")],
)
async def test_without_a_token_nothing_is_done_nor_read(
    guarded: Shopper, method: str, path: str, header: str | None, reason: str
) -> None:
    async def body() -> AsyncIterator[bytes]:
        raise AssertionError
        yield b""

    labels = {"door": f"{method} {path}", "reason": reason}
    before = REGISTRY.get_sample_value("caravan_refusals_total", labels) or 0.0
    headers = {"Authorization": header} if header else {}
    response = await guarded.client.request(method, path, content=body(), headers=headers)
    assert is_problem(response, 401, "token")
    assert response.headers["www-authenticate"] == "Bearer"
    assert REGISTRY.get_sample_value("caravan_refusals_total", labels) == before + 1
    assert (guarded.classifier.seen, guarded.image_store.captures) == ([], [])


@pytest.mark.parametrize(("headers", "camera"), [({}, "door"), ({"camera": "porch"}, "porch")])
async def test_the_holder_of_a_token_is_the_camera_if_no_header_names_one(
    guarded: Shopper, headers: dict[str, str], camera: str
) -> None:
    headers |= {"Authorization": "Bearer battery-staple"}
    response = await guarded.client.post("/binary", content=PHOTO, headers=headers)
    assert response.status_code == 200
    assert guarded.image_store.captures[0].facts["camera"] == camera


@pytest.mark.parametrize("path", ["/ingestion/options", "/healthz", "/readyz", "/metrics"])
async def test_reading_needs_no_token(guarded: Shopper, path: str) -> None:
    assert (await guarded.client.get(path)).status_code == 200


async def test_prices_need_no_token(guarded: Shopper) -> None:
    assert (await guarded.client.get("/price", headers={"item": "tea-green"})).status_code == 200
    assert (await guarded.client.post("/item", json={"product": "Green Tea"})).status_code == 200


async def test_a_page_of_another_origin_may_show_a_token(guarded: Shopper) -> None:
    preflight = await guarded.client.options(
        "/detection",
        headers={
            "origin": "http://elsewhere.example",
            "access-control-request-method": "POST",
            "access-control-request-headers": "authorization",
        },
    )
    assert preflight.status_code == 204
    assert "authorization" in preflight.headers["access-control-allow-headers"]
    refused = await guarded.client.post("/binary", headers={"origin": "http://elsewhere.example"})
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == "*"


# --- what clients send --------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "fields"), [("/binary", {}), ("/detection", {"model": "other"})])
async def test_an_image_in_a_form_is_recognised(shopper: Shopper, path: str, fields: dict[str, str]) -> None:
    files = {"image": ("photo.jpg", PHOTO, "image/jpeg")}
    response = await shopper.client.post(path, files=files, data=fields)
    assert (response.status_code, response.json()["item"]) == (200, "tea-green")
    assert (shopper.classifier.seen, shopper.classifier.models) == ([PHOTO], [fields.get("model", "")])


async def test_a_training_image_in_a_form_is_taken_in(shopper: Shopper) -> None:
    files = {"image": ("photo.jpg", PHOTO, "image/jpeg")}
    named = {"product": "Green Tea"}
    assert (await shopper.client.post("/ingestion", files=files, data=named)).json() == {"status": "done"}
    new = {"product": "Mint Tea", "new": "true"}
    assert (await shopper.client.post("/ingestion", files=files, data=new)).json()["item"] == "mint-tea"
    assert [(one.item, one.image) for one in shopper.image_store.captures] == [
        ("tea-green", PHOTO),
        ("mint-tea", PHOTO),
    ]
    assert is_problem(await shopper.client.post("/ingestion", files=files), 422, "no product")


@pytest.mark.parametrize(
    ("content", "content_type", "status", "says"),
    [
        (b"--b\r\n", "multipart/form-data", 400, "not the form"),
        (b"--b\r\nContent-Disposition: form-data; name=image; filename=a\r\n\r\nx", "", 400, "last boundary"),
        (b"--b\r\nContent-Disposition: form-data; name=image\r\n\r\nx\r\n--b--\r\n", "", 422, "0 files"),
        (b"--b\r\nA: b\r\n\r\n\r\n" * 20 + b"--b--\r\n", "", 413, "16 parts"),
    ],
)
async def test_a_form_that_is_none_or_has_no_image_is_refused(
    shopper: Shopper, content: bytes, content_type: str, status: int, says: str
) -> None:
    headers = {"Content-Type": content_type or "multipart/form-data; boundary=b"}
    response = await shopper.client.post("/binary", content=content, headers=headers)
    assert is_problem(response, status, says)


@pytest.mark.parametrize(
    ("says", "product", "status"),
    [
        (b"Content-Type: text/plain; charset=ISO-8859-1", "Grüner Tee".encode("latin-1"), 200),
        (b"Content-Type: text/plain; charset=utf8", "Grüner Tee".encode(), 200),
        (b"Content-Type: text/plain", "Grüner Tee".encode("latin-1"), 415),
        (b"Content-Type: text/plain; charset=punycode", b"Gruner Tee", 415),
        (b"Content-Transfer-Encoding: quoted-printable", b"Gr=C3=BCner Tee", 200),
        (b"Content-Transfer-Encoding: Base64", base64.b64encode("Grüner Tee".encode()), 200),
        (b"Content-Transfer-Encoding: base64", b"R", 400),
        (b"Content-Transfer-Encoding: x-uuencode", b"Gruner Tee", 415),
    ],
)
async def test_a_product_in_a_form_is_read_as_the_form_says_or_refused_and_never_garbled(
    shopper: Shopper, says: bytes, product: bytes, status: int
) -> None:
    image = b"name=image; filename=a.jpg\r\nContent-Transfer-Encoding: base64\r\n\r\n" + base64.encodebytes(
        PHOTO
    )
    unfilled = b'name=another; filename=""\r\nContent-Type: application/octet-stream\r\n\r\n'
    parts = (image, unfilled, b"name=product\r\n" + says + b"\r\n\r\n" + product, b"name=new\r\n\r\non")
    body = (
        b"".join(b"--b\r\nContent-Disposition: form-data; " + part + b"\r\n" for part in parts) + b"--b--\r\n"
    )
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    response = await shopper.client.post("/ingestion", content=body, headers=headers)
    assert response.status_code == status, response.text
    kept = [(one.item, one.image) for one in shopper.image_store.captures]
    assert kept == ([("grüner-tee", PHOTO)] if status == 200 else [])


async def test_an_image_where_json_belongs_is_told_how_to_come(shopper: Shopper) -> None:
    for path in ("/detection", "/ingestion"):
        assert is_problem(await shopper.client.post(path, content=PHOTO), 415, "curl -F")
        assert is_problem(await shopper.client.post(path, data={}), 400, "not JSON")
        fields = await shopper.client.post(path, data={"image": "", "product": "Green Tea"})
        assert is_problem(fields, 415, "a form of fields")
    for margin in (b"", b"\xef\xbb\xbf", b"\r\n  "):
        response = await shopper.client.post("/binary", content=margin + b'{"image": ""}')
        assert is_problem(response, 415, "/detection")


async def test_a_part_of_an_image_type_is_the_file_of_a_form_without_a_file_name(shopper: Shopper) -> None:
    head = b"--b\r\nContent-Disposition: form-data; name=image\r\nContent-Type: image/jpeg\r\n\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    body = head + PHOTO + b"\r\n--b--\r\n"
    assert (await shopper.client.post("/binary", content=body, headers=headers)).status_code == 200
    assert shopper.classifier.seen == [PHOTO]


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [
        ("gzip", gzip.compress),
        ("x-gzip", lambda body: gzip.compress(body[:40]) + gzip.compress(body[40:])),
        ("deflate", zlib.compress),
        ("deflate", lambda body: zlib.compress(body, wbits=-15)),
        ("identity", bytes),
        ("", bytes),
        ("GZIP, identity", gzip.compress),
    ],
)
async def test_a_packed_body_is_unpacked(
    shopper: Shopper, encoding: str, pack: Callable[[bytes], bytes]
) -> None:
    async def sent(body: bytes) -> AsyncIterator[bytes]:
        for start in range(0, len(body), 7):
            yield body[start : start + 7]

    headers = {"Content-Encoding": encoding}
    response = await shopper.client.post("/binary", content=sent(pack(PHOTO)), headers=headers)
    assert (response.status_code, shopper.classifier.seen) == (200, [PHOTO])


@pytest.mark.parametrize(
    ("encoding", "body", "status", "says"),
    [
        ("zstd", PHOTO, 415, "gzip, deflate"),
        ("gzip", PHOTO, 400, "not gzip"),
        ("gzip", gzip.compress(PHOTO)[:-20], 400, "not all of it"),
        ("deflate", b"x", 400, "not deflate"),
        ("gzip", gzip.compress(bytes(MAX_BYTES + 1)), 413, "larger than"),
    ],
)
async def test_a_body_packed_otherwise_or_larger_than_it_seems_is_refused(
    shopper: Shopper, encoding: str, body: bytes, status: int, says: str
) -> None:
    headers = {"Content-Encoding": encoding}
    assert is_problem(await shopper.client.post("/binary", content=body, headers=headers), status, says)


async def test_json_with_a_byte_order_mark_is_read(shopper: Shopper) -> None:
    response = await shopper.client.post("/item", content=b"\xef\xbb\xbf" + b'{"product": "Green Tea"}')
    assert response.json() == {"item": "tea-green"}


@pytest.mark.parametrize("charset", ["latin-1", "utf-16", "utf-16-le"])
async def test_json_in_another_charset_is_told_which_it_must_be(shopper: Shopper, charset: str) -> None:
    body = '{"product": "Grüner Tee"}'.encode(charset)
    headers = {"Content-Type": f"application/json; charset={charset}"}
    assert is_problem(await shopper.client.post("/item", content=body, headers=headers), 400, "in UTF-8")


@pytest.mark.parametrize("charset", ["utf-8", "latin-1"])
async def test_an_item_in_a_header_is_utf_8_or_as_browsers_send_it(shopper: Shopper, charset: str) -> None:
    response = await shopper.client.get("/price", headers=[(b"item", "grüner-tee".encode(charset))])
    assert response.json()["item"] == "grüner-tee"


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/ingestion/options", "/nothing"])
async def test_head_is_answered_as_get_is(shopper: Shopper, path: str) -> None:
    got, asked = await shopper.client.get(path), await shopper.client.head(path)
    assert (asked.status_code, asked.headers["content-type"]) == (
        got.status_code,
        got.headers["content-type"],
    )
    assert asked.content == b""


async def test_head_sends_no_training_images(shopper: Shopper) -> None:
    response = await shopper.client.head("/zip")
    assert (response.status_code, response.headers["allow"]) == (405, "GET, POST")


async def test_a_method_that_is_not_taken_is_told_which_are(shopper: Shopper) -> None:
    assert is_problem(await shopper.client.get("/detection"), 405, "GET is not taken here, but POST")
    assert is_problem(await shopper.client.post("/nothing"), 404, "nothing at this path")


async def test_a_key_that_comes_with_another_image_is_refused(shopper: Shopper) -> None:
    headers = {"Idempotency-Key": "1"}
    assert (await shopper.client.post("/binary", content=PHOTO, headers=headers)).status_code == 200
    other = await shopper.client.post("/binary", content=encoded("PNG"), headers=headers)
    assert is_problem(other, 422, "another request")
    assert len(shopper.image_store.captures) == 1


async def test_bodies_are_charged_as_they_come_and_not_as_they_are_announced(shopper: Shopper) -> None:
    silent, begun = asyncio.Event(), 0

    async def never() -> AsyncIterator[bytes]:
        nonlocal begun
        yield b"x"
        begun += 1
        await silent.wait()

    headers = {"Content-Length": str(MAX_BYTES)}
    senders = [
        asyncio.create_task(shopper.client.post("/binary", content=never(), headers=headers))
        for _ in range(100)  # twice their size is four times what the door may hold
    ]
    await until(lambda: begun == len(senders))
    async with asyncio.timeout(5):
        assert (await shopper.detect()).status_code == 200
    silent.set()
    await asyncio.gather(*senders, return_exceptions=True)


async def test_a_system_behind_that_refuses_is_told_with_its_reason(shopper: Shopper) -> None:
    shopper.classifier.error = Refused("model tea: INTERNAL: no kernel")
    assert is_problem(await shopper.detect(), 502, "no kernel")


async def test_no_open_files_left_is_told_as_something_that_passes(shopper: Shopper) -> None:
    shopper.classifier.error = OSError(errno.EMFILE, "too many open files")
    response = await shopper.detect()
    assert is_problem(response, 503, "too many files")
    assert response.headers["retry-after"]
