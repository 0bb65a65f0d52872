"""The door for models: decodes a request, calls the route, waits for the verdict, encodes it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from caravan import telemetry
from caravan.contracts import ONNX_MODEL, parse_model
from caravan.errors import BadInput
from caravan.http import answer
from caravan.model_zips import parse_classes
from caravan.problems import problem
from caravan.uploads import Upload, Verdict, is_upload_id
from feeder.doors.request_facts import chunks, declared, edge_of, refuse_wrapped
from feeder.models import ModelBuckets

WAIT_SECONDS = 60.0
LONGEST_WAIT = 600.0

ModelUpload = Callable[
    [str, str, tuple[str, ...], AsyncIterator[bytes], int | None], Awaitable[tuple[Upload, Verdict | None]]
]


class ModelRejected(BadInput):
    """The pipeline has judged an upload and will not have it: 422."""

    def __init__(self, edge: str, upload: Upload, verdict: Verdict) -> None:
        super().__init__(f"the model was rejected: {verdict.reason}", 422, reason="model-rejected")
        facts = _facts(edge, upload, verdict)
        self.facts = {name: facts[name] for name in facts.keys() - {"status"}}


def install(app: FastAPI, edges: Collection[str], model_upload: ModelUpload, buckets: ModelBuckets) -> None:
    """Give an app `PUT`, `POST` and `GET /model`.

    Args:
        app: the service's app.
        edges: those configured.
        model_upload: takes edge, model, class names, the body's chunks and the size that the sender declares.
        buckets: source of the verdicts.

    """

    @app.api_route("/model", methods=["PUT", "POST"])
    async def send(request: Request) -> Response:
        edge, model = edge_of(request, edges), _model(request)
        classes, seconds = _classes(request), _wait(request)
        refuse_wrapped(request)
        upload, verdict = await model_upload(edge, model, classes, chunks(request), declared(request))
        if verdict is None and seconds:
            verdict = await buckets.verdict(edge, upload, seconds)
        if verdict is not None and verdict.state == "rejected":
            raise ModelRejected(edge, upload, verdict)
        return JSONResponse(_facts(edge, upload, verdict), 202 if verdict is None else 200)

    @app.get("/model")
    async def show(request: Request) -> dict[str, Any]:
        edge, model = edge_of(request, edges), _model(request)
        one = _upload(request)
        if one is None:
            found = await buckets.uploads(edge, model)
        else:
            found = [await buckets.upload(edge, model, one)]
        return {"edge": edge, "model": model, "uploads": [_facts(edge, *pair) for pair in found]}

    @app.exception_handler(ModelRejected)
    async def _rejected(request: Request, exc: ModelRejected) -> Response:
        telemetry.REFUSALS.labels(f"{request.method} /model", exc.reason).inc()
        return answer(problem(exc.status, exc.detail, **exc.facts))


def _model(request: Request) -> str:
    given = request.query_params.getlist("name")
    if len(given) > 1:
        raise BadInput("the request names several models: one name is enough", reason="bad-model-name")
    return parse_model(next(iter(given), None))


def _classes(request: Request) -> tuple[str, ...]:
    return parse_classes(name for text in request.query_params.getlist("classes") for name in text.split(","))


def _wait(request: Request) -> float:
    text = request.query_params.get("wait")
    try:
        seconds = WAIT_SECONDS if text is None else float(text)
    except ValueError:
        seconds = -1
    if not 0 <= seconds <= LONGEST_WAIT:
        raise BadInput(f"wait is a number of seconds from 0 to {LONGEST_WAIT:g}", reason="bad-wait")
    return seconds


def _upload(request: Request) -> str | None:
    text = request.query_params.get("upload")
    if text is not None and not is_upload_id(text):
        raise BadInput("an upload's id has 64 hexadecimal digits", reason="bad-upload-id")
    return text


def _facts(edge: str, upload: Upload, verdict: Verdict | None) -> dict[str, Any]:
    return {
        "status": "checking" if verdict is None else verdict.state,
        "edge": edge,
        "model": upload.model,
        "version": None if verdict is None else verdict.version,
        "upload": upload.id,
        "kind": "onnx" if upload.entry == ONNX_MODEL else "saved_model",
        "classes": list(upload.classes if verdict is None else verdict.classes),
        "bytes": upload.size,
        "ignored": upload.ignored,
        "received": upload.received,
        **({} if verdict is None else {"judged": verdict.judged}),
        **({"reason": verdict.reason} if verdict is not None and verdict.reason else {}),
    }
