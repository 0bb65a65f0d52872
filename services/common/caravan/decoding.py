"""Images decoded in processes that can be ended: what one image may take is bounded, whatever it holds.

The processes are anyio's: started when they are needed, used again, gone after five idle minutes. Who shares
one `Decoding` is served in turn by how much each has had, so that costly images hold up their own sender.
A photo of a usual size, which its form bounds already, is decoded in a thread.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeVar

from anyio import BrokenWorkerProcess, CapacityLimiter, to_process

from caravan import images
from caravan.errors import BadInput, Unavailable
from caravan.images import ImageBounds, ImageInfo

T = TypeVar("T")

SECONDS = 10.0
"""Deadline of a decoding. It takes a second at most on an idle machine: `caravan.image_headers` bounds its
work."""
_TRIES = 2


class FairQueue:
    """Lets so many go at once; the next one is the waiter with the least cost so far.

    This is start-time fair queuing.

    Args:
        at_once: most holders at once.

    """

    def __init__(self, at_once: int) -> None:
        self._free = at_once
        self._now = 0.0
        """The cost that the last one to go had had before; one that is new, or was away, begins with that."""
        self._had: dict[str, float] = {}
        self._here: Counter[str] = Counter()
        self._waiting: dict[str, deque[tuple[float, asyncio.Future[None]]]] = {}

    @asynccontextmanager
    async def take(self, name: str, cost: float) -> AsyncIterator[None]:
        """Wait for a turn and hold it for the length of the context.

        Args:
            name: the sender's name.
            cost: what the turn counts for, in a unit of the caller's choice.

        """
        self._here[name] += 1
        self._had.setdefault(name, self._now)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(name, deque()).append((cost, turn))
        self._serve()
        try:
            await turn
            yield
        finally:
            if turn.cancelled():
                self._waiting[name].remove((cost, turn))
            else:
                self._free += 1
            self._here[name] -= 1
            if not self._here[name]:
                del self._here[name], self._had[name], self._waiting[name]
            self._serve()

    def _serve(self) -> None:
        while self._free:
            names = [name for name, turns in self._waiting.items() if turns and not turns[0][1].cancelled()]
            if not names:
                return
            name = min(names, key=self._had.__getitem__)
            cost, turn = self._waiting[name].popleft()
            self._free -= 1
            self._now = self._had[name]
            self._had[name] += cost
            turn.set_result(None)


class Decoding:
    """A share of a service's decoding.

    Its methods raise BadInput, 413 or 422, for an image that is not taken, is damaged, or takes too long, and
    Unavailable if no process can be started. `sender` is whose image it is: each gets a fair share.

    Args:
        at_once: most decodings at once.
        seconds: deadline of one image, in seconds.
        bounds: bounds on one image.

    """

    def __init__(self, at_once: int, seconds: float = SECONDS, bounds: ImageBounds = images.BOUNDS) -> None:
        self.bounds = bounds
        self._queue = FairQueue(at_once)
        self._seconds = seconds
        # Turns are what limits: anyio's own limit must not make a job wait while its time runs.
        self._processes = CapacityLimiter(at_once)

    def inspect(self, encoded: bytes) -> ImageInfo:
        """Read the header alone, at once."""
        return images.inspect(encoded, self.bounds)

    async def verify(self, encoded: bytes, sender: str = "") -> ImageInfo:
        """Read an image to its end."""
        if images.is_quick(self.inspect(encoded)):
            return await asyncio.to_thread(images.verify, encoded, self.bounds)
        return await self._run(images.verify, encoded, sender=sender)

    async def as_jpeg(self, encoded: bytes, sender: str = "") -> bytes:
        """Return an upright JPEG; of an image that is one, only the header is read."""
        if self.inspect(encoded).is_upright_jpeg:
            return encoded
        return await self._run(images.as_jpeg, encoded, sender=sender)

    async def thumbnail(self, encoded: bytes, side: int, quality: int, sender: str = "") -> bytes:
        """Return an upright JPEG of at most `side` pixels a side."""
        return await self._run(images.thumbnail, encoded, side, quality, sender=sender)

    async def resized(self, encoded: bytes, mode: str, width: int, height: int, sender: str = "") -> bytes:
        """Return upright pixels in a mode, `L` or `RGB`: uint8, [height, width, 1 or 3]."""
        return await self._run(images.resized, encoded, mode, width, height, sender=sender)

    async def _run(self, decode: Callable[..., T], encoded: bytes, *args: object, sender: str) -> T:
        info = self.inspect(encoded)
        job = partial(decode, encoded, *args, self.bounds)
        async with self._queue.take(sender, info.pixels * info.weight):
            if images.is_quick(info):
                return await asyncio.to_thread(job)
            for _ in range(_TRIES):
                try:
                    async with asyncio.timeout(self._seconds):
                        return await to_process.run_sync(job, cancellable=True, limiter=self._processes)
                except TimeoutError as exc:
                    message = f"decoding the image takes more than {self._seconds:g} s"
                    raise BadInput(message, status=422, reason="too-slow") from exc
                except OSError as exc:
                    raise Unavailable("no process can be started to decode the image") from exc
                except BrokenWorkerProcess:
                    continue  # Memory ran out, perhaps by another's fault.
            raise BadInput("decoding the image ends its process", status=422, reason="undecodable")
