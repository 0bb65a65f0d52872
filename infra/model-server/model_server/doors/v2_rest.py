"""The Open Inference Protocol, version 2, over REST: thin over the core.

With Triton's and KServe's extension for tensors in bytes behind the JSON (`binary_tensor_data`).
"""

import re
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from caravan.contracts import to_json
from model_server import v2_answer, v2_request
from model_server.errors import Code, ServingError
from model_server.rest_port import RestPort, decoded, here_or_there, json_response
from model_server.stubs import model_pb2
from model_server.v2_core import OpenInference, spec_of

LIVE, READY = "/v2/health/live", "/v2/health/ready"
HEALTH = frozenset({LIVE, READY})
HEADER_LENGTH = "Inference-Header-Content-Length"
_MODEL = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?(?:/(ready|infer))?")
_EXTENSION = re.compile(
    r"/v2/(?:models/[^/]+(?:/versions/[^/]+)?/(?:config|stats|generate|generate_stream|trace/setting)"
    r"|models/stats|(?:repository|systemsharedmemory|cudasharedmemory|trace|logging)(?:/.*)?)"
)
"""What Triton has beside the protocol."""


class V2:
    """Answers whatever is asked under `/v2`."""

    def __init__(self, inference: OpenInference, port: RestPort) -> None:
        self._inference = inference
        self._port = port

    async def answer(self, request: Request, path: str) -> Response:
        """Answer one request; `path` is as it was sent. Raises ServingError, TooLargeError."""
        match = _MODEL.fullmatch(path)
        if _EXTENSION.fullmatch(path):
            raise ServingError(Code.UNIMPLEMENTED, f"{path} is an extension that is not served here")
        if match is None and path not in {"/v2", "/v2/", *HEALTH}:
            raise ServingError(Code.NOT_FOUND, f"There is nothing at {path}")
        method = "POST" if match and match[3] == "infer" else "GET"
        if request.method != method and (request.method, method) != ("HEAD", "GET"):
            error = {"error": f"{path} is asked by {method}, not {request.method}"}
            return Response(to_json(error), 405, {"Allow": method}, "application/json")
        if match is not None:
            spec = spec_of(decoded(match[1]), match[2])
            return await self._model(request, spec, match[3])
        if path == LIVE:
            live = self._inference.live()
            return _json({"live": live}, 200 if live else 503)
        if path == READY:
            return _readiness({}, ready=self._inference.ready())
        return _json(self._inference.server())

    async def _model(self, request: Request, spec: model_pb2.ModelSpec, what: str | None) -> Response:
        if what == "infer":
            body = await self._port.body(request)
            length = request.headers.get(HEADER_LENGTH)
            return await self._port.measured(spec.name, "Infer", self._infer(spec, body, length))
        if what == "ready":
            return _readiness({"name": spec.name}, ready=self._inference.model_ready(spec))
        return _json(self._inference.model(spec))

    async def _infer(self, spec: model_pb2.ModelSpec, body: bytes, length: str | None) -> Response:
        inference = await here_or_there(len(body), lambda: v2_request.read(body, length))
        response = await self._inference.infer(spec, inference, len(body))
        answer, tail = await here_or_there(
            response.ByteSize(), lambda: v2_answer.inference(inference, response)
        )
        if tail is None:
            return json_response(answer)
        headers = {HEADER_LENGTH: str(len(answer))}
        return Response(answer + tail, 200, headers, "application/octet-stream")


def _json(facts: dict[str, Any], status: int = 200) -> Response:
    return json_response(to_json(facts), status)


def _readiness(facts: dict[str, str], *, ready: bool) -> Response:
    return _json({**facts, "ready": ready}, 200 if ready else 503)
