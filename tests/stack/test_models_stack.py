"""Models that people send, from the feeder's door to the model server's, beside the one that is trained."""

import asyncio
import io
import os
import zipfile
from typing import Any

import httpx
import pytest
from onnx import TensorProto, helper
from pydantic import SecretStr

from caravan import s3
from caravan.settings import S3Address
from local_stack.stack import Stack

pytestmark = pytest.mark.asyncio(loop_scope="session")

EDGE = "edge2"
CLASSES = [f"class {n}" for n in range(10)]


@pytest.fixture(scope="module")
def convnet(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A plain convnet over pictures of 28 x 28, exported and zipped with a top folder and its class names."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf  # noqa: PLC0415 - seconds

    class Net(tf.Module):  # type: ignore[misc] # TensorFlow has no types
        def __init__(self) -> None:
            super().__init__()
            self.filters = tf.Variable(tf.random.stateless_normal([3, 3, 1, 4], (1, 2)))
            self.weights = tf.Variable(tf.random.stateless_normal([13 * 13 * 4, 10], (3, 4)))

        def __call__(self, images: Any) -> Any:
            seen = tf.nn.relu(tf.nn.conv2d(images, self.filters, 2, "VALID"))
            return {"scores": tf.nn.softmax(tf.reshape(seen, [-1, 13 * 13 * 4]) @ self.weights)}

    net = Net()
    spec = tf.TensorSpec([None, 28, 28, 1], tf.float32, name="images")
    path = tmp_path_factory.mktemp("convnet")
    tf.saved_model.save(net, str(path), signatures=tf.function(net.__call__, input_signature=[spec]))
    files = {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}
    return zipped({f"fashion/{name}": content for name, content in files.items()}, CLASSES)


def zipped(files: dict[str, bytes], classes: list[str]) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {**files, "labels.txt": "\n".join(classes).encode()}.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return target.getvalue()


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

    async def send(self, name: str, content: bytes) -> httpx.Response:
        query = {"edgeId": EDGE, "name": name, "wait": "120"}
        return await self.http.put(f"{self.feeder}/model", params=query, content=content, timeout=150)

    async def serves(self, name: str, version: int) -> bool:
        states = (await self.http.get(f"{self.server}/{name}")).json().get("model_version_status", [])
        return {"AVAILABLE"} == {each["state"] for each in states if each["version"] == str(version)}

    async def manager_knows(self) -> bool:
        models = (await self.http.get(f"{self.manager}/versions")).json()["models"]
        return all(models[name]["serving"] == 1 for name in ("fashion_classifier", "flat"))


async def test_models_that_are_sent_serve_side_by_side(
    stack: Stack, http: httpx.AsyncClient, eventually: Any, convnet: bytes
) -> None:
    doors = Doors(stack, http)
    sent, as_onnx, broken = await asyncio.gather(
        doors.send("fashion_classifier", convnet),
        doors.send("flat", zipped({"model.onnx": onnx_model()}, CLASSES)),
        doors.send("broken", zipped({"m/saved_model.pb": b"no graph at all"}, [])),
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

    # What does not load is said to its sender, and goes nowhere.
    assert broken.status_code == 422
    assert "does not load" in broken.json()["detail"]
    store = s3.open_bucket(_central(stack), f"{EDGE}-ready")
    assert [entry["path"] async for entry in s3.listing(store, "models/broken/")] == []

    # Sent again it is the same version.
    again = await doors.send("fashion_classifier", convnet)
    assert (again.status_code, again.json()["version"]) == (200, 1)
    await eventually(doors.manager_knows, 30)


def _central(stack: Stack) -> S3Address:
    return S3Address(stack.url("s3-central"), SecretStr("any"), SecretStr("any"), "us-east-1", None)
