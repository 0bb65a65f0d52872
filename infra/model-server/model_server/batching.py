"""Runs requests on a few threads, joining concurrent ones to the same signature into one call.

Scheduling follows TensorFlow Serving's shared batch scheduler: whenever a thread is free it takes what
waits in the next queue, up to `max_batch_size` rows; a batch that is not full may be held back until its
oldest request has waited `batch_timeout_micros` (0: never). Queues are bounded.

Two things are kinder than the original. A batch that fails is run again one request at a time, so that a
bad request fails alone. A signature that cannot be joined, or a request whose first dimensions differ, is
run by itself rather than refused.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from model_server.errors import Code, ServingError, from_exception, invalid
from model_server.metrics import Metrics
from model_server.parameters import BatchingParameters
from model_server.servable import Arrays, Feeds, Servable, Signature, parse

log = structlog.get_logger()

# While a batch of a signature runs, its next one fills up; but not for longer than this, so that one slow
# request does not hold up the others when a thread is free.
OVERLAP_SECONDS = 0.01

QUEUE_FULL = "The batch scheduling queue to which this task was submitted is full"


@dataclass(eq=False)
class Job:
    """One request's call of a signature.

    `rows` is the size of its first dimension, or None if it must run by itself. `finish` turns the
    outputs into the answer, on the worker's thread. `size` is the request's weight in bytes.
    """

    servable: Servable
    signature: Signature
    feeds: Feeds
    rows: int | None
    finish: Callable[[Arrays], Any]
    size: int
    future: "asyncio.Future[Any]"
    enqueued: float = field(default_factory=time.monotonic)


class _Queue:
    """The jobs that wait for one signature of one version."""

    def __init__(self) -> None:
        self.jobs: deque[Job] = deque()
        self.rows = 0
        self.running = 0
        self.timer: asyncio.TimerHandle | None = None

    def put(self, job: Job) -> None:
        self.jobs.append(job)
        self.rows += job.rows or 1

    def take(self, limit: int) -> list[Job]:
        """Remove the next batch: joinable jobs up to `limit` rows, or one job that runs by itself."""
        batch: list[Job] = []
        total = 0
        while self.jobs:
            job = self.jobs[0]
            rows = job.rows or 1
            if batch and (job.rows is None or total + rows > limit):
                break
            batch.append(self.jobs.popleft())
            self.rows -= rows
            total += rows
            if job.rows is None:
                break
        return batch


class Scheduler:
    """Owns the worker threads and the queues. To be used from one event loop."""

    def __init__(self, parameters: BatchingParameters | None, metrics: Metrics) -> None:
        """`parameters` None: requests are never joined, but still bounded and run on the same threads."""
        self._joins = parameters is not None
        self._parameters = parameters or BatchingParameters()
        self._metrics = metrics
        self._pool = ThreadPoolExecutor(self._parameters.num_batch_threads, thread_name_prefix="predict")
        self._free = self._parameters.num_batch_threads
        self._queues: dict[Signature, _Queue] = {}
        self._turns: deque[Signature] = deque()
        self._waiting_bytes = 0
        self._pending: dict[Servable, int] = {}
        self._idle: dict[Servable, asyncio.Event] = {}
        self._batches: set[asyncio.Task[None]] = set()

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

        Raises ServingError: the op's own, UNAVAILABLE if the queue is full, INVALID_ARGUMENT if the
        request alone is larger than a batch may be and splitting is off.
        """
        parameters = self._parameters
        joinable = self._joins and signature.batchable and bool(rows)
        if joinable and rows and rows > parameters.max_batch_size:
            if not parameters.enable_large_batch_splitting:
                raise invalid(
                    f"Task size {rows} is larger than maximum input batch size {parameters.max_batch_size}"
                )
            joinable = False
        queue = self._queues.setdefault(signature, _Queue())
        if queue.rows + (rows or 1 if joinable else 1) > (
            parameters.max_enqueued_batches * parameters.max_batch_size
        ) or (self._waiting_bytes and self._waiting_bytes + size > parameters.max_waiting_bytes):
            raise ServingError(Code.UNAVAILABLE, QUEUE_FULL)
        job = Job(
            servable,
            signature,
            feeds,
            rows if joinable else None,
            finish,
            size,
            asyncio.get_running_loop().create_future(),
        )
        if not queue.jobs:
            self._turns.append(signature)
        queue.put(job)
        self._waiting_bytes += size
        self._pending[servable] = self._pending.get(servable, 0) + 1
        self._dispatch()
        return await job.future

    async def drain(self, servable: Servable) -> None:
        """Wait until no request to `servable` is queued or running, then forget its queues."""
        if self._pending.get(servable):
            await self._idle.setdefault(servable, asyncio.Event()).wait()
        for signature in servable.signatures.values():
            self._queues.pop(signature, None)

    async def close(self, grace: float) -> bool:
        """Let running batches end, `grace` seconds at most; whether all did."""
        unfinished: set[asyncio.Task[None]] = set()
        if self._batches:
            _, unfinished = await asyncio.wait(self._batches, timeout=grace)
        self._pool.shutdown(wait=False, cancel_futures=True)
        return not unfinished

    def _dispatch(self) -> None:
        """Give each free thread the next batch that is due, the queues taking turns."""
        for _ in range(len(self._turns)):
            if not self._free:
                return
            signature = self._turns.popleft()
            queue = self._queues[signature]
            if self._held_back(queue):
                self._turns.append(signature)
                continue
            batch = queue.take(self._parameters.max_batch_size)
            if queue.jobs:
                self._turns.append(signature)
            self._free -= 1
            queue.running += 1
            task = asyncio.create_task(self._work(batch, queue), name="batch")
            self._batches.add(task)
            task.add_done_callback(self._batches.discard)

    def _held_back(self, queue: _Queue) -> bool:
        """Whether the queue's batch is still filling up; if so, a timer is set for when it will be due."""
        if queue.timer is not None:
            queue.timer.cancel()
            queue.timer = None
        first = queue.jobs[0]
        if first.rows is None or queue.rows >= self._parameters.max_batch_size:
            return False
        hold = self._parameters.batch_timeout_micros / 1_000_000
        if queue.running:
            hold = max(hold, OVERLAP_SECONDS)
        delay = first.enqueued + hold - time.monotonic()
        if delay > 0:
            queue.timer = asyncio.get_running_loop().call_later(delay, self._dispatch)
        return delay > 0

    async def _work(self, batch: list[Job], queue: _Queue) -> None:
        wanted = [job for job in batch if not job.future.done()]
        try:
            if wanted:
                answers = await asyncio.get_running_loop().run_in_executor(self._pool, self._execute, wanted)
                for job, answer in zip(wanted, answers, strict=True):
                    if job.future.done():
                        continue
                    if isinstance(answer, ServingError):
                        job.future.set_exception(answer)
                    else:
                        job.future.set_result(answer)
        finally:
            self._free += 1
            queue.running -= 1
            for job in batch:
                job.future.cancel()  # of no effect on one that is done
                self._waiting_bytes -= job.size
                self._done(job.servable)
            self._dispatch()

    def _done(self, servable: Servable) -> None:
        self._pending[servable] -= 1
        if not self._pending[servable]:
            del self._pending[servable]
            idle = self._idle.pop(servable, None)
            if idle is not None:
                idle.set()

    def _execute(self, batch: Sequence[Job]) -> list[Any]:
        """Run a batch on a worker's thread: an answer or a ServingError for each job."""
        started = time.monotonic()
        for job in batch:
            self._metrics.queued(started - job.enqueued)
        answers = self._together(batch) if len(batch) > 1 else None
        if answers is None:
            answers = [self._alone(job) for job in batch]
        self._metrics.ran(batch[0].servable.name, time.monotonic() - started, len(batch))
        return answers

    def _alone(self, job: Job) -> Any:
        try:
            arrays: Arrays = parse(job.feeds)
            if job.rows:
                arrays = _pad(arrays, self._parameters.padded(job.rows) - job.rows)
            outputs: Arrays = job.signature.call(arrays)
            if job.rows and self._parameters.padded(job.rows) != job.rows:
                outputs = _slice(outputs, job, 0, self._parameters.padded(job.rows)) or outputs
            return job.finish(outputs)
        except Exception as exc:  # noqa: BLE001 whatever goes wrong is this caller's answer
            return _answer(exc)

    def _together(self, batch: Sequence[Job]) -> list[Any] | None:
        """Run the jobs as one call; None if that cannot be, so that they have to run singly."""
        signature = batch[0].signature
        rows = [job.rows or 0 for job in batch]
        total = sum(rows)
        try:
            parsed = [parse(job.feeds) for job in batch]
            joined = {
                alias: np.concatenate([arrays[alias] for arrays in parsed]) for alias in signature.inputs
            }
            padded = self._parameters.padded(total)
            outputs = signature.call(_pad(joined, padded - total))
        except (ServingError, ValueError):
            return None
        answers = []
        start = 0
        for job in batch:
            own = _slice(outputs, job, start, padded)
            if own is None:
                return None
            start += job.rows or 0
            try:
                answers.append(job.finish(own))
            except Exception as exc:  # noqa: BLE001 whatever goes wrong is this caller's answer
                answers.append(_answer(exc))
        return answers


def _answer(error: Exception) -> ServingError:
    translated = from_exception(error)
    if translated.code is Code.INTERNAL:
        log.error("a request failed", exc_info=error)
    return translated


def _slice(outputs: Arrays, job: Job, start: int, total: int) -> Arrays | None:
    """The job's rows of a shared call's outputs; None if an output turns out not to be batch-first."""
    own: dict[str, NDArray[Any]] = {}
    for alias, output in outputs.items():
        if alias in job.signature.whole:
            own[alias] = output
        elif output.ndim and output.shape[0] == total:
            own[alias] = output[start : start + (job.rows or 0)]
        else:
            return None
    return own


def _pad(arrays: Arrays, missing: int) -> Arrays:
    """Append copies of the last row, `missing` of them."""
    if not missing:
        return arrays
    return {alias: np.concatenate([array, *([array[-1:]] * missing)]) for alias, array in arrays.items()}
