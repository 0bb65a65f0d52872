"""TensorFlow Serving's REST API, version 1, thin over the core."""

import re

from starlette.requests import Request
from starlette.responses import Response

from model_server import rest_answer, rest_request
from model_server.errors import invalid
from model_server.predict import SIGNATURE_DEF, Core
from model_server.rest_port import MAX_INT64, RestPort, decoded, here_or_there, json_response
from model_server.stubs import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    predict_pb2,
    regression_pb2,
)

_MODEL = r"/v1/models/([^/:]+)(?:/versions/(\d+)|/labels/([^/:]+))?"
_INFER = re.compile(rf"(?i:{_MODEL}):(classify|regress|predict)")
_LOOK = re.compile(r"(?i:/v1/models(?:/([^/:]+))?(?:/versions/(\d+)|/labels/([^/:]+))?)(?:/(metadata))?")


class Rest:
    """Answers whatever is asked under `/v1/`."""

    def __init__(self, core: Core, port: RestPort) -> None:
        self._core = core
        self._port = port

    async def answer(self, request: Request, path: str) -> Response:
        """Answer one request; `path` is as it was sent. Raises ServingError, TooLargeError."""
        return json_response(await self._handle(request, path))

    async def _handle(self, request: Request, path: str) -> bytes:
        if request.method == "POST" and (match := _INFER.fullmatch(path)):
            spec = _spec(match)
            method = match[4].lower()
            body = await self._port.body(request)
            work = self._infer(spec, method, body)
            return await self._port.measured(spec.name, method.capitalize(), work)
        if request.method == "GET" and (match := _LOOK.fullmatch(path)):
            if not match[1]:
                raise invalid("Missing model name in request.")
            return self._metadata(_spec(match)) if match[4] else self._status(_spec(match))
        raise invalid(f"Malformed request: {request.method} {path}")

    async def _infer(self, spec: model_pb2.ModelSpec, method: str, body: bytes) -> bytes:
        document = await here_or_there(len(body), lambda: rest_request.parse(body))
        name = rest_request.signature_name(document)
        if method == "predict":
            return await self._predict(spec, name, document, len(body))
        spec.signature_name = name
        given = await here_or_there(len(body), lambda: rest_request.examples(document))
        if method == "classify":
            classified = await self._core.classify(
                classification_pb2.ClassificationRequest(model_spec=spec, input=given)
            )
            return rest_answer.classification(classified.result)
        regressed = await self._core.regress(regression_pb2.RegressionRequest(model_spec=spec, input=given))
        return rest_answer.regression(regressed.result)

    async def _predict(
        self, spec: model_pb2.ModelSpec, name: str, document: rest_request.Document, size: int
    ) -> bytes:
        infos = self._core.input_infos(spec, name)
        tensors, form = await here_or_there(size, lambda: rest_request.tensors(document, infos, name))
        request = predict_pb2.PredictRequest(model_spec=spec)
        request.model_spec.signature_name = name
        for alias, proto in tensors.items():
            request.inputs[alias].CopyFrom(proto)
        response = await self._core.predict(request)
        return await here_or_there(
            response.ByteSize(), lambda: rest_answer.predictions(response.outputs, form)
        )

    def _status(self, spec: model_pb2.ModelSpec) -> bytes:
        return rest_answer.status(
            self._core.status(get_model_status_pb2.GetModelStatusRequest(model_spec=spec))
        )

    def _metadata(self, spec: model_pb2.ModelSpec) -> bytes:
        request = get_model_metadata_pb2.GetModelMetadataRequest(
            model_spec=spec, metadata_field=[SIGNATURE_DEF]
        )
        return rest_answer.metadata(self._core.metadata(request))


def _spec(match: re.Match[str]) -> model_pb2.ModelSpec:
    spec = model_pb2.ModelSpec(name=decoded(match[1]))
    if match[2] is not None:
        version = int(match[2])
        if version > MAX_INT64:
            raise invalid(f"Failed to convert version: {match[2]} to numeric.")
        spec.version.value = version
    elif match[3] is not None:
        spec.version_label = decoded(match[3])
    return spec
