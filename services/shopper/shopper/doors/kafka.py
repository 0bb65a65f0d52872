"""The Kafka door: `E-images` in, `E-detections` out."""

from __future__ import annotations

from functools import partial
from typing import Any, Protocol

from aiokafka import ConsumerRecord

from caravan.consume import Effect, Policy
from caravan.contracts import to_json
from caravan.errors import BadInput, CaravanError, Permanent, Refused, Transient
from caravan.kafka import RawHeaders, header
from caravan.problems import problem_of, unexpected
from shopper.doors.http import Detect
from shopper.ports import Sender, Silent
from shopper.routes import DETECT_KAFKA

ERROR = "error"
"""Header of an answer that is a problem document; its value is the reason's code."""
READ_AHEAD = 4
"""Messages in memory per message that is classified."""


class Send(Protocol):
    """Sends one message and returns once it is acknowledged."""

    async def __call__(
        self, topic: str, value: bytes | None, *, key: bytes | None, headers: RawHeaders
    ) -> None:
        """Raise Transient or Permanent if it is not acknowledged."""
        ...


def policy(concurrency: int, within: float) -> Policy:
    """Return how `detect-kafka` consumes: answers of one key in order, and what is away is waited for."""
    return Policy(
        route=DETECT_KAFKA.id,
        sink="model-server",
        at_once=concurrency,
        in_flight=READ_AHEAD * concurrency,
        order="key",
        within=within,
        then="stop",
    )


class KafkaDoor:
    """Reads images from Kafka and answers them. A refused image is answered too, then a dead letter.

    Args:
        detect: the route.
        send: Kafka.
        replies: the topic of the answers.
        patience: seconds for which images wait for a model that does not answer while its server does; after
            that they are refused, as others wait behind them.

    """

    def __init__(self, detect: Detect, send: Send, replies: str, patience: float) -> None:
        self._detect = detect
        self._send = send
        self._replies = replies
        self._patience = patience

    async def handle(self, record: ConsumerRecord) -> Effect:
        """Classify an image; the effect is its answer.

        Raises:
            Transient: if the model server, or what keeps images, is away.

        """
        try:
            image, sender = decode(record)
            answer = await self._detect(image, sender)
        except Silent as exc:
            if exc.seconds < self._patience:
                raise
            return partial(self._refuse, record, Refused(exc.detail))
        except Transient:
            raise
        except Exception as exc:  # noqa: BLE001 - the sender is told, then it goes on as it is
            return partial(self._refuse, record, exc)
        return partial(self._reply, record, answer, [])

    async def _refuse(self, record: ConsumerRecord, error: Exception) -> None:
        match error:
            case BadInput():
                problem, code = problem_of(error), error.reason
            case CaravanError():
                problem, code = problem_of(error), "refused"
            case _:
                problem, code = unexpected(error), "unexpected"
        await self._reply(record, {**problem, "reason": code}, [(ERROR, code.encode())])
        raise error

    async def _reply(self, record: ConsumerRecord, answer: dict[str, Any], more: RawHeaders) -> None:
        headers = [*record.headers, *more]
        try:
            await self._send(self._replies, to_json(answer), key=record.key, headers=headers)
        except Permanent as exc:
            message = f"the answer, with the key and headers that came, is lost: {exc}"
            raise BadInput(message, 413, reason="answer-too-large") from exc


def decode(record: ConsumerRecord) -> tuple[bytes, Sender]:
    """Return a message's image, encoded, and its sender: headers `camera`, else the key's text, and `model`.

    Raises:
        BadInput: 400 if a header is not UTF-8.

    """
    camera = header(record, "camera") or (record.key or b"").decode(errors="replace")
    return record.value or b"", Sender("kafka", camera, header(record, "model"))
