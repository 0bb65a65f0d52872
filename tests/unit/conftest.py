"""Shared: the spans that a test makes; for the model server's tests small SavedModels, and the real server
on free ports in a thread.
"""

# ruff: noqa: PLC0415 TensorFlow is imported by those tests alone that need it: it takes seconds.

import asyncio
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from caravan import tracing
from caravan.start import TENSORFLOW_UNUSED

# A third of TensorFlow's import, for what no graph needs.
sys.modules.update(dict.fromkeys(TENSORFLOW_UNUSED))  # type: ignore[arg-type] # None: not to be found

Traced = TypeVar("Traced", bound=Callable[..., Any])
Serve = Callable[..., "ModelServer"]


@dataclass(frozen=True)
class ModelServer:
    """Where a running server listens."""

    target: str
    url: str

    def states(self, model: str) -> dict[int, str]:
        """The state of each known version."""
        answer = httpx.get(f"{self.url}/v1/models/{model}", timeout=10).json()
        return {int(one["version"]): one["state"] for one in answer.get("model_version_status", [])}

    def wait_for(self, model: str, version: int, state: str = "AVAILABLE") -> None:
        """Poll until the version is in that state."""
        deadline = time.monotonic() + 120
        while self.states(model).get(version) != state:
            assert time.monotonic() < deadline, f"{model}/{version} is {self.states(model)}, not {state}"
            time.sleep(0.02)


@contextmanager
def _server(settings: Any, graphs: Any) -> Iterator[ModelServer]:
    from model_server import app

    ports: Future[tuple[int, int]] = Future()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        try:
            async with app.serving(settings, graphs) as running:
                ports.set_result((running.grpc_port, running.rest_port))
                await stop.wait()
        except Exception as exc:
            if ports.done():
                raise
            ports.set_exception(exc)

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    grpc_port, rest_port = ports.result(120)
    try:
        yield ModelServer(f"127.0.0.1:{grpc_port}", f"http://127.0.0.1:{rest_port}")
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(120)
        assert not thread.is_alive()
        loop.close()


def _start(
    stack: ExitStack,
    graphs: Any,
    *flags: str,
    wait: dict[str, int] | None = None,
    environment: dict[str, str] | None = None,
) -> ModelServer:
    from model_server.settings import read

    quick = ["--port=0", "--rest_api_port=0", "--file_system_poll_wait_seconds=0.05", "--drain_seconds=1"]
    server = stack.enter_context(_server(read([*quick, *flags], environment or {}), graphs))
    for model, version in (wait or {}).items():
        server.wait_for(model, version)
    return server


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    """Trace during a test; what ended is in `spans.get_finished_spans()`."""
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing.use(provider)
    yield exporter
    tracing.stop()


@pytest.fixture(scope="session")
def graphs(saved_models: Path) -> Iterator[Any]:
    """The process that runs the SavedModels of all tests: one that is held all the time keeps it."""
    from caravan import credentials
    from caravan.graphs.limits import SessionLimits
    from model_server.graphs.process import Graphs

    shared = Graphs(credentials.without(os.environ))
    shared.load(saved_models / "half" / "1", SessionLimits())
    yield shared
    shared.close()


@pytest.fixture(scope="session")
def start_server(graphs: Any) -> Callable[..., ModelServer]:
    """Start a server that ends with an ExitStack: `start_server(stack, "--flag=…", wait={"model": 1})`."""
    return lambda stack, *flags, graphs=graphs, **options: _start(stack, graphs, *flags, **options)


@pytest.fixture
def serve_models(graphs: Any) -> Iterator[Serve]:
    """Start servers that end with the test: `serve_models("--flag=…", wait={"model": version})`."""
    with ExitStack() as stack:
        yield lambda *flags, wait=None: _start(stack, graphs, *flags, wait=wait)


