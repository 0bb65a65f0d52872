"""The Open Inference Protocol over gRPC: thin over the core. What it does not do is refused in words."""

from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from model_server import open_inference_pb2 as messages
from model_server import v2_messages
from model_server.errors import ServingError
from model_server.rest_port import here_or_there
from model_server.v2_core import OpenInference, spec_of

SERVICE = "inference.GRPCInferenceService"
HEALTH = frozenset({f"/{SERVICE}/ServerLive", f"/{SERVICE}/ServerReady"})

Context = grpc.aio.ServicerContext[Any, Any]
Measure = Callable[[str, str, Awaitable[Any], Context], Awaitable[Any]]
"""Does the work of a call: API, model, work, context."""


class InferenceService:
    """The service's methods by their names."""

    def __init__(self, inference: OpenInference, measure: Measure) -> None:
        self._inference = inference
        self._measure = measure

    def handlers(self) -> "grpc.GenericRpcHandler[Any, Any]":
        """Return what a server registers: the methods, and an answer in words for any other."""
        served: dict[str, tuple[Any, Any]] = {
            "ServerLive": (self._server_live, messages.ServerLiveRequest),
            "ServerReady": (self._server_ready, messages.ServerReadyRequest),
            "ModelReady": (self._model_ready, messages.ModelReadyRequest),
            "ServerMetadata": (self._server_metadata, messages.ServerMetadataRequest),
            "ModelMetadata": (self._model_metadata, messages.ModelMetadataRequest),
            "ModelInfer": (self._model_infer, messages.ModelInferRequest),
        }
        return _Handlers(
            {
                f"/{SERVICE}/{name}": grpc.unary_unary_rpc_method_handler(
                    _refusing(method), request.FromString, lambda answer: answer.SerializeToString()
                )
                for name, (method, request) in served.items()
            }
        )

    async def _server_live(self, _request: Any, _context: Context) -> messages.ServerLiveResponse:
        return messages.ServerLiveResponse(live=self._inference.live())

    async def _server_ready(self, _request: Any, _context: Context) -> messages.ServerReadyResponse:
        return messages.ServerReadyResponse(ready=self._inference.ready())

    async def _model_ready(
        self, request: messages.ModelReadyRequest, _context: Context
    ) -> messages.ModelReadyResponse:
        spec = spec_of(request.name, request.version)
        return messages.ModelReadyResponse(ready=self._inference.model_ready(spec))

    async def _server_metadata(self, _request: Any, _context: Context) -> messages.ServerMetadataResponse:
        return messages.ServerMetadataResponse(**self._inference.server())

    async def _model_metadata(
        self, request: messages.ModelMetadataRequest, _context: Context
    ) -> messages.ModelMetadataResponse:
        facts = self._inference.model(spec_of(request.name, request.version))
        del facts["parameters"]  # which the message has no place for
        return messages.ModelMetadataResponse(**facts)

    async def _model_infer(
        self, request: messages.ModelInferRequest, context: Context
    ) -> messages.ModelInferResponse:
        answer: messages.ModelInferResponse = await self._measure(
            "Infer", request.model_name, self._infer(request), context
        )
        return answer

    async def _infer(self, request: messages.ModelInferRequest) -> messages.ModelInferResponse:
        spec, size = spec_of(request.model_name, request.model_version), request.ByteSize()
        inference = await here_or_there(size, lambda: v2_messages.read(request))
        response = await self._inference.infer(spec, inference, size)
        raw = len(request.raw_input_contents) > 0
        return await here_or_there(
            response.ByteSize(), lambda: v2_messages.inference(inference, response, raw=raw)
        )


class _Handlers(grpc.GenericRpcHandler):  # type: ignore[type-arg] # generic in the stubs alone
    """The methods served, by their paths; a stream that is told so for every other of the service."""

    def __init__(self, served: dict[str, Any]) -> None:
        self._served = served

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Return the handler of a method; None if it is another service's."""
        path = str(handler_call_details.method)
        if path in self._served or not path.startswith(f"/{SERVICE}/"):
            return self._served.get(path)
        method = path.rpartition("/")[2]

        async def refuse(_requests: Any, context: Context) -> None:
            served = ", ".join(other.rpartition("/")[2] for other in self._served)
            await context.abort(
                grpc.StatusCode.UNIMPLEMENTED, f"{method} is not served here; served are {served}"
            )

        # As a stream, so that no message is waited for.
        return grpc.stream_stream_rpc_method_handler(refuse)


def _refusing(method: Callable[[Any, Context], Awaitable[Any]]) -> Callable[[Any, Context], Awaitable[Any]]:
    async def call(request: Any, context: Context) -> Any:
        try:
            return await method(request, context)
        except ServingError as exc:
            await context.abort(exc.grpc_code, exc.grpc_message)

    return call
