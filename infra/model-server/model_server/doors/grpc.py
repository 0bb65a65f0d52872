"""The gRPC doors: PredictionService, ModelService and the Open Inference Protocol's, thin over the core."""

import time
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

import grpc
import structlog

from caravan import tracing
from caravan.errors import BadInput
from caravan.tokens import Tokens
from model_server.doors.reading import Services
from model_server.doors.v2_grpc import HEALTH, InferenceService
from model_server.errors import Code, ServingError
from model_server.metrics import Metrics
from model_server.predict import Core
from model_server.stubs import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)
from model_server.v2_core import OpenInference

log = structlog.get_logger()

DOOR = "grpc"
Context = grpc.aio.ServicerContext[Any, Any]


class Measure:
    """Does the work of a call within its caller's trace, and counts how it ended."""

    def __init__(self, core: Core, metrics: Metrics) -> None:
        self._core = core
        self._metrics = metrics

    async def __call__(self, api: str, model: str, work: Awaitable[Any], context: Context) -> Any:
        """Return the answer. Raises ServingError."""
        started = time.monotonic()
        status = Code.CANCELLED
        try:
            with tracing.following(_carrier(context)), tracing.span(api, model=self._core.known_name(model)):
                answer = await work
            status = Code.OK
        except ServingError as exc:
            status = exc.code
            raise
        else:
            return answer
        finally:
            self._metrics.answered(
                self._core.known_name(model), api, "GRPC", status.name, time.monotonic() - started
            )


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):  # type: ignore[misc] # untyped stubs
    """Inference and metadata."""

    def __init__(self, core: Core, measure: Measure) -> None:
        self._core = core
        self._measure = measure

    async def Predict(  # noqa: N802 the service's own name
        self, request: predict_pb2.PredictRequest, context: Context
    ) -> predict_pb2.PredictResponse:
        """Run a signature on tensors."""
        return await self._measured("Predict", request.model_spec.name, self._core.predict(request), context)

    async def Classify(  # noqa: N802 the service's own name
        self, request: classification_pb2.ClassificationRequest, context: Context
    ) -> classification_pb2.ClassificationResponse:
        """Classify tf.Examples."""
        return await self._measured(
            "Classify", request.model_spec.name, self._core.classify(request), context
        )

    async def Regress(  # noqa: N802 the service's own name
        self, request: regression_pb2.RegressionRequest, context: Context
    ) -> regression_pb2.RegressionResponse:
        """Regress on tf.Examples."""
        return await self._measured("Regress", request.model_spec.name, self._core.regress(request), context)

    async def MultiInference(  # noqa: N802 the service's own name
        self, request: inference_pb2.MultiInferenceRequest, context: Context
    ) -> inference_pb2.MultiInferenceResponse:
        """Classify and regress the same tf.Examples."""
        name = request.tasks[0].model_spec.name if request.tasks else ""
        return await self._measured("MultiInference", name, self._core.multi_inference(request), context)

    async def GetModelMetadata(  # noqa: N802 the service's own name
        self, request: get_model_metadata_pb2.GetModelMetadataRequest, context: Context
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """The signature definitions of a version."""
        try:
            return self._core.metadata(request)
        except ServingError as exc:
            await _refuse(context, exc)

    async def _measured(self, api: str, model: str, work: Awaitable[Any], context: Context) -> Any:
        try:
            return await self._measure(api, model, work, context)
        except ServingError as exc:
            await _refuse(context, exc)


def _carrier(context: Context) -> dict[str, str]:
    if not tracing.is_on():
        return {}
    return {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}


class ModelService(model_service_pb2_grpc.ModelServiceServicer):  # type: ignore[misc] # untyped stubs
    """Status and configuration."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def GetModelStatus(  # noqa: N802 the service's own name
        self, request: get_model_status_pb2.GetModelStatusRequest, context: Context
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """The state of each version of a model."""
        try:
            return self._core.status(request)
        except ServingError as exc:
            await _refuse(context, exc)

    async def HandleReloadConfigRequest(  # noqa: N802 the service's own name
        self, request: model_management_pb2.ReloadConfigRequest, context: Context
    ) -> model_management_pb2.ReloadConfigResponse:
        """Serve the models of a new configuration."""
        try:
            await self._core.reload(request.config)
        except ServingError as exc:
            log.warning("configuration refused", reason=str(exc))
            await _refuse(context, exc)
        response = model_management_pb2.ReloadConfigResponse()
        response.status.error_code = Code.OK.value
        return response


class TokenInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg] # generic in the stubs alone
    """Lets only those in who show a token, before what they send is read."""

    def __init__(self, tokens: Tokens, metrics: Metrics) -> None:
        self._tokens = tokens
        self._metrics = metrics

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Go on to the method, or to the refusal; health is open, as it is over REST."""
        if handler_call_details.method in HEALTH:
            return await continuation(handler_call_details)
        shown = dict(handler_call_details.invocation_metadata or ()).get("authorization")
        try:
            self._tokens.holder(shown if isinstance(shown, str) else None)
        except BadInput as exc:
            self._metrics.refused(DOOR, exc.reason)
            return _refusal(exc.detail)
        return await continuation(handler_call_details)


def _refusal(detail: str) -> Any:
    async def refuse(_requests: Any, context: Context) -> None:
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, detail)

    # As a stream, so that no message is waited for.
    return grpc.stream_stream_rpc_method_handler(refuse)


async def _refuse(context: Context, fault: ServingError) -> NoReturn:
    await context.abort(fault.grpc_code, fault.grpc_message)
    raise fault  # not reached: abort raises


def make_server(
    core: Core, metrics: Metrics, tokens: Tokens, address: str, calls: int
) -> tuple[grpc.aio.Server, int]:
    """Return a server that is not started yet, and its port. Raises RuntimeError if the address is taken.

    Beyond so many `calls` at once callers are told RESOURCE_EXHAUSTED, before their message is read.
    """
    server = grpc.aio.server(
        maximum_concurrent_rpcs=calls,
        interceptors=[TokenInterceptor(tokens, metrics)] if tokens else [],
        options=[
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
        ],
    )
    measure, services = Measure(core, metrics), Services(server)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        PredictionService(core, measure), services
    )
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(core), services)
    services.add_generic_rpc_handlers((InferenceService(OpenInference(core), measure).handlers(),))
    return server, server.add_insecure_port(address)
