"""Runs a version's requests on threads of its own, joining concurrent ones to one signature into one call.

Scheduling follows TensorFlow Serving's shared batch scheduler: whenever a thread is free it takes what
waits in the next queue, up to `max_batch_size` rows; a batch that is not full may be held back until its
oldest request has waited `batch_timeout_micros` (0: never). Queues are bounded.

No version has a say in another's pace. A batch that takes longer than a call may is cancelled and its callers
are told; for as long again, or until it has ended, the version is in quarantine: whoever asks it is turned
away at once.

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

from model_server.errors import Code, ServingError, from_exception
from model_server.metrics import Metrics
from model_server.parameters import BatchingParameters
from model_server.servable import Arrays, Feeds, Servable, Signature, parse

log = structlog.get_logger()

# While a batch of a signature runs, its next one fills up; but not for longer than this, so that one slow
# request does not hold up the others when a thread is free.
OVERLAP_SECONDS = 0.01

# What was cancelled and has not ended so many seconds later will not.
STUCK_SECONDS = 10.0

# Calls that were ended from outside: to run them again singly would take as long again.
_ENDED = frozenset({Code.DEADLINE_EXCEEDED, Code.CANCELLED})

QUEUE_FULL = "The batch scheduling queue to which this task was submitted is full"


@dataclass(eq=False)
class Job:
    """One request's call of a signature.

    `rows` is the size of its first dimension, or None if it must run by itself. `finish` turns the
    outputs into the answer, on the worker's thread. `size` is the request's weight in bytes.
    """

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

    def clear(self) -> list[Job]:
        """Remove all jobs."""
        jobs, self.jobs, self.rows = list(self.jobs), deque(), 0
        return jobs


class Lane:
    """The threads and the queues of one version. To be used from one event loop."""

    def __init__(
        self, servable: Servable, parameters: BatchingParameters, metrics: Metrics, call_seconds: float
    ) -> None:
        self.waiting_bytes = 0
        self._servable = servable
        self._parameters = parameters
        self._metrics = metrics
        self._call_seconds = call_seconds
        name = f"predict {servable.name}/{servable.version}"
        self._pool = ThreadPoolExecutor(parameters.num_batch_threads, thread_name_prefix=name)
        self._free = parameters.num_batch_threads
        self._queues: dict[Signature, _Queue] = {}
        self._round_robin: deque[Signature] = deque()
        self._pending = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._batches: set[asyncio.Task[None]] = set()
        self._overdue: dict[int, float] = {}
        self._quarantined_until = 0.0

    @property
    def pending(self) -> int:
        """Requests that wait or run."""
        return self._pending

    @property
    def is_quarantined(self) -> bool:
        """Whether a call took too long, a moment ago or still."""
        return bool(self._overdue) or time.monotonic() < self._quarantined_until

    @property
    def is_stuck(self) -> bool:
        """Whether a call does not end although it was cancelled: its thread is lost to this process."""
        return any(time.monotonic() - since > STUCK_SECONDS for since in self._overdue.values())

    async def run(self, job: Job) -> Any:
        """Queue a call and return what `finish` made of its outputs. Raises ServingError."""
        if self.is_quarantined:
            raise ServingError(Code.UNAVAILABLE, self.quarantine)
        queue = self._queues.setdefault(job.signature, _Queue())
        if queue.rows + (job.rows or 1) > (
            self._parameters.max_enqueued_batches * self._parameters.max_batch_size
        ):
            raise ServingError(Code.UNAVAILABLE, QUEUE_FULL)
        if not queue.jobs:
            self._round_robin.append(job.signature)
        queue.put(job)
        self.waiting_bytes += job.size
        self._pending += 1
        self._idle.clear()
        self._dispatch()
        return await job.future

    @property
    def quarantine(self) -> str:
        """What is said of a version in quarantine."""
        which = f"{{name: {self._servable.name} version: {self._servable.version}}}"
        return f"Servable {which} is in quarantine: a call took longer than {self._call_seconds:g} s"

    async def drain(self) -> None:
        """Wait until no request is queued or running, then let the threads go."""
        await self._idle.wait()
        self._pool.shutdown(wait=False)

    async def close(self, grace: float) -> bool:
        """Let running batches end, `grace` seconds at most; whether all did."""
        unfinished: set[asyncio.Task[None]] = set()
        if self._batches:
            _, unfinished = await asyncio.wait(self._batches, timeout=grace)
        self._pool.shutdown(wait=False, cancel_futures=True)
        return not unfinished

    def _dispatch(self) -> None:
        """Give each free thread the next batch that is due, the queues taking turns."""
        for _ in range(len(self._round_robin)):
            if not self._free:
                return
            signature = self._round_robin.popleft()
            queue = self._queues[signature]
            if self._held_back(queue):
                self._round_robin.append(signature)
                continue
            batch = queue.take(self._parameters.max_batch_size)
            if queue.jobs:
                self._round_robin.append(signature)
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
        loop = asyncio.get_running_loop()
        began = time.monotonic()
        watch = loop.call_later(self._call_seconds, self._cancel, wanted)
        try:
            if wanted:
                answers = await loop.run_in_executor(self._pool, self._execute, wanted)
                for job, answer in zip(wanted, answers, strict=True):
                    if job.future.done():
                        continue
                    if isinstance(answer, ServingError):
                        job.future.set_exception(answer)
                    else:
                        job.future.set_result(answer)
        finally:
            watch.cancel()
            if time.monotonic() - began >= self._call_seconds:
                self._cancel(wanted)
            self._overdue.pop(id(wanted), None)
            self._free += 1
            queue.running -= 1
            for job in batch:
                job.future.cancel()  # of no effect on one that is done
                self._forget(job)
            self._dispatch()

    def _forget(self, job: Job) -> None:
        self.waiting_bytes -= job.size
        self._pending -= 1
        if not self._pending:
            self._idle.set()

    def _cancel(self, batch: list[Job]) -> None:
        """End a batch that takes too long, as far as it can be ended, and turn away what waits behind it."""
        if not batch or id(batch) in self._overdue:
            return
        now = time.monotonic()
        self._overdue[id(batch)] = now
        self._quarantined_until = now + self._call_seconds
        signature = batch[0].signature
        log.error(
            "a call takes too long",
            servable=f"{self._servable.name}/{self._servable.version}",
            signature=signature.name,
            seconds=self._call_seconds,
        )
        self._metrics.overdue(self._servable.name)
        signature.interrupt()
        for job in batch:
            if not job.future.done():
                words = f"The call took longer than {self._call_seconds:g} s"
                job.future.set_exception(ServingError(Code.DEADLINE_EXCEEDED, words))
        for queue in self._queues.values():
            for job in queue.clear():
                if not job.future.done():
                    job.future.set_exception(ServingError(Code.UNAVAILABLE, self.quarantine))
                self._forget(job)
        self._round_robin.clear()

    def _execute(self, batch: Sequence[Job]) -> list[Any]:
        """Run a batch on a worker's thread: an answer or a ServingError for each job."""
        started = time.monotonic()
        for job in batch:
            self._metrics.queued(started - job.enqueued)
        answers = self._together(batch) if len(batch) > 1 else None
        if answers is None:
            answers = [self._alone(job) for job in batch]
        self._metrics.ran(self._servable.name, time.monotonic() - started, len(batch))
        return answers

    def _alone(self, job: Job) -> Any:
        if job.future.done():  # nobody waits for it any more
            return None
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
        except ServingError as exc:
            if exc.code in _ENDED:
                return [exc] * len(batch)
            return None
        except ValueError:
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
