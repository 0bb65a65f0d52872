"""The model server: TensorFlow Serving's gRPC contract, and its errors in our words."""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import structlog

from caravan import tracing
from caravan.errors import BadInput, CaravanError, Refused, Unavailable
from caravan.retry import retried
from shopper.model.outputs import Opinion
from shopper.model.preparing import Preparing
from shopper.model.signatures import Plan, decide
from shopper.model.standing import Standing
from shopper.model.stubs import (
    GetModelMetadataRequest,
    GetModelStatusRequest,
    ModelServiceStub,
    ModelVersionStatus,
    PredictionServiceStub,
    SignatureDefMap,
)
from shopper.ports import NotServed, Photo, Picture, Prediction

log = structlog.get_logger()

RETRY_SECONDS = 2.0
STATUS_SECONDS = 2.0
METADATA_SECONDS = 5.0
CHANNEL = (
    ("grpc.max_receive_message_length", 64 * 2**20),
    ("grpc.max_send_message_length", -1),
    # A model server that comes back is found within a second, not after gRPC's own two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.keepalive_time_ms", 30_000),
)

Names = Callable[[str, int, int], Awaitable[tuple[str, ...]]]
"""Returns class names, given a model, its version and their number."""

_LOADED = ModelVersionStatus.AVAILABLE
_COMING = {ModelVersionStatus.START, ModelVersionStatus.LOADING, _LOADED}

_PATH = re.compile(r"(?<![\w:/])(?:/[\w.+-]+){2,}")
"""A file's path on the model server's machine; callers are not told it."""
_WRONG_SIGNATURE = re.compile(
    r"Serving signature key .* not found|input size does not match signature|Signature input alias"
)


@asynccontextmanager
async def open_channel(address: str, ca: Path | None = None) -> AsyncIterator[grpc.aio.Channel]:
    """Open a channel to `host:port`, over TLS if a CA is given; nothing is sent before its first use."""
    channel = (
        grpc.aio.insecure_channel(address, options=CHANNEL)
        if ca is None
        else grpc.aio.secure_channel(
            address, grpc.ssl_channel_credentials(await asyncio.to_thread(ca.read_bytes)), options=CHANNEL
        )
    )
    async with channel:
        yield channel


@dataclass(frozen=True, slots=True)
class _Asked:
    plan: Plan
    response: Any
    prep_seconds: float
    predict_seconds: float


