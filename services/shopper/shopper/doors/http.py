"""The HTTP door: decodes, calls a route, encodes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Protocol, TypeVar

import structlog
from fastapi import FastAPI, Request, Response
from starlette.requests import ClientDisconnect

from caravan import http, telemetry
from caravan.contracts import to_json
from caravan.errors import BadInput
from caravan.problems import problem
from caravan.sessions import Sessions
from caravan.tokens import ANYONE
from shopper import detection as detections
from shopper import routes
from shopper.detection import Answer
from shopper.doors.cors import Cors
from shopper.doors.encoding import ImageMessage, LabelledImage, ProductName, decode_image, json_limit
from shopper.doors.once import Once
from shopper.images.budget import MemoryBudget
from shopper.ports import Picture, Push, Sender
from shopper.shelf import Shelf

T = TypeVar("T")

BODY_SECONDS = 30.0
MOST_CLASSES = 1000
"""That a reply lists the probabilities of."""
SMALL_BODY = 2**16
"""Bytes of a body without an image; and up to here decoding is not worth a thread."""


class Detect(Protocol):
    """The route `detect`, with its ports."""

    async def __call__(self, image: Picture, sender: Sender, answer: Answer = ...) -> dict[str, Any]:
        """Answer one image; `answer` words the reply where the usual one will not do."""
        ...


class Ingest(Protocol):
    """The route `ingest`, with its ports."""

    async def __call__(self, image: bytes, name: str, sender: Sender, *, new: bool = ...) -> dict[str, str]:
        """Take one labelled image in; `new` where the catalogue need not have the product."""
        ...


def make_app(
    *,
    detect: Detect,
    ingest: Ingest,
    push: Push,
    shelf: Shelf,
    bodies: MemoryBudget,
    max_image_bytes: int,
    checks: Mapping[str, http.Check],
    sessions: Sessions,
) -> FastAPI:
    """Return the web app.

    Args:
        detect: route of the detections.
        ingest: route of the labelled images.
        push: sends training images.
        shelf: the catalogue.
        bodies: memory that all request bodies may take.
        max_image_bytes: of an image, encoded.
        checks: what `/readyz` asks.
        sessions: open the doors that detect, teach and send.

    """
    app = FastAPI(title="Caravan shopper", docs_url=None, redoc_url=None)
    app.add_middleware(Cors)
    http.install(app, checks)
    _answer_errors(app)
    once = Once()
    body = partial(_body, bodies)
    admitted = partial(_admitted, sessions)
    max_json_bytes = json_limit(max_image_bytes)

    @app.post("/detection", tags=["detection"])
    async def detection(request: Request) -> Response:
        """Recognise and price an image: `{"image": "<base64>"[, "model": "<name>"]}`."""
        with admitted(request) as sender:
            answer = _answer(request)
            async with body(request, max_json_bytes) as raw:
                with telemetry.exchange(routes.DETECT_HTTP):
                    image, model = await _decoded(_image, raw)
                    asking = replace(sender, model=sender.model or model)
                    return _json(await once(_key(request), partial(detect, image, asking, answer)))

    @app.post("/binary", tags=["detection"])
    async def binary(request: Request) -> Response:
        """Recognise and price an image: the body is the image."""
        with admitted(request) as sender:
            answer = _answer(request)
            async with body(request, max_image_bytes) as image:
                with telemetry.exchange(routes.DETECT_BINARY):
                    return _json(await once(_key(request), partial(detect, image, sender, answer)))

    @app.post("/ingestion", tags=["training"])
    async def ingestion(request: Request) -> Response:
        """Take a training image in: `{"image": "<base64>", "product": "<label>"[, "new": true]}`."""
        with admitted(request) as sender:
            async with body(request, max_json_bytes) as raw:
                with telemetry.exchange(routes.INGEST):
                    image, product, new = await _decoded(_labelled, raw)
                    taking = partial(ingest, image, product, sender, new=new)
                    return _json(await once(_key(request), taking))

    @app.get("/ingestion/options", tags=["training"])
    async def options() -> Response:
        """List the labels that an image can have."""
        with telemetry.exchange(routes.INGEST_OPTIONS):
            return _json(await routes.ingest_options(shelf))

    @app.get("/zip", tags=["training"])
    @app.post("/zip", tags=["training"])
    async def zip_(request: Request) -> Response:
        """Send the training images to central; 202 if the link is down and they will follow."""
        with admitted(request), telemetry.exchange(routes.PUSH_TRAINING_DATA):
            account = await routes.push_training_data(push)
        return _json(account, 202 if account["status"] == "queued" else 200)

    @app.get("/price", tags=["catalogue"])
    async def price(request: Request) -> Response:
        """Price the item that the header `item` names."""
        with telemetry.exchange(routes.PRICE):
            item = request.headers.get("item", "").strip()
            if not item:
                raise BadInput("the header item is missing: it names an item, as in item: tea-green")
            return _json(await routes.price(item, shelf))

    @app.post("/item", tags=["catalogue"])
    async def item(request: Request) -> Response:
        """Name the item of a label: `{"product": "Green Tea"}`."""
        async with body(request, SMALL_BODY) as raw:
            with telemetry.exchange(routes.ITEM):
                wanted = http.decode_json(ProductName, raw)
                return _json(await routes.item(wanted.product, shelf))

    return app


@asynccontextmanager
async def _body(bodies: MemoryBudget, request: Request, limit: int) -> AsyncIterator[bytes]:
    """Hold a body, and the same again for what is decoded from it, while a request is served."""
    declared = int(request.headers.get("content-length") or limit)
    async with bodies.hold(2 * min(declared, limit)):
        try:
            async with asyncio.timeout(BODY_SECONDS):
                raw = await http.bounded_body(request, limit)
        except TimeoutError as exc:
            message = f"the body did not arrive within {BODY_SECONDS:.0f} s"
            raise BadInput(message, status=408) from exc
        yield raw


async def _decoded(decode: Callable[[bytes], T], raw: bytes) -> T:
    return decode(raw) if len(raw) <= SMALL_BODY else await asyncio.to_thread(decode, raw)


def _image(raw: bytes) -> tuple[bytes, str]:
    message = http.decode_json(ImageMessage, raw)
    return decode_image(message.image), message.model


def _labelled(raw: bytes) -> tuple[bytes, str, bool]:
    message = http.decode_json(LabelledImage, raw)
    return decode_image(message.image), message.product, message.new


def _key(request: Request) -> str:
    key = request.headers.get("idempotency-key", "")
    return f"{request.url.path}?{request.url.query} {key}" if key else ""


@contextmanager
def _admitted(sessions: Sessions, request: Request) -> Iterator[Sender]:
    """Let in who shows a token or has a session, before the body is read; who it is stands on each log line.

    Its name stands for the camera where no header does.
    """
    holder = sessions.holder(request)
    # HTTP headers are bytes; the framework reads them as Latin-1.
    camera = request.headers.get("camera", "").encode("latin-1").decode(errors="replace")
    known = "" if holder == ANYONE else holder
    with structlog.contextvars.bound_contextvars(**{"holder": known} if known else {}):
        yield Sender("http", camera or known, request.query_params.get("model", ""))


def _answer(request: Request) -> Answer:
    top = request.query_params.get("top")
    if top is None:
        return detections.answer
    if not (top.isdecimal() and len(top) <= len(str(MOST_CLASSES)) and 1 <= int(top) <= MOST_CLASSES):
        raise BadInput(f"top is a whole number of 1 to {MOST_CLASSES}")
    return partial(detections.with_probabilities, top=int(top))


def _json(content: Mapping[str, Any], status: int = 200) -> Response:
    return Response(to_json(content), status, media_type="application/json")


def _answer_errors(app: FastAPI) -> None:
    @app.exception_handler(ClientDisconnect)
    async def _gone(_: Request, __: ClientDisconnect) -> Response:
        return http.answer(problem(400, "the body ended early"))
