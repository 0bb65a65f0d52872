"""Requests that a client sends again, as it missed the answer: done once, answered each time."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from caravan.contracts import to_json
from caravan.errors import BadInput

REMEMBERED = 2000
REMEMBERED_BYTES = 8 * 2**20
MAX_KEY = 256

Act = Callable[[], Awaitable[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class IdempotentRequest:
    """A request that may come again.

    Attributes:
        holder: the sender's name.
        path: where.
        key: the header `Idempotency-Key`; empty for a request that is done each time.
        digest: SHA-256 of the request's content.

    """

    holder: str
    path: str
    key: str
    digest: bytes


@dataclass(slots=True)
class _Done:
    digest: bytes
    task: asyncio.Task[bytes]
    size: int = 0


class IdempotencyCache:
    """Remembers the answers of the last requests that came with an idempotency key.

    A key is its holder's, at one path, for one request: another request under it is refused. What failed is
    not remembered: it may be tried again. A restart forgets; then content decides, as the feeder knows a
    training image that it has.

    Args:
        remembered: most answers kept.
        remembered_bytes: most bytes of the answers kept.

    """

    def __init__(self, remembered: int = REMEMBERED, remembered_bytes: int = REMEMBERED_BYTES) -> None:
        self._most = remembered
        self._most_bytes = remembered_bytes
        self._bytes = 0
        self._done: OrderedDict[tuple[str, str, str], _Done] = OrderedDict()

    async def __call__(self, request: IdempotentRequest, act: Act) -> bytes:
        """Act, unless the same request did, or does; return the answer as JSON. Without a key, just act.

        Raises:
            BadInput: 400 if the key is too long, 422 if it came with another request before.

        """
        if not request.key:
            return to_json(await act())
        if len(request.key) > MAX_KEY:
            raise BadInput(f"an idempotency key has at most {MAX_KEY} characters", reason="long-key")
        place = (request.holder, request.path, request.key)
        done = self._done.get(place)
        if done is None:
            # A task of its own: a sender that goes away takes the answer from nobody else.
            done = _Done(request.digest, asyncio.ensure_future(_run(act)))
            self._done[place] = done
            done.task.add_done_callback(lambda _: self._keep(place, done))
        elif done.digest != request.digest:
            message = "this idempotency key came with another request before: each has a key of its own"
            raise BadInput(message, 422, reason="used-key")
        return await asyncio.shield(done.task)

    def _keep(self, place: tuple[str, str, str], done: _Done) -> None:
        if self._done.get(place) is not done:
            return
        if done.task.cancelled() or done.task.exception():
            del self._done[place]
            return
        done.size = len(done.task.result())
        self._bytes += done.size
        while len(self._done) > self._most or self._bytes > self._most_bytes:
            self._bytes -= self._done.popitem(last=False)[1].size


async def _run(act: Act) -> bytes:
    return to_json(await act())
