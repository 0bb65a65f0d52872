"""The Kafka door: `E-images` in, `E-detections` out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import structlog
from aiokafka import ConsumerRecord
from aiokafka.errors import KafkaError

from caravan import telemetry, tracing
from caravan.contracts import to_json
from caravan.errors import BadInput, CaravanError, Permanent, Transient
from caravan.kafka import Batch, PutAside, RawHeaders, header, trace_of
from caravan.problems import Problem, problem_of, unexpected
from caravan.retry import retried
from shopper.doors.http import Detect
from shopper.ports import Sender
from shopper.routes import DETECT_KAFKA

log = structlog.get_logger()

ERROR = "error"
"""Header of an answer that is a problem document: what was wrong in a word or three."""
COMMIT_SECONDS = 3.0

Place = tuple[int, int]
"""Of a message in its topic: partition and offset."""


class Send(Protocol):
    """Sends one message and returns once it is acknowledged."""

    async def __call__(
        self, topic: str, value: bytes | None, *, key: bytes | None, headers: RawHeaders
    ) -> None:
        """Raise Transient or Permanent if it is not acknowledged."""
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a message is answered with.

    Attributes:
        answer: of the route, or a problem document.
        code: of the problem, in a word or three; empty where there is none.
        reason: the same as a sentence.

    """

    answer: dict[str, Any]
    code: str = ""
    reason: str = ""


class KafkaDoor:
    """Takes images from Kafka, several at once, and answers those of one key in the order they came.

    A message is done when its answer is acknowledged, and its dead letter too if it was refused; offsets are
    committed as far as everything before is done. What fails for a while (the model server away, Kafka away)
    is tried again for so long, then raised, so that the loop begins again where it was committed: what was
    done beyond that is then done, and answered, twice.

    Args:
        detect: the route.
        send: Kafka.
        replies: the topic of the answers.
        put_aside: keeps what is refused.
        concurrency: images that are classified at once.
        within: seconds for which a message is tried.

    """

    def __init__(
        self,
        detect: Detect,
        send: Send,
        put_aside: PutAside,
        *,
        replies: str,
        concurrency: int,
        within: float,
    ) -> None:
        self._detect = detect
        self._send = send
        self._put_aside = put_aside
        self._replies = replies
        self._places = asyncio.Semaphore(concurrency)
        self._within = within

    async def serve(self, batches: AsyncIterable[Batch], commit: Callable[[Batch], Awaitable[None]]) -> None:
        """Answer messages for as long as they come.

        Raises:
            Transient: if one could be neither answered nor put aside in time.

        """
        async for batch in batches:
            done: set[Place] = set()
            try:
                await self._answer_all(batch, done)
            except BaseException:
                if begun := finished(batch, done):
                    with suppress(KafkaError, TimeoutError):
                        async with asyncio.timeout(COMMIT_SECONDS):
                            await commit(begun)
                raise
            await commit(batch)

    async def _answer_all(self, batch: Batch, done: set[Place]) -> None:
        latest: dict[bytes, asyncio.Task[None]] = {}

        async def handle(record: ConsumerRecord, before: asyncio.Task[None] | None) -> None:
            outcome = await self._outcome(record)
            if before is not None:
                await before
            await self._reply(record, outcome)
            done.add(place(record))

        try:
            async with asyncio.TaskGroup() as group:
                for record in (record for records in batch.values() for record in records):
                    before = None if record.key is None else latest.get(record.key)
                    task = group.create_task(handle(record, before))
                    if record.key is not None:
                        latest[record.key] = task
        except ExceptionGroup as several:
            raise several.exceptions[0] from several

    # --- one message ----------------------------------------------------------------------------

    async def _outcome(self, record: ConsumerRecord) -> Outcome:
        try:
            async with self._places:
                with tracing.following(trace_of(record)), telemetry.exchange(DETECT_KAFKA):
                    sender = sender_of(record)
                    image = record.value or b""
                    answer = await retried(
                        lambda: self._detect(image, sender), to="model-server", within=self._within
                    )
                    return Outcome(answer)
        except Transient:
            raise
        except BadInput as exc:
            telemetry.REFUSALS.labels(DETECT_KAFKA, exc.reason).inc()
            return _refused(problem_of(exc), exc.reason, exc.detail)
        except CaravanError as exc:
            return _refused(problem_of(exc), "refused", str(exc))
        except Exception as exc:
            # One message must not stop the others; the trace is for us, not for the sender.
            log.exception("message failed", route=DETECT_KAFKA, offset=record.offset)
            return _refused(unexpected(exc), "unexpected", repr(exc))

    async def _reply(self, record: ConsumerRecord, outcome: Outcome) -> None:
        headers = list(record.headers)
        if outcome.code:
            headers.append((ERROR, outcome.code.encode()))
        value = to_json(outcome.answer)
        code, reason = outcome.code, outcome.reason
        try:
            await retried(
                lambda: self._send(self._replies, value, key=record.key, headers=headers),
                to="kafka",
                within=self._within,
            )
        except Permanent as exc:
            code, reason = (
                "answer-too-large",
                f"the answer, with the key and headers that came, is lost: {exc}",
            )
        if code:
            await retried(lambda: self._put_aside(record, reason, code), to="kafka", within=self._within)


def _refused(answer: Problem, code: str, reason: str) -> Outcome:
    return Outcome({**answer, "reason": code}, code, reason)


def sender_of(record: ConsumerRecord) -> Sender:
    """Return who sent a message: headers `camera`, else the key's text, and `model`.

    Raises:
        BadInput: 400 if a header is not UTF-8.

    """
    camera = header(record, "camera") or (record.key or b"").decode(errors="replace")
    return Sender("kafka", camera, header(record, "model"))


def place(record: ConsumerRecord) -> Place:
    """Return where a message is."""
    return record.partition, record.offset


def finished(batch: Batch, done: Collection[Place]) -> Batch:
    """Return of each partition the messages before the first that is not done."""
    begun = {}
    for partition, records in batch.items():
        count = next((n for n, record in enumerate(records) if place(record) not in done), len(records))
        if count:
            begun[partition] = records[:count]
    return begun
