"""shopper: what a client sees at the MQTT door."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiomqtt
import msgpack
import numpy as np
import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from prometheus_client import REGISTRY

from caravan.errors import BadInput, Permanent, Transient, Unavailable
from caravan.testing.waiting import running, until
from shopper import detection
from shopper.catalogue_file import CatalogueFile
from shopper.doors.codecs import Json, Tensor
from shopper.doors.mqtt import Exchange, MqttDoor
from shopper.doors.topics import DETECTION, DETECTION_REPLIES, Topics
from shopper.images.budget import MemoryBudget
from shopper.ports import Picture, Pixels, Prediction, Sender

IMAGE = b"an image"
TENSORS = Tensor(2000, 10_000)


def message(client: str = "till-1", payload: Any = None) -> aiomqtt.Message:
    if payload is None:
        payload = json.dumps({"image": base64.b64encode(IMAGE).decode()}).encode()
    return aiomqtt.Message(f"detection/{client}", payload, qos=1, retain=False, mid=1, properties=None)


class Broker:
    """The door with fakes on both sides."""

    def __init__(self, memory: int = 10**6, concurrency: int = 4, waiting: int = 100) -> None:
        self.replies: list[tuple[str, dict[str, Any]]] = []
        self.error: Exception | None = None
        self.recognition: detection.Recognition | None = None
        self.deaf = 0
        self.seen: list[tuple[Picture, Sender]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.at_once = 0
        self.most_at_once = 0
        self.door = MqttDoor(
            [
                Exchange(Topics(DETECTION, DETECTION_REPLIES), Json()),
                Exchange(Topics("apparel_images", "apparel-predict", "fashion_classifier"), TENSORS),
                Exchange(Topics("cameras/+", "answers"), TENSORS),
            ],
            self.detect,
            self.publish,
            MemoryBudget(memory),
            MemoryBudget(10**8),
            max_payload=2000,
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
        if self.recognition:
            return answer(self.recognition, CatalogueFile().catalogue)
        return {"known": "true", "pricetag": "Thé: 2.99"}

    async def publish(self, topic: str, payload: bytes) -> None:
        if self.deaf:
            self.deaf -= 1
            raise Transient("no acknowledgement")
        unpack = json.loads if topic.startswith("response/") else msgpack.unpackb
        self.replies.append((topic, unpack(payload)))

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        async with running(self.door.serve()):
            yield

    async def until_replies(self, count: int) -> list[tuple[str, dict[str, Any]]]:
        await until(lambda: len(self.replies) >= count)
        return self.replies


@pytest.mark.parametrize("topic", ["detection/till-1", "apparel_images", "cameras/door"])
async def test_what_the_broker_kept_is_no_request(topic: str) -> None:
    broker = Broker()
    route = (Json if topic.startswith("detection") else Tensor).route.id
    before = REGISTRY.get_sample_value("caravan_refusals_total", {"door": route, "reason": "retained"})
    async with broker.serving():
        kept = aiomqtt.Message(topic, message().payload, qos=1, retain=True, mid=1, properties=None)
        await broker.door.receive(kept)
        await broker.door.receive(message("till-2"))
        await broker.until_replies(1)
    assert [sender.camera for _, sender in broker.seen] == ["till-2"]
    after = REGISTRY.get_sample_value("caravan_refusals_total", {"door": route, "reason": "retained"})
    assert after == (before or 0) + 1


@pytest.mark.parametrize("client", ["till-1", "shop/till 3", "é", "a//b/"])
async def test_the_reply_goes_to_the_client(client: str) -> None:
    broker = Broker()
    async with broker.serving():
        await broker.door.receive(message(client))
        ((topic, reply),) = await broker.until_replies(1)
    assert topic == f"response/detection/{client}"
    assert reply == {"known": "true", "pricetag": "Thé: 2.99"}
    assert broker.seen == [(IMAGE, Sender("mqtt", client))]


async def test_a_message_of_mqtt_5_goes_on_with_its_trace(spans: InMemorySpanExporter) -> None:
    parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call] # no types there
    properties.UserProperty = [("shop", "7"), ("traceparent", parent)]
    traced, plain = message(), message("till-2")
    traced.properties = properties
    broker = Broker()
    async with broker.serving():
        for one in (traced, plain):
            await broker.door.receive(one)
        await broker.until_replies(2)
    routes = {span.name for span in spans.get_finished_spans()}
    ids = [f"{span.context.trace_id:032x}" for span in spans.get_finished_spans()]
    assert routes == {"detect-mqtt"}
    assert (len(ids), ids.count(parent[3:35])) == (2, 1)


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
        (b"x" * 2001, 413),
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


# --- tensors ------------------------------------------------------------------------------------------

GREY = np.arange(28 * 28, dtype=np.uint16).reshape(28, 28).astype(np.uint8)
BAG = Prediction(
    "bag", 0.75, "fashion_classifier", 3, {"shirt": 0.25, "bag": 0.75}, ("shirt", "bag"), 0.001, 0.002
)


def tensor(topic: str = "apparel_images", **more: Any) -> aiomqtt.Message:
    fields = {"image": GREY.tobytes(), "dtype": "uint8", "height": 28, "width": 28, **more}
    return aiomqtt.Message(topic, msgpack.packb(fields), qos=1, retain=False, mid=1, properties=None)


def refused(route: str, reason: str) -> float:
    labels = {"door": route, "reason": reason}
    return REGISTRY.get_sample_value("caravan_refusals_total", labels) or 0.0


@pytest.mark.parametrize(
    ("message", "sender", "reply_to"),
    [
        (tensor(), Sender("mqtt", "apparel_images", "fashion_classifier"), "apparel-predict"),
        (tensor("cameras/till 3"), Sender("mqtt", "till 3", ""), "answers/till 3"),
        (tensor("cameras/1", camera="door", model="m"), Sender("mqtt", "door", "m"), "answers/1"),
    ],
)
async def test_a_tensor_is_answered_beside_its_topic(
    message: aiomqtt.Message, sender: Sender, reply_to: str
) -> None:
    broker = Broker()
    async with broker.serving():
        await broker.door.receive(message)
        ((topic, reply),) = await broker.until_replies(1)
    ((picture, seen),) = broker.seen
    assert isinstance(picture, Pixels)
    np.testing.assert_array_equal(picture.values[:, :, 0], GREY)
    assert (seen, topic) == (sender, reply_to)
    assert reply["known"] == "true"


async def test_a_reply_to_a_tensor_has_the_models_own_view() -> None:
    broker = Broker()
    broker.recognition = detection.judge(BAG, CatalogueFile().catalogue, 0.6)
    async with broker.serving():
        await broker.door.receive(tensor(id=7, camera="door"))
        ((_, reply),) = await broker.until_replies(1)
    view = {"prediction": "bag", "probability": 0.75, "predictions": [0.25, 0.75], "index": 1}
    assert (view | {"id": 7, "camera": "door", "label": "bag", "known": "true"}).items() <= reply.items()


@pytest.mark.parametrize(
    ("fields", "status", "reason"),
    [
        ({"image": None}, 422, "no-image"),
        ({"dtype": "object"}, 422, "wrong-dtype"),
        ({"height": 29}, 422, "shape-mismatch"),
        ({"height": 16384, "width": 16384}, 413, "too-large"),
    ],
)
async def test_a_bad_tensor_is_answered_in_msgpack_counted_and_the_next_one_served(
    fields: dict[str, Any], status: int, reason: str
) -> None:
    broker, before = Broker(), refused("detect-tensor", reason)
    async with broker.serving():
        await broker.door.receive(tensor(id="a-1", **fields))
        ((topic, reply),) = await broker.until_replies(1)
        await broker.door.receive(tensor())
        await broker.until_replies(2)
    assert topic == "apparel-predict"
    assert (reply["status"], reply["reason"], reply["id"]) == (status, reason, "a-1")
    assert refused("detect-tensor", reason) == before + 1
    assert broker.replies[1][1]["known"] == "true"


async def test_what_is_not_msgpack_or_too_long_is_answered_in_msgpack() -> None:
    broker = Broker()
    text = aiomqtt.Message("apparel_images", b"{", qos=1, retain=False, mid=1, properties=None)
    async with broker.serving():
        await broker.door.receive(text)
        await broker.door.receive(tensor("cameras/1", image=bytes(3000)))
        await broker.until_replies(2)
    assert {reply["reason"] for _, reply in broker.replies} == {"not-msgpack", "too-large"}


async def test_an_unknown_model_is_said_with_its_reason() -> None:
    broker = Broker()
    broker.error = BadInput("model 'coffee' is not served here", 404, reason="unknown-model")
    async with broker.serving():
        await broker.door.receive(tensor(model="coffee"))
        await broker.door.receive(message("till-1"))
        await broker.until_replies(2)
    assert {(reply["status"], reply["reason"]) for _, reply in broker.replies} == {(404, "unknown-model")}


async def test_a_message_of_json_may_name_its_model() -> None:
    broker = Broker()
    async with broker.serving():
        body = {"image": base64.b64encode(IMAGE).decode(), "model": "digits"}
        await broker.door.receive(message("till-1", json.dumps(body).encode()))
        await broker.until_replies(1)
    assert broker.seen == [(IMAGE, Sender("mqtt", "till-1", "digits"))]
