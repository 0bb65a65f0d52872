"""Bad input at each door of a running stack that asks for tokens: its answer, its count, and the next one."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import aiomqtt
import grpc
import httpx
import msgpack
import numpy as np
import pytest
import pytest_asyncio
from kafka import KafkaConsumer, KafkaProducer
from onnx import TensorProto as OnnxProto
from onnx import helper

from caravan import s3
from caravan.contracts import MODELS_CONFIG, ONNX_MODEL, version_prefix
from lab.photos import render
from local_stack.stack import Stack
from shopper.model.stubs import DT_FLOAT, DT_UINT8, PredictionServiceStub, PredictRequest, TensorProto

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL = "fashion_classifier"
CLASSES = ["Bag", "Coat"]
TOKEN = "correct-horse"
KNOWN, WRONG = ({"authorization": f"Bearer {token}"} for token in (TOKEN, "battery-staple"))
SECONDS = 60
GREY = np.full((28, 28), 200, np.uint8)
CONFIG = (
    f'config {{ name: "{MODEL}" base_path: "s3://production/models/{MODEL}" model_platform: "tensorflow" }}'
)


def by_brightness() -> bytes:
    """An ONNX model of images [N, 28, 28, 1] of 0..1: the brighter, the likelier the first of two classes."""
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], axes=[1, 2], keepdims=0),
        helper.make_node("Sub", ["one", "mean"], ["dark"]),
        helper.make_node("Concat", ["mean", "dark"], ["probabilities"], axis=-1),
    ]
    graph = helper.make_graph(
        nodes,
        "by-brightness",
        [helper.make_tensor_value_info("images", OnnxProto.FLOAT, ["N", 28, 28, 1])],
        [helper.make_tensor_value_info("probabilities", OnnxProto.FLOAT, ["N", 2])],
        [helper.make_tensor("one", OnnxProto.FLOAT, [1], [1.0])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    return bytes(model.SerializeToString())


class Doors:
    """The doors of the stack, and what they count."""

    def __init__(self, stack: Stack, http: httpx.AsyncClient) -> None:
        self.http = http
        self.kafka = stack.kafka
        self.shopper = stack.url("shopper-edge1")
        self.feeder = stack.url("feeder")
        self.model_server = stack.url("model-server-edge1", "rest")
        self.grpc = f"127.0.0.1:{stack.port('model-server-edge1', 'grpc')}"
        self.mqtt = stack.port("mqtt-edge1")

    async def refused(self, door: str, reason: str) -> int:
        """Return how often a door sent something back for a reason."""
        page = {
            "rest": f"{self.model_server}/monitoring/prometheus",
            "grpc": f"{self.model_server}/monitoring/prometheus",
            "kafka-intake": self.feeder,
        }.get(door, self.shopper)
        return await self._count(page, rf'caravan_refusals_total{{door="{door}",reason="{reason}"}}')

    async def failed(self, status: str) -> int:
        """Return how often the model server answered with a code, whatever the model."""
        labels = rf'{{model_name="[^"]*",status="{status}"}}'
        return await self._count(
            f"{self.model_server}/monitoring/prometheus", f":tensorflow:serving:request_count{labels}"
        )

    async def _count(self, page: str, line: str) -> int:
        text = (await self.http.get(f"{page}/metrics")).raise_for_status().text
        return sum(int(float(n)) for n in re.findall(rf"^{line} ([0-9.]+)$", text, re.MULTILINE))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def doors(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Doors]:
    settings = {
        "TOKENS": f"till:{TOKEN}",
        "MODEL_NAME": MODEL,
        "MODELS": json.dumps({MODEL: {"classes": CLASSES}}),
        "INTAKE_COUNT": "1",
    }
    home = tmp_path_factory.mktemp("bad-input")
    async with (
        Stack(home, parts=("shopper",), environment=settings, lasting=False) as stack,
        httpx.AsyncClient(timeout=SECONDS, trust_env=False) as http,
    ):
        bucket = s3.open_bucket(stack.s3("s3-edge1"), "production")
        await s3.write(bucket, f"{version_prefix(MODEL, 1)}{ONNX_MODEL}", by_brightness())
        await s3.write(bucket, MODELS_CONFIG, f"model_config_list {{ {CONFIG} }}".encode())
        found = Doors(stack, http)
        async with asyncio.timeout(SECONDS):
            while (await _ask(found, KNOWN)).status_code != httpx.codes.OK:
                await asyncio.sleep(0.1)
        yield found


PHOTO = render("tea-lemon", 4_000_002)


async def _ask(doors: Doors, headers: dict[str, str]) -> httpx.Response:
    return await doors.http.post(f"{doors.shopper}/binary", content=PHOTO, headers=headers)


# --- tensors and JSON over MQTT -----------------------------------------------------------------


def tensor(**more: Any) -> bytes:
    fields = {"image": GREY.tobytes(), "dtype": "uint8", "height": 28, "width": 28, **more}
    return bytes(msgpack.packb(fields))


async def answered(doors: Doors, topic: str, payload: bytes, reply_to: str) -> bytes:
    async with aiomqtt.Client("127.0.0.1", doors.mqtt, timeout=10) as client:
        await client.subscribe(reply_to, qos=1)
        await client.publish(topic, payload, qos=1)
        async with asyncio.timeout(SECONDS):
            return bytes((await anext(client.messages)).payload)


@pytest.mark.parametrize(
    ("payload", "status", "reason"),
    [
        (b"\xc1 no msgpack", 400, "not-msgpack"),
        (tensor(dtype="complex128"), 422, "wrong-dtype"),
        (tensor(dtype="float64"), 422, "shape-mismatch"),
        (tensor(height=16384, width=16384, channels=3), 413, "too-large"),
        (tensor(height=2**30, width=1), 422, "wrong-shape"),
        (
            tensor(image={"nd": True, "type": "<f4", "kind": "", "shape": [16000, 16000], "data": b""}),
            422,
            "shape-mismatch",
        ),
        (tensor(model="nobody"), 404, "unknown-model"),
    ],
)
async def test_a_bad_tensor_gets_its_reply_is_counted_and_the_next_one_is_answered(
    doors: Doors, payload: bytes, status: int, reason: str
) -> None:
    before = await doors.refused("detect-tensor", reason)
    reply = msgpack.unpackb(await answered(doors, "apparel_images", payload, "apparel-predict"))
    assert (reply["status"], reply["reason"]) == (status, reason)
    assert await doors.refused("detect-tensor", reason) == before + 1
    good = msgpack.unpackb(await answered(doors, "apparel_images", tensor(id=7), "apparel-predict"))
    assert (good["prediction"], good["id"]) == ("Bag", 7)


async def test_a_bad_message_gets_its_reply_and_is_counted(doors: Doors) -> None:
    for payload, status, reason in (
        (b"no JSON", 400, "not-json"),
        (b'{"image":"no base64!"}', 400, "not-base64"),
        (b'{"image":"bm8gaW1hZ2U="}', 422, "not-an-image"),
    ):
        before = await doors.refused("detect-mqtt", reason)
        reply = json.loads(await answered(doors, "detection/till-3", payload, "response/detection/till-3"))
        assert (reply["status"], reply["reason"]) == (status, reason)
        assert await doors.refused("detect-mqtt", reason) == before + 1


# --- tokens -------------------------------------------------------------------------------------

Shown = dict[str, str]
Asked = Callable[[Doors, Shown], Any]


async def ask_rest(doors: Doors, headers: Shown) -> str:
    body = {"instances": np.zeros((1, 28, 28, 1)).tolist()}
    url = f"{doors.model_server}/v1/models/{MODEL}:predict"
    return str((await doors.http.post(url, json=body, headers=headers)).status_code)


async def ask_shopper(doors: Doors, headers: Shown) -> str:
    return str((await _ask(doors, headers)).status_code)


def request(shape: Sequence[int] = (1, 28, 28, 1), dtype: int = DT_FLOAT, model: str = MODEL) -> Any:
    """A request whose one value stands for all, as the protocol allows."""
    asked = PredictRequest()
    asked.model_spec.name = model
    value = TensorProto(dtype=dtype)
    for size in shape:
        value.tensor_shape.dim.add().size = size
    if dtype == DT_FLOAT:
        value.float_val.append(0.5)
    else:
        value.int_val.append(1)
    asked.inputs["images"].CopyFrom(value)
    return asked


async def predict(doors: Doors, headers: Shown, asked: Any) -> str:
    async with grpc.aio.insecure_channel(doors.grpc) as channel:
        try:
            await PredictionServiceStub(channel).Predict(
                asked, timeout=SECONDS, metadata=tuple(headers.items())
            )
        except grpc.aio.AioRpcError as exc:
            return exc.code().name
    return "OK"


async def ask_grpc(doors: Doors, headers: Shown) -> str:
    return await predict(doors, headers, request())


@pytest.mark.parametrize(
    ("ask", "door", "no", "yes"),
    [
        (ask_shopper, "POST /binary", "401", "200"),
        (ask_rest, "rest", "401", "200"),
        (ask_grpc, "grpc", "UNAUTHENTICATED", "OK"),
    ],
)
async def test_a_wrong_token_or_none_is_refused_and_a_right_one_is_let_in(
    doors: Doors, ask: Asked, door: str, no: str, yes: str
) -> None:
    for headers, reason in ((WRONG, "wrong-token"), ({}, "no-token")):
        before = await doors.refused(door, reason)
        assert await ask(doors, headers) == no
        assert await doors.refused(door, reason) == before + 1
    assert await ask(doors, KNOWN) == yes


# --- the model server ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        (request((2**15, 2**15)), "INVALID_ARGUMENT"),
        (request((2**62, 2**62)), "INVALID_ARGUMENT"),
        (request(dtype=DT_UINT8), "INVALID_ARGUMENT"),
        (request((1, 27, 28, 1)), "INVALID_ARGUMENT"),
        (request(model="nobody"), "NOT_FOUND"),
    ],
)
async def test_a_bad_request_over_grpc_gets_its_code_and_the_door_stays_open(
    doors: Doors, eventually: Any, asked: Any, code: str
) -> None:
    before = await doors.failed(code)
    assert await predict(doors, KNOWN, asked) == code

    async def counted() -> bool:  # once the answer has left
        return await doors.failed(code) == before + 1

    await eventually(counted)
    assert await ask_grpc(doors, KNOWN) == "OK"


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        (f"/v1/models/{MODEL}:predict", b"no JSON", 400, "INVALID_ARGUMENT"),
        (f"/v1/models/{MODEL}:predict", b'{"instances":["text"]}', 400, "INVALID_ARGUMENT"),
        ("/v1/models/nobody:predict", b'{"instances":[1]}', 404, "NOT_FOUND"),
        (
            f"/v2/models/{MODEL}/infer",
            b'{"inputs":[{"name":"images","datatype":"FP32","shape":[1,32768,32768,1],"data":[0.5]}]}',
            400,
            "INVALID_ARGUMENT",
        ),
        (
            f"/v2/models/{MODEL}/infer",
            b'{"inputs":[{"name":"images","datatype":"COMPLEX","shape":[1],"data":[0.5]}]}',
            400,
            "INVALID_ARGUMENT",
        ),
    ],
)
async def test_a_bad_request_over_rest_gets_its_code_and_the_door_stays_open(
    doors: Doors, path: str, body: bytes, status: int, code: str
) -> None:
    before = await doors.failed(code)
    answer = await doors.http.post(f"{doors.model_server}{path}", content=body, headers=KNOWN)
    assert (answer.status_code, list(answer.json())) == (status, ["error"])
    assert await doors.failed(code) == before + 1
    assert await ask_rest(doors, KNOWN) == "200"


# --- images over HTTP and Kafka -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "body", "status", "reason"),
    [
        ("", b"no image", 422, "not-an-image"),
        ("?model=nobody", PHOTO, 404, "unknown-model"),
        ("", PHOTO[:-500], 422, "damaged-image"),
    ],
)
async def test_a_bad_image_over_http_gets_its_problem_and_the_door_stays_open(
    doors: Doors, query: str, body: bytes, status: int, reason: str
) -> None:
    before = await doors.refused("POST /binary", reason)
    answer = await doors.http.post(f"{doors.shopper}/binary{query}", content=body, headers=KNOWN)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert await doors.refused("POST /binary", reason) == before + 1
    assert (await _ask(doors, KNOWN)).status_code == httpx.codes.OK


async def test_an_image_on_kafka_without_a_class_is_dead_lettered_and_the_next_is_stored(
    doors: Doors,
) -> None:
    before = await doors.refused("kafka-intake", "no-class")

    def send_and_read() -> tuple[Any, Any]:
        with KafkaProducer(bootstrap_servers=doors.kafka) as producer:
            for headers in ([], [("class", b"tea-lemon")]):
                producer.send("training-images", PHOTO, b"till", headers).get(timeout=SECONDS)
        with KafkaConsumer(
            bootstrap_servers=doors.kafka, auto_offset_reset="earliest", consumer_timeout_ms=SECONDS * 1000
        ) as consumer:
            consumer.subscribe(["training-images-dead-letter"])
            letter = next(consumer)
            consumer.subscribe(["trigger"])
            return letter, next(consumer)

    letter, trigger = await asyncio.to_thread(send_and_read)
    assert (letter.value, dict(letter.headers)["dead-letter-code"]) == (PHOTO, b"no-class")
    assert (trigger.value, dict(trigger.headers)["stored"]) == (b"edge1", b"1")
    assert await doors.refused("kafka-intake", "no-class") == before + 1
