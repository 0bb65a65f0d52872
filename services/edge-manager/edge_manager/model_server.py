"""TensorFlow Serving's REST API, as far as it tells which versions are loaded."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import httpx
from pydantic import BaseModel

from caravan import strict_json
from caravan.errors import Transient

ANSWER_SECONDS = 5
PASSING = {
    "ABORTED",
    "CANCELLED",
    "DEADLINE_EXCEEDED",
    "RESOURCE_EXHAUSTED",
    "UNAVAILABLE",
    "UNAUTHENTICATED",
}
"""Errors that say something of the moment, not of the model."""
DOUBTFUL = {"NOT_FOUND", "PERMISSION_DENIED", "UNKNOWN"}
"""Errors that a server also has of a folder that was not whole when it looked."""


@dataclass(frozen=True, slots=True)
class State:
    """State of a version: START, LOADING, AVAILABLE, UNLOADING or END, and the error that it ended with."""

    name: str
    error_code: str = "OK"
    message: str = ""

    @property
    def is_available(self) -> bool:
        """Tell whether it answers."""
        return self.name == "AVAILABLE"

    @property
    def has_failed(self) -> bool:
        """Tell whether the server has given up on it."""
        return self.name == "END" and self.error_code != "OK"

    def may_pass(self, *, is_first: bool) -> bool:
        """Tell whether a failure may pass; of what is doubtful, the first may."""
        return self.error_code in PASSING or (is_first and self.error_code in DOUBTFUL)


class _Status(BaseModel):
    error_code: str = "OK"
    error_message: str = ""


class _Version(BaseModel):
    version: int
    state: str
    status: _Status = _Status()


class _Answer(BaseModel):
    model_version_status: list[_Version]


class ModelServer:
    """The edge's model server, asked through `client`, whose base address is the server's."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def states(self, model: str) -> dict[int, State]:
        """Return the state of each version of a model; none if the server does not know the model.

        All versions in one answer (`GET /v1/models/<model>`): which one is loading, and which one serves.

        Raises:
            Transient: if the server is away, or answers as no model server does.

        """
        response = await self._get(f"/v1/models/{model}")
        if response.status_code == httpx.codes.NOT_FOUND:
            return {}
        if response.status_code != httpx.codes.OK:
            raise Transient(f"the model server answers {response.status_code} when asked for {model}")
        try:
            answer = _Answer.model_validate(strict_json.loads(response.content))
        except ValueError as exc:
            raise Transient("the model server's answer is not TensorFlow Serving's") from exc
        return {
            v.version: State(v.state, v.status.error_code, v.status.error_message)
            for v in answer.model_version_status
        }

    async def ping(self) -> None:
        """Check that the server answers; any model will do.

        Raises:
            Transient: if not.

        """
        response = await self._get("/v1/models/ping")
        if response.is_server_error or response.status_code == httpx.codes.UNAUTHORIZED:
            raise Transient(f"the model server answers {response.status_code}")

    async def _get(self, path: str) -> httpx.Response:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await self._client.get(path)
        except (httpx.HTTPError, TimeoutError) as exc:
            raise Transient(f"the model server does not answer: {exc!r}") from exc
