"""shopper: what a client sees at the MQTT door."""

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiomqtt
import pytest

from caravan.errors import BadInput, Permanent, Transient, Unavailable
from shopper import detection
from shopper.budget import MemoryBudget
from shopper.mqtt_door import MqttDoor
from shopper.ports import Picture, Sender

IMAGE = b"an image"


def message(client: str = "till-1", payload: Any = None) -> aiomqtt.Message:
    if payload is None:
        payload = json.dumps({"image": base64.b64encode(IMAGE).decode()}).encode()
    return aiomqtt.Message(f"detection/{client}", payload, qos=1, retain=False, mid=1, properties=None)


class Broker:
    """The door with fakes on both sides."""

    def __init__(self, memory: int = 10**6, concurrency: int = 4, waiting: int = 100) -> None:
        self.replies: list[tuple[str, dict[str, Any]]] = []
        self.error: Exception | None = None
        self.deaf = 0
        self.seen: list[tuple[Picture, Sender]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.at_once = 0
        self.most_at_once = 0
        self.door = MqttDoor(
            self.detect,
            self.publish,
            MemoryBudget(memory),
            max_payload=1000,
            concurrency=concurrency,
            waiting=waiting,
        )

    async def detect(
        self, image: Picture, sender: Sender, answer: detection.Answer = detection.answer
    ) -> dict[str, Any]:
        self.seen.append((image, sender))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await self.gate.wait()
        self.at_once -= 1
        if self.error:
            raise self.error
        return {"known": "true", "pricetag": "Thé: 2.99"}

    async def publish(self, topic: str, payload: bytes) -> None:
        if self.deaf:
            self.deaf -= 1
            raise Transient("no acknowledgement")
        self.replies.append((topic, json.loads(payload)))

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.door.serve())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def until_replies(self, count: int) -> list[tuple[str, dict[str, Any]]]:
        async with asyncio.timeout(20):
            while len(self.replies) < count:
                await asyncio.sleep(0.005)
        return self.replies


@pytest.mark.parametrize("client", ["till-1", "shop/till 3", "é", "a//b/"])
async def test_the_reply_goes_to_the_client(client: str) -> None:
    broker = Broker()
    async with broker.serving():
        await broker.door.receive(message(client))
        ((topic, reply),) = await broker.until_replies(1)
    assert topic == f"response/detection/{client}"
    assert reply == {"known": "true", "pricetag": "Thé: 2.99"}
    assert broker.seen == [(IMAGE, Sender("mqtt", client))]


@pytest.mark.parametrize("topic", ["detection", "detection/"])
async def test_a_message_without_a_client_is_passed_over(topic: str) -> None:
    broker = Broker()
    async with broker.serving():
        await broker.door.receive(aiomqtt.Message(topic, b"{}", 1, retain=False, mid=1, properties=None))
        await broker.door.receive(message())
        await broker.until_replies(1)
    assert len(broker.replies) == 1


@pytest.mark.parametrize(
    ("payload", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"\xff", 400),
        (b"{}", 422),
        (b'{"image": "?"}', 400),
        (None, 422),
        ("text", 400),
        (7, 422),
        (b"x" * 1001, 413),
    ],
)
async def test_bad_input_is_answered_with_a_problem(payload: Any, status: int) -> None:
    broker = Broker()
    async with broker.serving():
        await broker.door.receive(
            aiomqtt.Message("detection/till-1", payload, 1, retain=False, mid=1, properties=None)
            if payload is not None
            else message(payload=b"[]")
        )
        ((topic, reply),) = await broker.until_replies(1)
    assert topic == "response/detection/till-1"
    assert reply["status"] == status
    assert reply["detail"]
    assert broker.seen == []


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [
        (BadInput("not an image", status=422), 422, "not an image"),
        (Unavailable("no model serves yet: upload training images"), 503, "upload"),
        (Transient("10.0.0.1 refused"), 503, "try again"),
        (Permanent("secret"), 502, "refused"),
        (ZeroDivisionError("secret"), 500, "ZeroDivisionError"),
    ],
)
async def test_what_fails_is_answered_and_the_next_message_served(
    error: Exception, status: int, says: str
) -> None:
    broker = Broker(concurrency=1)
    broker.error = error
    async with broker.serving():
        await broker.door.receive(message())
        ((_, reply),) = await broker.until_replies(1)
        broker.error = None
        await broker.door.receive(message())
        await broker.until_replies(2)
    assert reply["status"] == status
    assert says in reply["detail"]
    assert "secret" not in reply["detail"]
    assert "10.0.0.1" not in reply["detail"]


async def test_beyond_its_capacity_the_door_says_so_and_loses_nothing_it_took() -> None:
    broker = Broker(concurrency=2, waiting=3)
    broker.gate.clear()
    async with broker.serving():
        await broker.door.receive(message("first"))
        await broker.door.receive(message("second"))
        async with asyncio.timeout(20):
            while broker.at_once < 2:
                await asyncio.sleep(0.005)
        for number in range(5):
            await broker.door.receive(message(f"later-{number}"))
        refused = list(await broker.until_replies(2))
        broker.gate.set()
        await broker.until_replies(7)
    assert [(topic, reply["status"]) for topic, reply in refused] == [
        ("response/detection/later-3", 503),
        ("response/detection/later-4", 503),
    ]
    assert len(broker.seen) == 5
    assert broker.most_at_once == 2


async def test_messages_that_do_not_fit_into_memory_are_turned_away() -> None:
    broker = Broker(memory=10)
    broker.gate.clear()
    async with broker.serving():
        await broker.door.receive(message("first"))
        await broker.door.receive(message("second"))
        ((topic, reply),) = await broker.until_replies(1)
        broker.gate.set()
        await broker.until_replies(2)
        await broker.door.receive(message("third"))
        await broker.until_replies(3)
    assert (topic, reply["status"]) == ("response/detection/second", 503)
    assert [topic for topic, _ in broker.replies[1:]] == [
        "response/detection/first",
        "response/detection/third",
    ]


async def test_a_reply_that_cannot_be_sent_does_not_stop_the_door() -> None:
    broker = Broker(concurrency=1)
    broker.deaf = 1
    async with broker.serving():
        await broker.door.receive(message("unheard"))
        await broker.door.receive(message("heard"))
        await broker.until_replies(1)
    assert [topic for topic, _ in broker.replies] == ["response/detection/heard"]