@pytest.fixture(scope="session")
def saved_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of base paths: `half`, `pair`, `text`, `examples`, each with a version 1."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    folder = tmp_path_factory.mktemp("models")
    _save_half(folder / "half" / "1", 2.0)
    _save_pair(folder / "pair" / "1")
    _save_text(folder / "text" / "1")
    _save_examples(folder / "examples" / "1")
    return folder


@pytest.fixture(scope="session")
def onnx_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of base paths: ONNX models `scores`, `words`, `fixed`, `product`, each with a version 1."""
    folder = tmp_path_factory.mktemp("onnx")
    for name in ("scores", "words", "fixed", "product", "zipmap"):
        _save_onnx(folder / name / "1", name)
    return folder


@pytest.fixture(scope="session")
def save_half() -> Callable[[Path, float], None]:
    """Save a version of `half` that adds another number: `save_half(path, added)`."""
    return _save_half


def _graph(*inputs: Any) -> Callable[[Traced], Traced]:
    """tf.function with this input signature; it has no types of its own."""
    import tensorflow as tf

    traced: Callable[[Traced], Traced] = tf.function(input_signature=inputs)
    return traced


def _save_half(path: Path, added: float) -> None:
    """y = x / 2 + added, z = 3 x."""
    import tensorflow as tf

    class Half(tf.Module):  # type: ignore[misc] # TensorFlow has no types
        def __init__(self) -> None:
            super().__init__()
            self.added = tf.Variable(added)

        @_graph(tf.TensorSpec([None], tf.float32, name="x"))
        def run(self, x: Any) -> Any:
            return {"y": x / 2 + self.added, "z": x * 3.0}

    module = Half()
    tf.saved_model.save(module, str(path), signatures=module.run)


def _save_pair(path: Path) -> None:
    """Two inputs of two types, and outputs that do not fit the row form."""
    import tensorflow as tf

    @_graph(tf.TensorSpec([None], tf.float32, name="b"), tf.TensorSpec([None], tf.int32, name="a"))
    def add(b: Any, a: Any) -> Any:
        return {"sum": tf.cast(a, tf.float32) + b}

    @_graph(tf.TensorSpec([None], tf.float64, name="x"))
    def shapes(x: Any) -> Any:
        return {"a": x, "b": tf.concat([x, x], 0)}

    @_graph(tf.TensorSpec([None], tf.float32, name="x"))
    def total(x: Any) -> Any:
        return {"total": tf.reduce_sum(x)}

    @_graph(tf.TensorSpec([None, 2], tf.float32, name="x"))
    def matrix(x: Any) -> Any:
        return {"y": tf.matmul(x, tf.ones([2, 1]))}

    @_graph(tf.TensorSpec([None], tf.int64, name="x"))
    def count(x: Any) -> Any:
        return {"y": x + 1, "even": x % 2 == 0}

    module = tf.Module()
    module.functions = [add, shapes, total, matrix, count]
    signatures = {"serving_default": add, "shapes": shapes, "total": total, "matrix": matrix, "count": count}
    tf.saved_model.save(module, str(path), signatures=signatures)


def _save_text(path: Path) -> None:
    """The signatures of Caravan's own models, an image being the text of a number."""
    import tensorflow as tf

    names = tf.constant(["tea-green", "tea-lemon", "other"])

    def score(images: Any) -> Any:
        first = tf.strings.to_number(images)
        return tf.stack([first, 1 - first, tf.zeros_like(first)], 1)

    @_graph(tf.TensorSpec([1], tf.string, name="image_b64"))
    def default(image_b64: Any) -> Any:
        scores = score(image_b64)
        best = tf.strings.as_string(tf.reduce_max(scores))
        return {"output": tf.stack([tf.gather(names, tf.argmax(scores[0])), best])}

    @_graph(tf.TensorSpec([None], tf.string, name="images"))
    def classify(images: Any) -> Any:
        scores = score(images)
        return {
            "labels": tf.gather(names, tf.argmax(scores, 1)),
            "scores": tf.reduce_max(scores, 1),
            "probabilities": scores,
            "classes": tf.identity(names),
        }

    @_graph(tf.TensorSpec([None], tf.string, name="x"))
    def echo(x: Any) -> Any:
        return {"raw_bytes": x}

    module = tf.Module()
    module.functions = [default, classify, echo]
    signatures = {"serving_default": default, "classify": classify, "echo": echo}
    tf.saved_model.save(module, str(path), signatures=signatures)


