"""What both REST APIs do with a request: bounded bodies, deadlines, measuring, answers in JSON."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar
from urllib.parse import unquote_to_bytes

from starlette.requests import Request
from starlette.responses import Response

from caravan import tracing
from caravan.encodings import encoding_of, unpacked
from model_server.errors import Code, ServingError
from model_server.metrics import Metrics
from model_server.predict import Core

T = TypeVar("T")

# Bodies smaller than this are decoded where they are: handing them to a thread would cost more.
INLINE_BYTES = 32 << 10
MAX_INT64 = 2**63 - 1


class TooLargeError(Exception):
    """The body is larger than the door lets in."""


class RestPort:
    """The limits of the REST port: `timeout` in seconds, `max_body` in bytes after unpacking."""

    def __init__(self, core: Core, metrics: Metrics, *, timeout: float, max_body: int) -> None:
        self._core = core
        self._metrics = metrics
        self._timeout = timeout
        self._max_body = max_body

    async def body(self, request: Request) -> bytes:
        """Read and unpack a body. Raises TooLargeError, BadInput if it is not packed as it says."""
        parts: list[bytes] = []
        size = 0
        async for part in unpacked(request.stream(), encoding_of(request.headers)):
            size += len(part)
            if size > self._max_body:
                raise TooLargeError(f"The body is larger than {self._max_body} bytes")
            parts.append(part)
        return b"".join(parts)

    async def measured(self, model: str, api: str, work: Awaitable[T]) -> T:
        """Do the work within the deadline, and count how it ended."""
        started = time.monotonic()
        status = Code.OK
        try:
            with tracing.span(api, model=self._core.known_name(model)):
                async with asyncio.timeout(self._timeout):
                    return await work
        except TimeoutError as exc:
            status = Code.DEADLINE_EXCEEDED
            raise ServingError(status, "Timed out waiting for notification") from exc
        except ServingError as exc:
            status = exc.code
            raise
        finally:
            self._metrics.answered(
                self._core.known_name(model), api, "REST", status.name, time.monotonic() - started
            )


async def here_or_there(size: int, work: Callable[[], T]) -> T:
    """Do small work at once and large work in a thread, so that the loop is never held up."""
    return work() if size < INLINE_BYTES else await asyncio.to_thread(work)


def decoded(text: str) -> str:
    """One part of a path, out of its percent signs."""
    return unquote_to_bytes(text.encode("latin-1")).decode("utf-8", "replace")


def json_response(body: bytes, status: int = 200) -> Response:
    """An answer whose body is JSON already."""
    return Response(body, status, media_type="application/json")
