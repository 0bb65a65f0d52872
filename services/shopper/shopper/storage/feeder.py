"""The feeder at central, across a link that may be cut at any moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import IO, Annotated

import httpx
from pydantic import BaseModel, Field

from caravan import strict_json, tracing
from caravan.errors import Refused, Transient

TIMEOUT = httpx.Timeout(connect=5.0, read=600.0, write=30.0, pool=5.0)
"""Timeouts in seconds. The feeder answers once everything has come out of all buffers between and is durable:
hence the long read."""
PING_SECONDS = 5.0
CHUNK = 2**16
"""Bytes that are written at once: of a link of 64 kbit/s 8 s, so well within the time for writing."""
_MAY_PASS = {408, 425, 429}
_UNFIT = {413, 422}


_Count = Annotated[int, Field(ge=0)]


class Unfit(Refused):
    """The feeder refuses a ZIP for what is in it: with less in it, it may take the rest."""


class BrokenOff(Transient):
    """The link broke while a ZIP was on it, or took too long for it."""


class RejectedImage(BaseModel):
    """One image that central does not take, and why."""

    name: str
    reason: str


class FeederAnswer(BaseModel):
    """What became of the images of one ZIP."""

    stored: _Count
    duplicates: _Count
    ignored: _Count = 0
    rejected: list[RejectedImage] = []
    warnings: list[str] = []


class FeederClient:
    """Uploads ZIPs of training images.

    Args:
        client: for HTTP.
        url: the feeder's, without a path.
        edge: the edge that the images belong to.
        within: deadline of one upload, seconds.

    """

    def __init__(self, client: httpx.AsyncClient, url: str, edge: str, within: float) -> None:
        self._client = client
        self._url = url.rstrip("/")
        self._edge = edge
        self._within = within

    async def ping(self) -> None:
        """Check that the link is up.

        Raises:
            Transient: if not.

        """
        try:
            response = await self._client.get(f"{self._url}/healthz", timeout=PING_SECONDS)
        except httpx.HTTPError as exc:
            raise Transient(f"the feeder at {self._url} does not answer: {exc!r}") from exc
        if response.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
            raise Transient(f"the feeder at {self._url} answers {response.status_code}")

    async def upload(self, archive: IO[bytes], size: int) -> FeederAnswer:
        """Send a ZIP of `size` bytes; on return everything in it is durable at central.

        Raises:
            BrokenOff: if it did not come whole.
            Transient: if the feeder cannot take it now, or the answer is not the feeder's.
            Unfit: if the feeder refuses the whole for its content.
            Refused: if it refuses us.

        """
        try:
            async with asyncio.timeout(self._within):
                response = await self._client.put(
                    f"{self._url}/zip",
                    params={"edgeId": self._edge},
                    headers={
                        "Content-Type": "application/zip",
                        "Content-Length": str(size),
                        **tracing.headers(),
                    },
                    content=_chunks(archive),
                    timeout=TIMEOUT,
                )
        except (httpx.HTTPError, TimeoutError) as exc:
            raise BrokenOff(f"the upload to {self._url} broke: {exc!r}") from exc
        status = response.status_code
        if status == httpx.codes.UNPROCESSABLE_ENTITY and (rejected := _rejected(response)):
            return FeederAnswer(stored=0, duplicates=0, rejected=rejected)
        if status in _UNFIT:
            raise Unfit(f"central refused it: {status} {_detail(response)}")
        if httpx.codes.is_client_error(status) and status not in _MAY_PASS:
            raise Refused(f"the feeder refused the images: {status} {_detail(response)}")
        if status != httpx.codes.OK:
            raise Transient(f"the feeder at {self._url} answers {status}")
        try:
            return FeederAnswer.model_validate(strict_json.loads(response.content))
        except ValueError as exc:
            raise Transient(f"what answers at {self._url} is not the feeder") from exc


async def _chunks(archive: IO[bytes]) -> AsyncIterator[bytes]:
    await asyncio.to_thread(archive.seek, 0)
    while chunk := await asyncio.to_thread(archive.read, CHUNK):
        yield chunk


def _rejected(response: httpx.Response) -> list[RejectedImage]:
    """Return the rejections of an upload with nothing to store."""
    try:
        rejected = strict_json.loads_object(response.content)["rejected"]
        return [RejectedImage.model_validate(each) for each in rejected]
    except (ValueError, KeyError, TypeError):
        return []


def _detail(response: httpx.Response) -> str:
    try:
        return str(strict_json.loads_object(response.content)["detail"])[:500]
    except (ValueError, KeyError, TypeError):
        return ""
