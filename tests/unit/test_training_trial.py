"""Strangers' models, loaded and asked in processes of their own."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from training import trials
from training.trial import Fault, Job, blank, check_classes, check_finite
from training.trials import tried

SECONDS = 120


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
    ("shape", "tried_as"),
    [
        ([None, 28, 28, 1], (1, 28, 28, 1)),
        ([None, None, None, None], (1, 224, 224, 3)),
        ([None, None, 7], (1, 16, 7)),
        ([], ()),
    ],
)
def test_open_dimensions_are_tried_as_one_ordinary_example(
    shape: list[int | None], tried_as: tuple[int, ...]
) -> None:
    assert blank("x", np.float32, shape).shape == tried_as


def test_a_string_is_an_encoded_image() -> None:
    assert blank("x", object, [None]).tolist()[0].startswith(b"\xff\xd8")


@pytest.mark.parametrize("shape", [None, [None, 2**20, 2**20]])
def test_a_shape_that_is_unknown_or_huge_is_a_fault(shape: list[int | None] | None) -> None:
    with pytest.raises(Fault):
        blank("x", np.float32, shape)


def test_infinities_and_wrong_counts_are_faults_and_other_outputs_are_left_alone() -> None:
    with pytest.raises(Fault, match="not finite"):
        check_finite("it", {"y": np.array([[1.0, np.nan]])})
    check_finite("it", {"labels": np.array([b"a"], object), "y": np.array([1])})
    row: Callable[[int], Any] = lambda n: np.zeros((1, n), np.float32)  # noqa: E731
    check_classes(("a",), {"boxes": row(4), "scores": row(9)})
    check_classes((), {"scores": row(9)})
    with pytest.raises(Fault, match="9 values"):
        check_classes(("a",), {"scores": row(9)})
