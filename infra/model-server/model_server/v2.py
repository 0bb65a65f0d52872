"""The Open Inference Protocol, version 2, over REST: thin over the core.

With Triton's and KServe's extension for tensors in bytes behind the JSON (`binary_tensor_data`).
"""

import re
from importlib.metadata import version as version_of

from starlette.requests import Request
from starlette.responses import Response
from tensorflow_serving.apis import model_pb2

from caravan.contracts import to_json
from model_server import v2_answer, v2_request
from model_server.errors import Code, ServingError, invalid
from model_server.exchange import Exchange, decoded, here_or_there, json_response
from model_server.predict import Core
from model_server.rest import MAX_INT64

LIVE, READY = "/v2/health/live", "/v2/health/ready"
HEALTH = frozenset({LIVE, READY})
HEADER_LENGTH = "Inference-Header-Content-Length"
_MODEL = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?(?:/(ready|infer))?")
_DISTRIBUTION = "caravan-model-server"


class V2:
    """Answers whatever is asked under `/v2`."""

    def __init__(self, core: Core, exchange: Exchange) -> None:
        self._core = core
        self._exchange = exchange

    async def answer(self, request: Request, path: str) -> Response:
        """Answer one request; `path` is as it was sent. Raises ServingError, TooLargeError."""
        match = _MODEL.fullmatch(path)
        if match is None and path not in {"/v2", "/v2/", *HEALTH}:
            raise ServingError(Code.NOT_FOUND, f"There is nothing at {path}")
        method = "POST" if match and match[3] == "infer" else "GET"
        if request.method != method:
            error = {"error": f"{path} is asked by {method}, not {request.method}"}
            return Response(to_json(error), 405, {"Allow": method}, "application/json")
        if match is not None:
            return await self._model(request, _spec(match), match[3])
        if path == LIVE:
            return json_response(to_json({"live": True}))
        if path == READY:
            return _readiness({}, ready=self._core.all_settled())
        return json_response(v2_answer.server(version_of(_DISTRIBUTION)))

    async def _model(self, request: Request, spec: model_pb2.ModelSpec, what: str | None) -> Response:
        if what == "infer":
            body = await self._exchange.body(request)
            length = request.headers.get(HEADER_LENGTH)
            return await self._exchange.measured(spec.name, "Infer", self._infer(spec, body, length))
        if what == "ready":
            return _readiness({"name": spec.name}, ready=self._core.is_ready(spec.name, _version(spec)))
        self._check_ready(spec)
        versions = self._core.serving_versions(spec.name)
        return json_response(v2_answer.model(self._core.find(spec), versions))

    async def _infer(self, spec: model_pb2.ModelSpec, body: bytes, length: str | None) -> Response:
        self._check_ready(spec)
        size = len(body)
        inference = await here_or_there(size, lambda: v2_request.read(body, length))
        definition = v2_answer.definition_of(self._core.find(spec), inference.signature)
        request = await here_or_there(size, lambda: v2_request.predict_request(spec, inference, definition))
        response = await self._core.predict(request)
        answer, tail = await here_or_there(
            response.ByteSize(), lambda: v2_answer.inference(inference, response)
        )
        if tail is None:
            return json_response(answer)
        headers = {HEADER_LENGTH: str(len(answer))}
        return Response(answer + tail, 200, headers, "application/octet-stream")

    def _check_ready(self, spec: model_pb2.ModelSpec) -> None:
        version = _version(spec)
        if not self._core.is_ready(spec.name, version):
            which = f'model "{spec.name}"' if version is None else f'version {version} of model "{spec.name}"'
            raise ServingError(Code.UNAVAILABLE, f"{which} is not ready")


def _readiness(facts: dict[str, str], *, ready: bool) -> Response:
    return json_response(to_json({**facts, "ready": ready}), 200 if ready else 503)


def _spec(match: re.Match[str]) -> model_pb2.ModelSpec:
    spec = model_pb2.ModelSpec(name=decoded(match[1]))
    if match[2] is not None:
        if not match[2].isdecimal() or not match[2].isascii() or int(match[2]) > MAX_INT64:
            raise invalid(f"a model's version is a number: {match[2]}")
        spec.version.value = int(match[2])
    return spec


def _version(spec: model_pb2.ModelSpec) -> int | None:
    return spec.version.value if spec.HasField("version") else None
