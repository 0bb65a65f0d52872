"""Strangers' models, loaded and asked in processes of their own."""

import asyncio
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from caravan.contracts import TWIN
from caravan.graphs.plausible import Input, examples, shapes, texts
from training import trials
from training.trial import Fault, Job, check_classes, check_finite, told
from training.trials import tried

SECONDS = 120
ZIPS = Path(__file__).parents[1] / "support" / "saved_models"


def saved(path: Path, *, evil: bool = False) -> Job:
    """A plain classifier of pictures of 28 x 28, as Keras exports one; or one that writes a file."""
    import tensorflow as tf  # noqa: PLC0415 - by two tests alone

    class Net(tf.Module):  # type: ignore[misc] # TensorFlow has no types
        def __init__(self) -> None:
            super().__init__()
            self.weights = tf.Variable(tf.ones([784, 3]))

        def __call__(self, x: Any) -> Any:
            if evil:
                tf.io.write_file(str(path / "written"), "harm")
            return {"scores": tf.nn.softmax(tf.reshape(x, [-1, 784]) @ self.weights)}

    net = Net()
    spec = tf.TensorSpec([None, 28, 28, 1], tf.float32, name="x")
    signature = tf.function(net.__call__, input_signature=[spec])
    tf.saved_model.save(net, str(path / "model"), signatures=signature)
    return Job(str(path / "model"), "saved_model.pb", ("a", "b", "c"))


def onnx_model(path: Path, *, kind: int = TensorProto.FLOAT) -> Job:
    nodes = [helper.make_node("Flatten", ["x"], ["y"])]
    x = helper.make_tensor_value_info("x", kind, ["N", 2, 2])
    y = helper.make_tensor_value_info("y", kind, ["N", 4])
    graph = helper.make_graph(nodes, "flat", [x], [y])
    path.mkdir(exist_ok=True)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8),
        str(path / "model.onnx"),
    )
    return Job(str(path), "model.onnx", ("a", "b", "c", "d"))


async def test_a_plain_keras_like_model_loads_and_answers(tmp_path: Path) -> None:
    found = await tried(saved(tmp_path), SECONDS)
    assert (found.fault, found.classes) == (None, ("a", "b", "c"))
    there = {path.name for path in (tmp_path / "model").iterdir()}
    assert there <= {"saved_model.pb", "fingerprint.pb", "variables", "assets"}


async def test_under_the_trained_models_name_encoded_images_have_to_be_taken(tmp_path: Path) -> None:
    found = await tried(replace(saved(tmp_path), contract=True), SECONDS)
    assert "does not take encoded images" in str(found.fault)


async def test_a_graph_that_writes_files_is_refused_and_writes_none(tmp_path: Path) -> None:
    found = await tried(saved(tmp_path, evil=True), SECONDS)
    assert "WriteFile" in str(found.fault)
    assert not (tmp_path / "written").exists()


async def test_an_onnx_model_loads_and_answers_and_its_scores_are_counted(tmp_path: Path) -> None:
    job = onnx_model(tmp_path)
    assert (await tried(job, SECONDS)).fault is None
    fewer = Job(job.directory, job.entry, ("a", "b"))
    assert (await tried(fewer, SECONDS)).fault == "it answers 4 values, and 2 class names were given"


async def test_an_onnx_model_has_no_twin(tmp_path: Path) -> None:
    job = onnx_model(tmp_path)
    (tmp_path / TWIN).parent.mkdir()
    (tmp_path / TWIN).write_bytes((tmp_path / "model.onnx").read_bytes())
    assert str((await tried(job, SECONDS)).fault).startswith(f"{TWIN} is for a SavedModel")