def _save_examples(path: Path) -> None:
    """A model of TensorFlow 1: classify and regress on tf.Examples, predict on tensors."""
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        serialized = v1.placeholder(tf.string, [None], name="serialized")
        features = tf.io.parse_example(
            serialized,
            {"x": tf.io.FixedLenFeature([1], tf.float32), "k": tf.io.FixedLenFeature([1], tf.float32, 0.0)},
        )
        x = tf.identity(features["x"] + features["k"], name="x")
        half = v1.get_variable("half", initializer=0.5)
        y = tf.add(x * half, 2.0, name="y")
        labels = tf.fill(tf.shape(y), "positive")
        session.run(v1.global_variables_initializer())

        def signature(inputs: dict[str, Any], outputs: dict[str, Any], method: str) -> Any:
            infos = [
                {name: v1.saved_model.build_tensor_info(tensor) for name, tensor in side.items()}
                for side in (inputs, outputs)
            ]
            return v1.saved_model.build_signature_def(*infos, f"tensorflow/serving/{method}")

        builder = v1.saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(
            session,
            ["serve"],
            signature_def_map={
                "serving_default": signature({"x": x}, {"y": y}, "predict"),
                "classify": signature({"inputs": serialized}, {"scores": y, "classes": labels}, "classify"),
                "regress": signature({"inputs": serialized}, {"outputs": y}, "regress"),
                "regress_x": signature({"inputs": x}, {"outputs": y}, "regress"),
                # As today's TensorFlow writes it, which knows no method but predict.
                "native": signature({"inputs": serialized}, {"scores": y, "classes": labels}, "predict"),
            },
        )
        builder.save()


def _save_onnx(path: Path, kind: str) -> None:
    """`scores`: y = x + [0, 1, 2], best = argmax; the others are what their names say."""
    import onnx
    from onnx import TensorProto, helper

    float_, text = TensorProto.FLOAT, TensorProto.STRING
    value = helper.make_tensor_value_info
    added = helper.make_tensor("added", float_, [3], [0.0, 1.0, 2.0])
    maps = helper.make_map_type_proto(text, helper.make_tensor_type_proto(float_, []))
    node = helper.make_node
    nodes, inputs, outputs = {
        "scores": (
            [node("Add", ["x", "added"], ["y"]), node("ArgMax", ["y"], ["best"], axis=1, keepdims=0)],
            [value("x", float_, ["N", 3])],
            [value("y", float_, ["N", 3]), value("best", TensorProto.INT64, ["N"])],
        ),
        "words": (
            [node("Identity", ["x"], ["y"])],
            [value("x", text, ["N"])],
            [value("y", text, ["N"])],
        ),
        "fixed": (
            [node("Add", ["x", "added"], ["y"])],
            [value("x", float_, [1, 3])],
            [value("y", float_, [1, 3])],
        ),
        "product": (
            [node("MatMul", ["a", "b"], ["y"])],
            [value("a", float_, ["rows", "k"]), value("b", float_, ["k2", "columns"])],
            [value("y", float_, ["rows", "columns"])],
        ),
        "zipmap": (
            [node("ZipMap", ["x"], ["y"], domain="ai.onnx.ml", classlabels_strings=["a", "b", "c"])],
            [value("x", float_, ["N", 3])],
            [helper.make_value_info("y", helper.make_sequence_type_proto(maps))],
        ),
    }[kind]
    weights = [added] if kind in {"scores", "fixed"} else []
    graph = helper.make_graph(nodes, kind, inputs, outputs, weights)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    path.mkdir(parents=True)
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), str(path / "model.onnx"))
