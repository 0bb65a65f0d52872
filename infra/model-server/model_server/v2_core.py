"""The Open Inference Protocol without transport: what its calls mean, for REST and gRPC alike."""

import asyncio
from importlib.metadata import version as version_of
from typing import Any

from model_server import v2_answer, v2_request
from model_server.errors import Code, ServingError, invalid
from model_server.predict import Core
from model_server.rest_port import MAX_INT64, here_or_there
from model_server.stubs import model_pb2, predict_pb2
from model_server.v2_request import Inference

_DISTRIBUTION = "caravan-model-server"


class OpenInference:
    """Answers out of the core. Every refusal is a ServingError."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def live(self) -> bool:
        """Whether the server is well enough not to be started again."""
        return self._core.is_live()

    def ready(self) -> bool:
        """Whether no model is being brought up."""
        return self._core.all_settled()

    def server(self) -> dict[str, Any]:
        """The server's metadata."""
        version = version_of(_DISTRIBUTION)
        return {"name": v2_answer.NAME, "version": version, "extensions": v2_answer.EXTENSIONS}

    def model_ready(self, spec: model_pb2.ModelSpec) -> bool:
        """Whether a model, or that version of it, serves. Raises ServingError(NOT_FOUND) if unknown."""
        return self._core.is_ready(spec.name, _version(spec))

    def model(self, spec: model_pb2.ModelSpec) -> dict[str, Any]:
        """The metadata of a model that serves."""
        self._check_ready(spec)
        return v2_answer.model(self._core.find(spec), self._core.serving_versions(spec.name))

    async def infer(
        self, spec: model_pb2.ModelSpec, inference: Inference, size: int
    ) -> predict_pb2.PredictResponse:
        """Run a request of `size` bytes, within its own deadline if it has one."""
        self._check_ready(spec)
        definition = v2_answer.definition_of(self._core.find(spec), inference.options.signature)
        request = await here_or_there(size, lambda: v2_request.predict_request(spec, inference, definition))
        timeout = inference.options.timeout
        try:
            async with asyncio.timeout(timeout):
                return await self._core.predict(request)
        except TimeoutError as exc:
            message = f"not answered within the request's timeout of {timeout:g} s"
            raise ServingError(Code.DEADLINE_EXCEEDED, message) from exc

    def _check_ready(self, spec: model_pb2.ModelSpec) -> None:
        version = _version(spec)
        if not self._core.is_ready(spec.name, version):
            which = f'model "{spec.name}"' if version is None else f'version {version} of model "{spec.name}"'
            raise ServingError(Code.UNAVAILABLE, f"{which} is not ready")


def spec_of(name: str, version: str | None) -> model_pb2.ModelSpec:
    """Return the spec of a model and its version; without one, of the highest that serves."""
    spec = model_pb2.ModelSpec(name=name)
    if version:
        if not version.isdecimal() or not version.isascii() or int(version) > MAX_INT64:
            raise invalid(f"a model's version is a number: {version[:100]}")
        spec.version.value = int(version)
    return spec


def _version(spec: model_pb2.ModelSpec) -> int | None:
    return spec.version.value if spec.HasField("version") else None