async def test_bytes_that_are_no_model_are_a_finding(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"garbage")
    assert "does not load" in str((await tried(Job(str(tmp_path), "model.onnx"), SECONDS)).fault)


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("import os; os.abort()", "ended with -6"),
        ("print('{}')", "ended with 0"),
        ("print('[' * 99)", "ended with 0"),
        ("import time; time.sleep(99)", "within 1 s"),
    ],
)
async def test_whatever_becomes_of_the_process_is_a_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, words: str
) -> None:
    monkeypatch.setattr(trials, "COMMAND", (sys.executable, "-c", program))
    assert words in str((await tried(Job(str(tmp_path), "model.onnx"), 1.0)).fault)


async def test_a_trial_sees_no_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S3_CENTRAL_SECRET_KEY", "secret")
    program = (
        "import json, os; print(json.dumps({'fault': str(sorted(os.environ)), 'classes': [], 'answers': []}))"
    )
    monkeypatch.setattr(trials, "COMMAND", (sys.executable, "-c", program))
    assert "SECRET" not in str((await tried(Job(str(tmp_path), "model.onnx"), SECONDS)).fault)


@pytest.mark.parametrize(
    ("dims", "channels_first", "tried_as"),
    [
        ((None, 28, 28, 1), False, (1, 28, 28, 1)),
        ((None, None, None, None), False, (1, 224, 224, 3)),
        ((None, None, None, None), True, (1, 3, 224, 224)),
        (("N", 3, "H", "W"), False, (1, 3, 224, 224)),
        (("batch_size", "num_channels", "height", "width"), False, (1, 3, 224, 224)),
        (("batch_size", "height", "width", "num_channels"), True, (1, 224, 224, 3)),
        ((None, None, None, 3), True, (1, 224, 224, 3)),
        ((None, None, 7), True, (1, 16, 7)),
        ((), True, ()),
        (None, False, (1, 224, 224, 3)),
    ],
)
def test_open_dimensions_are_tried_as_one_ordinary_example_first(
    dims: tuple[int | str | None, ...] | None, channels_first: bool, tried_as: tuple[int, ...]
) -> None:
    first = next(shapes([Input("x", np.float32, dims)], channels_first=channels_first))
    assert first == {"x": tried_as}


def test_then_in_the_other_layout_and_in_the_sizes_that_models_are_made_for() -> None:
    tried_as = [each["x"] for each in shapes([Input("x", np.float32, (None,) * 4)], channels_first=True)]
    assert {(1, 224, 224, 3), (1, 3, 28, 28), (1, 1, 28, 28), (1, 299, 299, 3)} <= set(tried_as)
    assert len(tried_as) == len(set(tried_as))
    lengths = [each["x"] for each in shapes([Input("x", np.float32, (None, None))], channels_first=True)]
    assert {(1, 4), (1, 13), (1, 784)} <= set(lengths)


def test_numbers_are_a_picture_noise_and_zeros_and_strings_an_image_and_words() -> None:
    inputs = [Input("x", np.uint8, (None, 8, 8, 3)), Input("text", object, (None,))]
    given = list(examples(inputs, next(shapes(inputs, channels_first=False)), texts()))
    assert [int(each["x"].max()) > 0 for each in given[:3]] == [True, True, False]
    assert given[0]["text"].tolist()[0].startswith(b"\xff\xd8")
    assert b"" in [each["text"].tolist()[0] for each in given]


def test_a_shape_that_is_huge_is_not_tried() -> None:
    assert list(shapes([Input("x", np.float32, (None, 2**20, 2**20))], channels_first=False)) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Graph execution error:\n\nDetected at node 'x'\nIncompatible shapes", "Incompatible shapes"),
        ("\n\n", "ValueError"),
        ("/work/upload-1/model/variables is gone", "variables is gone"),
        ("{{function_node f}} no such key\n\t [[{{node x}}]]", "no such key"),
        ("x" * 5000, "x" * 400 + "…"),
    ],
)
def test_a_reason_begins_where_something_is_said_and_shows_no_path(text: str, said: str) -> None:
    assert told(ValueError(text), "/work/upload-1/model") == said


