"""Gives each version that is asked a lane of its own, and shares out what they may hold in memory."""

import asyncio
from collections.abc import Callable
from typing import Any

from model_server.batching import QUEUE_FULL, Job, Lane
from model_server.errors import Code, ServingError, invalid
from model_server.metrics import Metrics
from model_server.parameters import BatchingParameters
from model_server.servable import Arrays, Feeds, Servable, Signature


class Scheduler:
    """Runs calls. To be used from one event loop."""

    def __init__(
        self, parameters: BatchingParameters | None, metrics: Metrics, call_seconds: float = 60.0
    ) -> None:
        """`parameters` None: requests are never joined, but still bounded and run on the same threads."""
        self._joins = parameters is not None
        self._parameters = parameters or BatchingParameters()
        self._metrics = metrics
        self._call_seconds = call_seconds
        self._lanes: dict[Servable, Lane] = {}

    async def run(
        self,
        servable: Servable,
        signature: Signature,
        feeds: Feeds,
        *,
        rows: int | None,
        size: int,
        finish: Callable[[Arrays], Any],
    ) -> Any:
        """Queue a call and return what `finish` made of its outputs.

        Raises ServingError: the op's own, UNAVAILABLE if the queue is full or the version in quarantine,
        DEADLINE_EXCEEDED if the call took too long, INVALID_ARGUMENT if the request alone is larger than a
        batch may be and splitting is off.
        """
        parameters = self._parameters
        joinable = self._joins and signature.batchable and bool(rows)
        if joinable and rows and rows > parameters.max_batch_size:
            if not parameters.enable_large_batch_splitting:
                raise invalid(
                    f"Task size {rows} is larger than maximum input batch size {parameters.max_batch_size}"
                )
            joinable = False
        lane = self._lanes.get(servable)
        if lane is None:
            lane = self._lanes[servable] = Lane(servable, parameters, self._metrics, self._call_seconds)
        if lane.waiting_bytes and lane.waiting_bytes + size > self._share(lane):
            raise ServingError(Code.UNAVAILABLE, QUEUE_FULL)
        future = asyncio.get_running_loop().create_future()
        return await lane.run(Job(signature, feeds, rows if joinable else None, finish, size, future))

    def _share(self, lane: Lane) -> int:
        """What a version may have waiting, in bytes: the less, the more others have something waiting."""
        others = sum(1 for other in self._lanes.values() if other is not lane and other.pending)
        return self._parameters.max_waiting_bytes // (1 + others)

    def quarantine(self, servable: Servable) -> str | None:
        """Why a version is not asked at the moment, if so."""
        lane = self._lanes.get(servable)
        return lane.quarantine if lane is not None and lane.is_quarantined else None

    @property
    def is_stuck(self) -> bool:
        """Whether a call does not end although it was cancelled."""
        return any(lane.is_stuck for lane in self._lanes.values())

    async def drain(self, servable: Servable) -> None:
        """Wait until no request to `servable` is queued or running, then forget it."""
        lane = self._lanes.get(servable)
        if lane is not None:
            await lane.drain()
            self._lanes.pop(servable, None)

    async def close(self, grace: float) -> bool:
        """Let running batches end, `grace` seconds at most; whether all did."""
        ended = await asyncio.gather(*(lane.close(grace) for lane in self._lanes.values()))
        return all(ended)
