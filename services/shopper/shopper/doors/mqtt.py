"""The MQTT door: images come in on some topics, and each is answered on another."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn, TypeVar

import aiomqtt
import structlog

from caravan import telemetry, tracing
from caravan.contracts import MONITOR
from caravan.errors import BadInput, CaravanError
from caravan.mqtt import trace_of
from caravan.problems import Problem, problem, problem_of, unexpected
from shopper.doors.codecs import Codec
from shopper.doors.http import SMALL_BODY, Detect
from shopper.doors.topics import Topics
from shopper.images.budget import MemoryBudget
from shopper.metrics import MQTT_WAITING, OVERLOAD
from shopper.ports import Sender

log = structlog.get_logger()
T = TypeVar("T")

Publish = Callable[[str, bytes], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Exchange:
    """What is spoken on which topics."""

    topics: Topics
    codec: Codec


@dataclass(slots=True)
class Inbox:
    """Hands on what comes over MQTT: events to `events`, everything else to `detections`."""

    events: Callable[[bytes], None]
    detections: Callable[[aiomqtt.Message], Awaitable[None]] | None = None

    async def receive(self, message: aiomqtt.Message) -> None:
        """Take a message; of events only what happens now, not what the broker has kept."""
        if message.topic.value == MONITOR and isinstance(message.payload, bytes):
            if not message.retain:
                self.events(message.payload)
        elif self.detections is not None:
            await self.detections(message)


@dataclass(frozen=True, slots=True)
class _Request:
    codec: Codec
    sender: Sender
    payload: bytes
    reply_to: str
    trace: Mapping[str, str]


class MqttDoor:
    """Takes images from MQTT; so many at once, so many waiting, the rest turned away with an answer.

    Args:
        bindings: topics that do not overlap, and their languages.
        detect: the route.
        publish: sends a reply and waits for its acknowledgement.
        bodies: memory that messages may take.
        decoding: memory that reading them may take beside.
        max_payload: bytes of one message.
        concurrency: messages handled at once.
        waiting: messages that may wait.

    """

    def __init__(
        self,
        bindings: Sequence[Exchange],
        detect: Detect,
        publish: Publish,
        bodies: MemoryBudget,
        decoding: MemoryBudget,
        *,
        max_payload: int,
        concurrency: int,
        waiting: int,
    ) -> None:
        self._bindings = bindings
        self._detect = detect
        self._publish = publish
        self._bodies = bodies
        self._decoding = decoding
        self._max_payload = max_payload
        self._concurrency = concurrency
        self._requests: asyncio.Queue[_Request] = asyncio.Queue(waiting)
        self._refusals: asyncio.Queue[tuple[_Request, Problem]] = asyncio.Queue(waiting)

    async def receive(self, message: aiomqtt.Message) -> None:
        """Take a message from the broker; never waits.

        One that the broker kept is a request of long ago, which each new connection brings again.
        """
        payload = message.payload if isinstance(message.payload, bytes) else str(message.payload).encode()
        request = self._request(message, payload)
        if request is None:
            log.warning("message without a client ignored", topic=message.topic.value)
        elif message.retain:
            log.warning("retained message passed over", topic=message.topic.value)
            telemetry.REFUSALS.labels(request.codec.route.id, "retained").inc()
        elif len(payload) > self._max_payload:
            detail = f"the message is larger than {self._max_payload} bytes"
            self._turn_away(request, problem(413, detail, reason="too-large"))
        elif self._requests.full() or not self._bodies.take(2 * len(payload)):
            OVERLOAD.labels("mqtt").inc()
            self._turn_away(request, problem(503, "too many images at once: try again", reason="overloaded"))
        else:
            self._requests.put_nowait(request)
            MQTT_WAITING.set(self._requests.qsize())

    async def serve(self) -> NoReturn:
        """Answer messages; to be run as a task."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._answer_refusals(), name="mqtt-refusals")
            for number in range(self._concurrency):
                group.create_task(self._work(), name=f"mqtt-{number}")
        raise AssertionError  # its tasks never end

    # --- one message ----------------------------------------------------------------------------

    def _request(self, message: aiomqtt.Message, payload: bytes) -> _Request | None:
        for binding in self._bindings:
            topics = binding.topics
            if (rest := topics.rest_of(message.topic.value)) is not None:
                sender = Sender("mqtt", rest or topics.root, topics.model)
                return _Request(binding.codec, sender, payload, topics.reply_to(rest), trace_of(message))
        return None

    async def _work(self) -> NoReturn:
        while True:
            request = await self._requests.get()
            MQTT_WAITING.set(self._requests.qsize())
            try:
                answer = await self._answer(request)
            finally:
                self._bodies.give_back(2 * len(request.payload))
            await self._reply(request, answer)

    async def _answer(self, request: _Request) -> Mapping[str, Any]:
        codec, size = request.codec, len(request.payload)
        echo: Mapping[str, Any] = {}  # known before the image is: a reply that refuses the image has it too
        try:
            with tracing.following(request.trace), codec.route.exchange():
                async with self._decoding.hold(codec.cost(size)):
                    message = await _in_thread(size, lambda: codec.read(request.payload))
                    echo = message.echo
                    image = await _in_thread(size, message.picture)
                sender = message.sender(request.sender)
                answer: Mapping[str, Any] = await self._detect(image, sender, codec.answer)
        except Exception as exc:  # noqa: BLE001 - one message must not stop the others
            answer = _problem(request, exc)
        return {**answer, **echo}

    def _turn_away(self, request: _Request, answer: Problem) -> None:
        telemetry.REFUSALS.labels(request.codec.route.id, answer["reason"]).inc()
        if self._refusals.full():
            telemetry.BEST_EFFORT_FAILURES.labels("mqtt-reply").inc()
            return
        # The payload may be all that there is no room for.
        self._refusals.put_nowait((replace(request, payload=b""), answer))

    async def _answer_refusals(self) -> NoReturn:
        while True:
            await self._reply(*await self._refusals.get())

    async def _reply(self, request: _Request, answer: Mapping[str, Any]) -> None:
        # The image is kept by now; who misses a reply asks again.
        with telemetry.best_effort("mqtt-reply"), tracing.following(request.trace):
            await self._publish(request.reply_to, request.codec.write(answer))


def _problem(request: _Request, error: Exception) -> Mapping[str, Any]:
    """Log why a message was not answered; return what its sender is told."""
    about = {"route": request.codec.route.id, "client": request.sender.camera}
    match error:
        case BadInput():
            log.warning("message refused", **about, reason=error.reason, error=str(error))
            telemetry.REFUSALS.labels(about["route"], error.reason).inc()
            return {**problem_of(error), "reason": error.reason}
        case CaravanError():
            log.warning("message not served", **about, error=str(error))
            return problem_of(error)
        case _:  # the trace is for us, not for the sender
            log.error("message failed", **about, exc_info=error)
            return unexpected(error)


async def _in_thread(size: int, work: Callable[[], T]) -> T:
    """Work on a message of a size, in a thread if it is large."""
    return work() if size <= SMALL_BODY else await asyncio.to_thread(work)