async def test_models_of_older_makers_are_asked_what_they_want(tmp_path: Path) -> None:
    jobs = []
    for name in ("estimator", "several_graphs"):
        with zipfile.ZipFile(ZIPS / f"{name}.zip") as archive:
            archive.extractall(tmp_path)
        jobs.append(Job(str(tmp_path / name), "saved_model.pb"))
    assert [found.fault for found in await asyncio.gather(*(tried(job, SECONDS) for job in jobs))] == [
        None
    ] * 2


def conv(path: Path, dims: list[int | str], *, divide: bool = False) -> Job:
    """A classifier of pictures of any size; it may divide by the brightest pixel."""
    rng = np.random.default_rng(0)
    kernel = numpy_helper.from_array(rng.random((2, 3, 3, 3)).astype(np.float32), "kernel")
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0),
        helper.make_node("Div", ["x", "most"], ["scaled"]),
        helper.make_node("Conv", ["scaled" if divide else "x", "kernel"], ["c"]),
        helper.make_node("GlobalAveragePool", ["c"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Softmax", ["f"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, dims)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [dims[0], 2])
    graph = helper.make_graph(nodes, "conv", [x], [y], [kernel])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.mkdir(exist_ok=True)
    onnx.save_model(
        model,
        str(path / "model.onnx"),
        save_as_external_data=True,
        location="model.onnx.data",
        size_threshold=0,
    )
    return Job(str(path), "model.onnx", ("a", "b"))


async def test_onnx_models_with_open_sides_data_beside_them_and_a_fear_of_blank_pictures_are_taken(
    tmp_path: Path,
) -> None:
    jobs = [
        conv(tmp_path / "named", ["N", 3, "H", "W"]),
        conv(tmp_path / "optimum", ["batch_size", "num_channels", "height", "width"]),
        conv(tmp_path / "divides", ["N", 3, 32, 32], divide=True),
    ]
    assert [found.fault for found in await asyncio.gather(*(tried(job, SECONDS) for job in jobs))] == [
        None
    ] * 3


async def test_what_onnx_runtime_is_too_old_for_is_said_in_plain_words(tmp_path: Path) -> None:
    job = onnx_model(tmp_path)
    model = onnx.load(tmp_path / "model.onnx")
    model.ir_version = 99  # of a day to come
    onnx.save(model, str(tmp_path / "model.onnx"))
    fault = str((await tried(job, SECONDS)).fault)
    assert fault.startswith("it does not load: it is of ONNX's IR version 99, and up to ")
    assert "/" not in fault


async def test_a_locale_that_is_not_installed_is_named_with_one_that_is_everywhere(tmp_path: Path) -> None:
    text = helper.make_tensor_value_info("text", TensorProto.STRING, ["N"])
    lower = helper.make_tensor_value_info("lower", TensorProto.STRING, ["M"])
    options = {"case_change_action": "LOWER", "locale": "tlh_KX.UTF-8"}
    graph = helper.make_graph(
        [helper.make_node("StringNormalizer", ["text"], ["lower"], **options)], "lower", [text], [lower]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, str(tmp_path / "model.onnx"))
    fault = str((await tried(Job(str(tmp_path), "model.onnx"), SECONDS)).fault)
    assert fault.startswith("it does not load: it needs the locale tlh_KX.UTF-8, which is not installed here")
    assert "C.UTF-8" in fault


def test_infinities_and_wrong_counts_are_faults_and_other_outputs_are_left_alone() -> None:
    with pytest.raises(Fault, match="not finite"):
        check_finite("it", {"y": np.array([[1.0, np.nan]])})
    check_finite("it", {"labels": np.array([b"a"], object), "y": np.array([1])})
    check_classes(("no", "yes"), {"score": np.zeros((1, 1), np.float32)})
    row: Callable[[int], Any] = lambda n: np.zeros((1, n), np.float32)  # noqa: E731
    check_classes(("a",), {"boxes": row(4), "scores": row(9)})
    check_classes((), {"scores": row(9)})
    with pytest.raises(Fault, match="9 values"):
        check_classes(("a",), {"scores": row(9)})