class TfServing:
    """Classifies images one by one; calls go out at once, and the server batches them.

    Which signature to use is asked of the server at first, and again when the version that answers is
    another, or the signature is gone.

    Args:
        channel: to the server.
        model: the model's name.
        preparing: brings images into the form that the model takes.
        names: finds names for classes that the model only counts.
        version: the one that is asked; 0 for the newest that the server has.
        within: deadline of a prediction, seconds; a model that has not answered for so long is silent.
        token: shown to the server; empty for none.

    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        model: str,
        preparing: Preparing,
        names: Names,
        *,
        version: int = 0,
        within: float = 5.0,
        token: str = "",
    ) -> None:
        self._predictions = PredictionServiceStub(channel)
        self._models = ModelServiceStub(channel)
        self._model = model
        self._version = version
        self._preparing = preparing
        self._names = names
        self._within = within
        self._standing = Standing(model, within, self.ping)
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self._plan: Plan | None = None
        self._deciding = asyncio.Lock()

    async def classify(self, image: Picture | Photo) -> Prediction:
        """Return the model's opinion of an image.

        Raises:
            BadInput: 422 if the model cannot read the image.
            NotServed: if the server has no version of the model.
            Silent: if the server answers, and the model does not.
            Unavailable: if the server is away, or does not answer in time.
            Refused: if the model has no signature that we know, or answers in another form.

        """
        self._standing.check()
        try:
            asked = await self._asked(image)
        except grpc.aio.AioRpcError as exc:
            raise self._translated(exc) from exc
        opinion, version = asked.plan.read(asked.response)
        if asked.plan.version and version != asked.plan.version:
            self._forget(asked.plan)
        classes = opinion.classes
        if len(set(classes)) != len(opinion.probabilities):  # it names none, or not each by its own
            classes = await self._names(self._model, version, len(opinion.probabilities))
        return Prediction(
            opinion.label or _likeliest(opinion, classes),
            opinion.score if math.isfinite(opinion.score) else 0.0,
            self._model,
            version,
            dict(zip(classes, opinion.probabilities, strict=True)),
            classes,
            asked.prep_seconds,
            asked.predict_seconds,
        )

    async def ping(self) -> None:
        """Check that the model server answers, though it may have no version of the model yet.

        Raises:
            Unavailable: if it does not.

        """
        await self.is_known()

    async def is_known(self) -> bool:
        """Tell whether the model server knows the model, though none of its versions may be ready yet.

        Raises:
            Unavailable: if it does not answer.

        """
        try:
            await self._status()
        except NotServed:
            return False
        return True

    async def versions(self) -> dict[int, bool]:
        """Return the versions that are loaded (true), and those on their way (false).

        Raises:
            NotServed: if the server has none.
            Unavailable: if it does not answer.
            Refused: if it does not say.

        """
        states = {each.version: each.state for each in (await self._status()).model_version_status}
        return {version: state == _LOADED for version, state in states.items() if state in _COMING}

    async def _status(self) -> Any:
        request = GetModelStatusRequest()
        request.model_spec.name = self._model
        try:
            return await self._models.GetModelStatus(request, timeout=STATUS_SECONDS, metadata=self._metadata)
        except grpc.aio.AioRpcError as exc:
            raise self._translated(exc) from exc

    # --- asking ---------------------------------------------------------------------------------

    async def _asked(self, image: Picture | Photo) -> _Asked:
        plan = await self._planned()
        try:
            return await self._predicted(plan, image)
        except grpc.aio.AioRpcError as exc:
            if _is_wrong_signature(exc):
                # Another model came in since: ask it how it wants to be asked.
                self._forget(plan)
            elif isinstance(image, Photo) and exc.code() is grpc.StatusCode.INVALID_ARGUMENT:
                image = image.jpeg  # TensorFlow Serving may be older than its decoder of WebP.
            else:
                raise
        return await self._predicted(await self._planned(), image)

    async def _predicted(self, plan: Plan, image: Picture | Photo) -> _Asked:
        clock = time.perf_counter
        began = clock()
        tensor = await self._preparing.tensor(image, plan.form)
        prepared = clock()
        with tracing.span("predict", model=self._model):
            request = plan.request(tensor)
            self._choose(request)
            response = await self._standing.ask(lambda: self._predict(request))
        return _Asked(plan, response, prepared - began, clock() - prepared)

    async def _predict(self, request: Any) -> Any:
        try:
            return await self._call(self._predictions.Predict, request, self._within)
        except grpc.aio.AioRpcError as exc:
            if exc.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise Unavailable("the model did not answer in time: try again") from exc
            raise

    async def _planned(self) -> Plan:
        if self._plan is not None:
            return self._plan
        async with self._deciding:
            if self._plan is None:
                self._plan = await self._decided()
            return self._plan

    async def _decided(self) -> Plan:
        request = GetModelMetadataRequest(metadata_field=["signature_def"])
        request.model_spec.name = self._model
        self._choose(request)
        response = await self._call(self._predictions.GetModelMetadata, request, METADATA_SECONDS)
        signatures = SignatureDefMap()
        if not response.metadata["signature_def"].Unpack(signatures):
            raise Refused("the model server's metadata has no signatures")
        version = int(response.model_spec.version.value)
        plan = decide(self._model, version, signatures.signature_def, self._preparing.size)
        facts = {"version": plan.version, "signature": plan.signature, "input": str(plan.form)}
        log.info("signature chosen", model=plan.model, **facts)
        return plan

    def _choose(self, request: Any) -> None:
        if self._version:
            request.model_spec.version.value = self._version

    def _forget(self, plan: Plan) -> None:
        if self._plan is plan:
            self._plan = None

    async def _call(self, method: Any, request: Any, within: float) -> Any:
        async def attempt() -> Any:
            try:
                metadata = (*self._metadata, *tracing.headers().items())
                return await method(request, timeout=within, metadata=metadata)
            except grpc.aio.AioRpcError as exc:
                # The one status that says: the call was not served, and may be next time.
                if exc.code() is grpc.StatusCode.UNAVAILABLE:
                    raise Unavailable("the model server does not answer: try again") from exc
                raise

        return await retried(attempt, to="tfserving", within=RETRY_SECONDS)

    def _translated(self, exc: grpc.aio.AioRpcError) -> CaravanError:
        code = exc.code()
        if code is grpc.StatusCode.NOT_FOUND:
            return NotServed()
        if code is grpc.StatusCode.UNAVAILABLE:
            return Unavailable("the model server does not answer: try again")
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return Unavailable("the model server did not answer in time: try again")
        if code in {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.CANCELLED, grpc.StatusCode.ABORTED}:
            return Unavailable("the model server has too much to do: try again")
        if code is grpc.StatusCode.INVALID_ARGUMENT and not _is_wrong_signature(exc):
            log.info("image refused by the model", model=self._model, error=(exc.details() or "")[:300])
            return BadInput("the model cannot read this image", status=422, reason="unreadable-image")
        details = _PATH.sub("…", (exc.details() or "")[:300])
        return Refused(f"the model server refused: model {self._model}: {code.name}: {details}")


def _likeliest(opinion: Opinion, classes: tuple[str, ...]) -> str:
    return max(zip(opinion.probabilities, classes, strict=True), key=lambda pair: pair[0], default=(0.0, ""))[
        1
    ]


def _is_wrong_signature(exc: grpc.aio.AioRpcError) -> bool:
    expected = {grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.INVALID_ARGUMENT}
    return exc.code() in expected and _WRONG_SIGNATURE.search(exc.details() or "") is not None
