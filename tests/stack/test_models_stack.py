"""Models that people send, from the feeder's door to the model server's, beside the one that is trained."""

import asyncio
import base64
import gzip
import io
import json
import os
import re
import struct
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import aiomqtt
import grpc
import httpx
import numpy as np
import pytest
from onnx import TensorProto, helper
from PIL import Image

from caravan import s3
from lab.samples import apparel
from local_stack.stack import Stack
from support.files import as_file, zipped

pytestmark = pytest.mark.asyncio(loop_scope="session")

EDGE = "edge2"
CLASSES = list(apparel.CLASSES)
ASKED = 200
SAVED_MODELS = Path(__file__).parents[1] / "support" / "saved_models"
NAMES = "cup,plate,spoon"
OUTPUTS = {
    "builder": ("x", "scores"),
    "estimator_image": ("image", "probabilities"),
    "keras2_adam": ("input_1", "dense"),
}
"""Of each model its input, and the output with its scores."""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set in the files of Fashion-MNIST: each class has its own two bright rows."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(1)
    for part, count in (("train", 1280), ("t10k", ASKED)):
        labels = np.arange(count, dtype=np.uint8) % len(CLASSES)
        images = rng.integers(0, 100, (count, 28, 28), np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[4 + 2 * label : 6 + 2 * label] = 220
        for name, values in (("images-idx3", images), ("labels-idx1", labels)):
            head = struct.pack(f">4B{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
            path = folder / f"{part}-{name}-ubyte.gz"
            path.write_bytes(gzip.compress(head + values.tobytes(), 1))
    return folder


async def samples(*words: str | Path, home: Path | None = None) -> tuple[int, str]:
    """Run the command; return its exit code and what it said."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "lab", "samples", *words),
        env={**os.environ, **({"CARAVAN_HOME": str(home)} if home else {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), 150)
    return process.returncode or 0, output.decode()


def model_zip(files: dict[str, bytes], classes: list[str]) -> bytes:
    return zipped({**files, "labels.txt": "\n".join(classes).encode()})


def onnx_model() -> bytes:
    nodes = [helper.make_node("Flatten", ["x"], ["flat"]), helper.make_node("Softmax", ["flat"], ["y"])]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2, 5])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 10])
    graph = helper.make_graph(nodes, "flat", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return bytes(model.SerializeToString())


class Doors:
    """The two ends of the road."""

    def __init__(self, stack: Stack, http: httpx.AsyncClient) -> None:
        self.http = http
        self.feeder = stack.url("feeder")
        self.server = f"{stack.url(f'model-server-{EDGE}', 'rest')}/v1/models"
        self.manager = stack.url(f"edge-manager-{EDGE}")

    async def send(self, name: str, content: bytes, **query: str) -> httpx.Response:
        query |= {"edgeId": EDGE, "name": name, "wait": "120"}
        return await self.http.put(f"{self.feeder}/model", params=query, content=content, timeout=150)

    async def serves(self, name: str, version: int) -> bool:
        states = (await self.http.get(f"{self.server}/{name}")).json().get("model_version_status", [])
        return {"AVAILABLE"} == {each["state"] for each in states if each["version"] == str(version)}

    async def manager_knows(self) -> bool:
        models = (await self.http.get(f"{self.manager}/versions")).json()["models"]
        return all(models[name]["serving"] == 1 for name in ("fashion_classifier", "flat"))


def striped(number: int) -> bytes:
    """The picture of one of three classes: two bright rows of eight."""
    pixels = np.zeros((8, 8), np.uint8)
    pixels[2 * number : 2 * number + 2] = 255
    return as_file(Image.fromarray(pixels), "PNG")


async def test_models_of_older_makers_are_taken_answer_at_every_door_and_are_swapped_while_they_serve(
    stack: Stack, http: httpx.AsyncClient, eventually: Any
) -> None:
    import tensorflow as tf  # noqa: PLC0415 - seconds, for one test
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc  # noqa: PLC0415 - as above

    doors = Doors(stack, http)
    made = {
        name: (SAVED_MODELS / f"{name}.zip").read_bytes()
        for name in ("builder", "estimator_image", "keras2_adam")
    }
    sent = await asyncio.gather(*(doors.send(name, made[name], classes=NAMES) for name in made))
    assert [(each.status_code, each.json()["version"]) for each in sent] == [(200, 1)] * 3, [
        each.text for each in sent
    ]

    pixels = np.asarray(Image.open(io.BytesIO(striped(2))), np.float32)[..., None] / 255
    async with (
        aiomqtt.Client("127.0.0.1", stack.port(f"mqtt-{EDGE}"), timeout=10) as camera,
        grpc.aio.insecure_channel(f"127.0.0.1:{stack.port(f'model-server-{EDGE}', 'grpc')}") as channel,
    ):
        await camera.subscribe("response/detection/older", qos=1)
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)

        async def item(model: str) -> tuple[str, int]:
            message = {"image": base64.b64encode(striped(2)).decode(), "model": model}
            await camera.publish("detection/older", json.dumps(message), qos=1)
            reply = json.loads((await anext(aiter(camera.messages))).payload)
            return reply["item"], reply["version"]

        for name, (alias, scores) in OUTPUTS.items():
            await eventually(partial(doors.serves, name, 1), 60)
            assert await item(name) == ("spoon", 1)
            answer = await http.post(f"{doors.server}/{name}:predict", json={"inputs": [pixels.tolist()]})
            outputs = answer.json()["outputs"]
            assert np.argmax(outputs[scores] if isinstance(outputs, dict) else outputs) == 2
            request = predict_pb2.PredictRequest()
            request.model_spec.name = name
            request.inputs[alias].CopyFrom(tf.make_tensor_proto(pixels[None]))
            assert np.argmax((await stub.Predict(request, timeout=10)).outputs[scores].float_val) == 2

        # Another make takes over under the name, and there is never no answer.
        answered: set[int] = set()
        second = asyncio.create_task(doors.send("builder", made["keras2_adam"], classes=NAMES))

        async def serves_second() -> bool:
            found, version = await item("builder")
            assert found == "spoon"
            answered.add(version)
            return version == 2

        await eventually(serves_second, 120)
        assert answered == {1, 2}
        assert (await second).json()["version"] == 2


async def test_models_that_are_sent_serve_side_by_side(
    stack: Stack, http: httpx.AsyncClient, eventually: Any, pictures: Path, tmp_path: Path
) -> None:
    doors = Doors(stack, http)
    convnet = tmp_path / "fashion.zip"
    code, said = await samples("apparel", "--data", pictures, "--out", convnet, "--epochs", "3")
    assert code == 0, said
    sent, as_onnx, broken = await asyncio.gather(
        doors.send("fashion_classifier", convnet.read_bytes()),
        doors.send("flat", model_zip({"model.onnx": onnx_model()}, CLASSES)),
        doors.send("broken", model_zip({"m/saved_model.pb": b"no graph at all"}, [])),
    )
    assert (sent.status_code, sent.json()["version"], sent.json()["classes"]) == (200, 1, CLASSES), sent.text
    assert (as_onnx.status_code, as_onnx.json()["kind"]) == (200, "onnx"), as_onnx.text
    await eventually(lambda: doors.serves("fashion_classifier", 1), 60)
    await eventually(lambda: doors.serves("flat", 1), 60)

    image = [[[0.5]] * 28] * 28
    answer = await http.post(f"{doors.server}/fashion_classifier:predict", json={"instances": [image, image]})
    assert [len(scores) for scores in answer.json()["predictions"]] == [10, 10]
    answer = await http.post(f"{doors.server}/flat:predict", json={"instances": [[[0.0] * 5] * 2]})
    assert answer.json()["predictions"] == [pytest.approx([0.1] * 10)]

    # The same net answers a camera: pixels over MQTT, classes by the names it came with.
    code, said = await samples("apparel-score", "--data", pictures, "--edge", EDGE, home=stack.settings.home)
    assert code == 0, said
    found = re.search(r"accuracy ([0-9.]+): [0-9]+ right of ([0-9]+), ([0-9]+) answered", said)
    assert found is not None, said
    assert [int(count) for count in found.groups()[1:]] == [ASKED, ASKED]
    assert float(found[1]) > 0.9

    # What does not load is said to its sender, and goes nowhere.
    assert broken.status_code == 422
    assert "does not load" in broken.json()["detail"]
    store = s3.open_bucket(stack.s3("s3-central"), f"{EDGE}-ready")
    assert [entry["path"] async for entry in s3.listing(store, "models/broken/")] == []

    # Sent again it is the same version.
    again = await doors.send("fashion_classifier", convnet.read_bytes())
    assert (again.status_code, again.json()["version"]) == (200, 1)
    await eventually(doors.manager_knows, 30)
