"""A version with a twin: it answers as its SavedModel does, and what cannot stand for that is passed over."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from caravan.contracts import ONE_IMAGE, SAVED_MODEL, TWIN
from caravan.graphs.twin import UnfitError
from model_server import twin
from model_server.errors import Code, ServingError
from model_server.stubs import saved_model_pb2, types_pb2
from support.files import as_file

CLASSES = ["blue", "green", "red"]
SIGNATURES = {
    "serving_default": ({"image_b64": [1]}, ["prediction"]),
    "classify": ({"images": [-1]}, ["labels", "scores", "probabilities", "classes"]),
}


def picture(colour: str, size: tuple[int, int] = (300, 200), form: str = "JPEG") -> bytes:
    return as_file(Image.new("RGB", size, colour), form)


def saved_model(signatures: Any = SIGNATURES, tag: str = "serve") -> bytes:
    """Return a SavedModel of which there are the signatures alone."""
    model = saved_model_pb2.SavedModel()
    graph = model.meta_graphs.add()
    graph.meta_info_def.tags.append(tag)
    for name, (inputs, outputs) in signatures.items():
        definition = graph.signature_def[name]
        definition.method_name = "tensorflow/serving/predict"
        for alias, shape in inputs.items():
            definition.inputs[alias].dtype = types_pb2.DT_STRING
            for size in shape:
                definition.inputs[alias].tensor_shape.dim.add(size=size)
        for alias in outputs:
            definition.outputs[alias].dtype = types_pb2.DT_STRING
    return bytes(model.SerializeToString())


def twin_model(
    classes: Any = tuple(CLASSES), *, pixels: int = TensorProto.UINT8, named: bool = True
) -> onnx.ModelProto:
    """Return a model that tells colours: the mean of blue, green and red, over a softmax."""
    nodes = [
        helper.make_node("Cast", ["pixels"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["x", "sides"], ["rgb"], keepdims=0),
        helper.make_node("MatMul", ["rgb", "turned"], ["bgr"]),
        helper.make_node("Softmax", ["bgr"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "twin",
        [helper.make_tensor_value_info("pixels", pixels, ["N", 224, 224, 3])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 3])],
        [
            helper.make_tensor("sides", TensorProto.INT64, [2], [1, 2]),
            helper.make_tensor("turned", TensorProto.FLOAT, [3, 3], np.eye(3)[::-1].ravel() / 16),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    if named:
        helper.set_model_props(model, {"classes": json.dumps(classes)})
    return model


def write(folder: Path, model: onnx.ModelProto | bytes, saved: bytes | None = None) -> Path:
    (folder / TWIN).parent.mkdir(parents=True)
    (folder / SAVED_MODEL).write_bytes(saved_model() if saved is None else saved)
    (folder / TWIN).write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    return folder


@pytest.fixture
def version(tmp_path: Path) -> Iterator[twin.Twin]:
    loaded = twin.load("tea", 3, write(tmp_path / "3", twin_model()))
    yield loaded
    loaded.release()


def images(*encoded: bytes) -> dict[str, Any]:
    return {"images": np.array(encoded, object)}


def test_it_has_the_signatures_of_its_saved_model(version: twin.Twin) -> None:
    model = saved_model_pb2.SavedModel.FromString(saved_model())
    assert version.definitions == dict(model.meta_graphs[0].signature_def)
    assert (version.name, version.version, version.platform) == ("tea", 3, "tensorflow_savedmodel")
    one, several = version.signatures["serving_default"], version.signatures["classify"]
    assert (one.inputs, one.outputs, one.batchable) == (("image_b64",), ("prediction",), False)
    assert (several.inputs, several.batchable) == (("images",), False)


def test_several_images_are_classified(version: twin.Twin) -> None:
    answer = version.signatures["classify"].call(
        images(picture("red"), picture("blue", (64, 64), "PNG"), picture("lime", (500, 900), "WEBP"))
    )
    assert answer["labels"].tolist() == [b"red", b"blue", b"green"]
    assert answer["classes"].tolist() == [b"blue", b"green", b"red"]
    assert answer["probabilities"].shape == (3, 3)
    assert answer["probabilities"].dtype == answer["scores"].dtype == np.float32
    assert answer["scores"].tolist() == answer["probabilities"].max(axis=1).tolist()


def test_one_image_is_answered_by_texts(version: twin.Twin) -> None:
    one = version.signatures["serving_default"].call({"image_b64": np.array([picture("red")], object)})
    label, score = one["prediction"].tolist()
    many = version.signatures["classify"].call(images(picture("red")))
    assert label == b"red"
    assert score.decode() == f"{many['scores'][0]:.6f}"


def test_no_image_is_no_answer(version: twin.Twin) -> None:
    answer = version.signatures["classify"].call(images())
    assert [answer[name].shape for name in ("labels", "scores", "probabilities")] == [(0,), (0,), (0, 3)]


@pytest.mark.parametrize(
    ("signature", "given", "words"),
    [
        ("serving_default", np.array([b"", b""], object), ONE_IMAGE),
        ("serving_default", np.array([[b""]], object), "image_b64 has to be a list of images"),
        ("classify", np.array([b"GIF89a"], object), "not an image: JPEG, PNG and WebP are taken"),
        ("classify", np.array([picture("red")[:200]], object), "not an image"),
    ],
)
def test_what_cannot_be_answered_is_refused_in_words(
    version: twin.Twin, signature: str, given: Any, words: str
) -> None:
    called = version.signatures[signature]
    with pytest.raises(ServingError, match=words) as refused:
        called.call({called.inputs[0]: given})
    assert refused.value.code is Code.INVALID_ARGUMENT


def test_a_call_that_is_interrupted_ends_before_its_next_image(version: twin.Twin) -> None:
    several = version.signatures["classify"]
    asked: list[int] = []

    class Interrupting(bytes):
        def __getitem__(self, part: Any) -> Any:
            if not asked:
                asked.append(1)
                several.interrupt()
            return super().__getitem__(part)

    with pytest.raises(ServingError) as refused:
        several.call(images(Interrupting(picture("red")), picture("blue")))
    assert asked
    assert refused.value.code is Code.CANCELLED


async def test_a_version_answers_from_several_threads_at_once(version: twin.Twin) -> None:
    several = version.signatures["classify"]
    colours = ["red", "blue", "lime"] * 4
    answers = await asyncio.gather(
        *(asyncio.to_thread(several.call, images(picture(colour))) for colour in colours)
    )
    assert [answer["labels"][0] for answer in answers] == [b"red", b"blue", b"green"] * 4


@pytest.mark.parametrize(
    ("model", "saved", "why"),
    [
        (b"", None, "it does not load"),
        (b"not a model", None, "it does not load"),
        (twin_model(named=False), None, "does not name its classes"),
        (twin_model({"a": 1}), None, "does not name its classes"),
        (twin_model(["one", "two"]), None, "one probability for each class"),
        (twin_model(pixels=TensorProto.FLOAT), None, "its input is not pixels"),
        (twin_model(), b"\xff\xff", "saved_model.pb cannot be read"),
        (twin_model(), saved_model(tag="train"), "has 0 graphs tagged serve"),
        (twin_model(), saved_model({"serving_default": ({"x": [1]}, ["y"])}), "no signature serving_default"),
    ],
)
def test_what_cannot_stand_for_a_saved_model_says_why(
    model: Any, saved: bytes | None, why: str, tmp_path: Path
) -> None:
    with pytest.raises(UnfitError, match=why):
        twin.load("tea", 1, write(tmp_path / "1", model, saved))
