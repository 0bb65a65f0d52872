"""The HTTP door: decodes, calls a route, encodes."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from typing import Any, Protocol, TypeVar

import structlog
from fastapi import FastAPI, Request, Response
from pydantic import BaseModel

from caravan import http
from caravan.contracts import to_json
from caravan.errors import BadInput
from caravan.intake import Senders
from caravan.route import Route
from caravan.sessions import Sessions
from caravan.tokens import ANYONE
from shopper import detection as detections
from shopper import routes
from shopper.catalogue_file import CatalogueFile
from shopper.detection import Answer
from shopper.doors import forms
from shopper.doors.cors import Cors
from shopper.doors.encoding import (
    AROUND_BYTES,
    ImageMessage,
    LabelledImage,
    ProductName,
    decode_image,
    json_limit,
)
from shopper.doors.idempotency import IdempotencyCache, IdempotentRequest
from shopper.images.budget import MemoryBudget
from shopper.ports import Picture, Push, Sender

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)

Received = Callable[[Request, Route, int], AbstractAsyncContextManager[bytes]]
Decode = Callable[[Request, bytes], tuple[bytes, str]]
"""Returns the image in a body, and the model that the body names, empty if none."""

MOST_CLASSES = 1000
"""Most classes whose probabilities a reply lists."""
SMALL_BODY = 2**16
"""Most bytes of a body without an image."""
QUICK_BODY = 2**18
"""Most bytes of a body that is decoded without a thread: decoding takes half a millisecond and holds the
interpreter."""
IMAGE_STARTS = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF")
"""First bytes of JPEG, PNG and WebP."""
FIELDS = "application/x-www-form-urlencoded"
"""Content type of a form without files."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
JSON_MARGIN = 64
"""First bytes of a body in which a JSON object must begin."""


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
    catalogue_file: CatalogueFile,
    bodies: MemoryBudget,
    max_image_bytes: int,
    checks: Mapping[str, http.Check],
    sessions: Sessions,
    senders: Senders | None = None,
) -> FastAPI:
    """Return the web app.

    Args:
        detect: route of the detections.
        ingest: route of the labelled images.
        push: sends training images.
        catalogue_file: the catalogue.
        bodies: memory that all request bodies may take.
        max_image_bytes: most bytes of an encoded image.
        checks: checks of `/readyz`, by name.
        sessions: open the doors that detect, teach and send.
        senders: those who send a body now; None for the usual limits.

    """
    app = FastAPI(title="Caravan shopper", docs_url=None, redoc_url=None)
    app.add_middleware(Cors)
    http.install(app, checks, senders, unsafe={"/zip"})
    once = IdempotencyCache()
    received = partial(_received, bodies)
    admitted = partial(_admitted, sessions)
    max_json_bytes = json_limit(max_image_bytes)

    async def detected(request: Request, route: Route, limit: int, decode: Decode) -> Response:
        with admitted(request) as sender:
            answer = _answer(request)
            async with received(request, route, limit) as raw:
                image, model = await _in_thread(partial(decode, request), raw)
                named = replace(sender, model=sender.model or model)
                key = await _idempotency(request, sessions, image, model)
                return _json(await once(key, partial(detect, image, named, answer)))

    @app.post("/detection", tags=["detection"])
    async def detection(request: Request) -> Response:
        """Recognise and price an image: `{"image": "<base64>"[, "model": "<name>"]}`, or a form."""
        return await detected(request, routes.DETECT_HTTP, max_json_bytes, _image)

    @app.post("/binary", tags=["detection"])
    async def binary(request: Request) -> Response:
        """Recognise and price an image: the body is the image, or a form with it."""
        around = AROUND_BYTES if forms.is_form(_content_type(request)) else 0
        return await detected(request, routes.DETECT_BINARY, max_image_bytes + around, _bytes)

    @app.post("/ingestion", tags=["training"])
    async def ingestion(request: Request) -> Response:
        """Take a training image in: `{"image": "<base64>", "product": "<label>"[, "new": true]}`, a form."""
        with admitted(request) as sender:
            async with received(request, routes.INGEST, max_json_bytes) as raw:
                image, product, new = await _in_thread(partial(_labelled, request), raw)
                key = await _idempotency(request, sessions, image, product, new)
                return _json(await once(key, partial(ingest, image, product, sender, new=new)))

    @app.get("/zip", tags=["training"])
    @app.post("/zip", tags=["training"])
    async def zip_(request: Request) -> Response:
        """Send the training images to central; 202 if the link is down and they will follow."""
        with admitted(request), routes.PUSH_TRAINING_DATA.exchange():
            account = await routes.push_training_data(push)
        return _json(to_json(account), 202 if account["status"] == "queued" else 200)

    _install_catalogue(app, catalogue_file, received)
    return app


def _install_catalogue(app: FastAPI, catalogue_file: CatalogueFile, received: Received) -> None:
    @app.get("/ingestion/options", tags=["training"])
    async def options() -> Response:
        """List the labels that an image can have."""
        with routes.INGEST_OPTIONS.exchange():
            return _json(to_json(await routes.ingest_options(catalogue_file)))

    @app.get("/price", tags=["catalogue"])
    async def price(request: Request) -> Response:
        """Price the item that the header `item` names."""
        with routes.PRICE.exchange():
            item = _text_of(request, "item").strip()
            if not item:
                raise BadInput("the header item is missing: it names an item, as in item: tea-green")
            return _json(to_json(await routes.price(item, catalogue_file)))

    @app.post("/item", tags=["catalogue"])
    async def item(request: Request) -> Response:
        """Name the item of a label: `{"product": "Green Tea"}`."""
        async with received(request, routes.ITEM, SMALL_BODY) as raw:
            wanted = http.decode_json(ProductName, raw)
            return _json(to_json(await routes.item(wanted.product, catalogue_file)))


@asynccontextmanager
async def _received(bodies: MemoryBudget, request: Request, route: Route, limit: int) -> AsyncIterator[bytes]:
    """Read a body within its limit, then open the route's exchange.

    While the request is served, its body counts twice in `bodies`: as it came, and as it is decoded.
    """
    async with bodies.growing() as held:
        raw = await http.bounded_body(request, limit, lambda size, left: held.grow(2 * size, 2 * left))
        with route.exchange():
            yield raw


async def _idempotency(
    request: Request, sessions: Sessions, image: bytes, *more: str | bool
) -> IdempotentRequest:
    """Return what identifies a request that is sent again; `more` is what it says beside the image."""
    key = _text_of(request, "idempotency-key")
    if not key:
        return IdempotentRequest("", "", "", b"")
    said = repr((request.url.query, _text_of(request, "camera"), *more)).encode()
    digest = await _in_thread(lambda content: hashlib.sha256(said + content).digest(), image)
    return IdempotentRequest(sessions.holder(request), request.url.path, key, digest)


async def _in_thread(work: Callable[[bytes], T], raw: bytes) -> T:
    """Work on a body, in a thread if it is large."""
    return work(raw) if len(raw) <= QUICK_BODY else await asyncio.to_thread(work, raw)


def _image(request: Request, raw: bytes) -> tuple[bytes, str]:
    if forms.is_form(_content_type(request)):
        return _bytes(request, raw)
    message = _json_message(ImageMessage, request, raw)
    return decode_image(message.image), message.model


def _bytes(request: Request, raw: bytes) -> tuple[bytes, str]:
    if not forms.is_form(_content_type(request)):
        if raw[:JSON_MARGIN].removeprefix(BYTE_ORDER_MARK).lstrip().startswith(b"{"):
            raise BadInput("the body is JSON: here it is the image itself; JSON goes to /detection", 415)
        return raw, ""
    form = forms.read(raw, _content_type(request))
    return form.image, form.text("model")


def _labelled(request: Request, raw: bytes) -> tuple[bytes, str, bool]:
    if not forms.is_form(_content_type(request)):
        message = _json_message(LabelledImage, request, raw)
        return decode_image(message.image), message.product, message.new
    form = forms.read(raw, _content_type(request))
    if not form.text("product"):
        raise BadInput("the form names no product: curl -F image=@photo.jpg -F product='Green Tea'", 422)
    return form.image, form.text("product"), form.flag("new")


def _json_message(model: type[M], request: Request, raw: bytes) -> M:
    try:
        return http.decode_json(model, raw)
    except BadInput as exc:
        if exc.status != HTTPStatus.BAD_REQUEST:
            raise
        # Its type alone does not tell: curl -d names JSON a form of fields too.
        if raw.startswith(IMAGE_STARTS):
            what = "an image"
        elif raw and _content_type(request).lower().startswith(FIELDS):
            what = "a form of fields"
        else:
            raise
        message = f"the body is {what}: here it comes in JSON, or in a form, as by curl -F image=@photo.jpg"
        raise BadInput(message, 415, reason="not-json") from exc


def _content_type(request: Request) -> str:
    return request.headers.get("content-type", "")


def _text_of(request: Request, header: str) -> str:
    """Return a header as text: UTF-8, or Latin-1 as browsers and Python's `requests` send it.

    HTTP headers are bytes, which the framework reads as Latin-1.
    """
    received = request.headers.get(header, "")
    try:
        return received.encode("latin-1").decode()
    except UnicodeDecodeError:
        return received


@contextmanager
def _admitted(sessions: Sessions, request: Request) -> Iterator[Sender]:
    """Admit a valid token or session before the body is read, and bind its holder to every log line.

    The holder's name is the camera's where no header names one.
    """
    holder = sessions.holder(request)
    camera = _text_of(request, "camera")
    known = "" if holder == ANYONE else holder
    with structlog.contextvars.bound_contextvars(**{"holder": known} if known else {}):
        yield Sender("http", camera or known, request.query_params.get("model", ""))


def _answer(request: Request) -> Answer:
    top = request.query_params.get("top")
    if top is None:
        return detections.answer
    if not (
        top.isascii()
        and top.isdecimal()
        and len(top) <= len(str(MOST_CLASSES))
        and 1 <= int(top) <= MOST_CLASSES
    ):
        raise BadInput(f"top is a whole number of 1 to {MOST_CLASSES}")
    return partial(detections.with_probabilities, top=int(top))


def _json(content: bytes, status: int = 200) -> Response:
    return Response(content, status, media_type="application/json")
