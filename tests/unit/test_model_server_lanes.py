"""A model that does not end, load or fit, or minds its company, is in nobody else's way."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
import pytest_asyncio
import tensorflow as tf
from onnx import TensorProto, helper

from caravan.graphs.limits import SessionLimits
from caravan.testing.waiting import until
from model_server import batching, onnx_model, saved_model, warmup
from model_server.errors import Code, ServingError
from model_server.loads import Loads
from model_server.memory import check_fits, free_memory
from model_server.metrics import Metrics
from model_server.parameters import BatchingParameters
from model_server.scheduler import Scheduler

SECONDS = 60


class Signature:
    """Answers what it is asked, once it may."""

    def __init__(self) -> None:
        self.name = "serving_default"
        self.definition = None
        self.inputs = self.outputs = ("x",)
        self.batchable = False
        self.whole: frozenset[str] = frozenset()
        self.open = threading.Event()
        self.heeds = True

    def call(self, arrays: Any) -> Any:
        self.open.wait(SECONDS)
        return arrays

    def interrupt(self) -> None:
        if self.heeds:
            self.open.set()


class Model:
    platform = "test"
    trouble: str | None = None

    def __init__(self, name: str, *, is_open: bool) -> None:
        self.name, self.version = name, 1
        self.definitions: dict[str, Any] = {}
        self.signature = Signature()
        self.signatures = {"serving_default": self.signature}
        self.released = threading.Event()
        if is_open:
            self.signature.open.set()

    def texts(self) -> list[bytes]:
        return []

    def release(self) -> None:
        self.released.set()


@pytest_asyncio.fixture
async def closed() -> AsyncIterator[Model]:
    model = Model("closed", is_open=False)
    yield model
    model.signature.open.set()


def scheduler(*, call_seconds: float = 0.1, waiting_bytes: int = 1000) -> Scheduler:
    parameters = BatchingParameters(num_batch_threads=2, max_waiting_bytes=waiting_bytes)
    return Scheduler(parameters, Metrics(), call_seconds)


async def ask(to: Scheduler, model: Any, size: int = 10) -> Any:
    feeds = {"x": np.array([1.0], np.float32)}
    return await to.run(
        model, model.signature, feeds, rows=None, size=size, finish=lambda arrays: arrays["x"][0]
    )


async def refusal(to: Scheduler, model: Any, size: int = 10) -> ServingError:
    with pytest.raises(ServingError) as caught:
        await ask(to, model, size)
    return caught.value


async def test_a_model_that_does_not_end_holds_up_no_other_and_is_put_in_quarantine(closed: Model) -> None:
    to, fine = scheduler(), Model("fine", is_open=True)
    closed.signature.heeds = False
    asked = [asyncio.create_task(refusal(to, closed)) for _ in range(5)]
    await asyncio.sleep(0)
    assert await ask(to, fine) == 1.0
    codes = [(await one).code for one in asked]
    assert codes.count(Code.DEADLINE_EXCEEDED) == 2
    assert codes.count(Code.UNAVAILABLE) == 3
    told = await refusal(to, closed)
    assert (told.code, told.message) == (Code.UNAVAILABLE, to.quarantine(closed))
    assert "is in quarantine: a call took longer than 0.1 s" in told.message
    assert to.quarantine(fine) is None
    assert await ask(to, fine) == 1.0
    closed.signature.open.set()
    await until(lambda: to.quarantine(closed) is None)
    assert await ask(to, closed) == 1.0
    await to.close(1)


async def test_what_does_not_end_when_it_is_cancelled_makes_the_server_say_so(
    closed: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "STUCK_SECONDS", 0.05)
    to = scheduler()
    closed.signature.heeds = False
    assert not to.is_stuck
    assert (await refusal(to, closed)).code is Code.DEADLINE_EXCEEDED
    await until(lambda: to.is_stuck)
    closed.signature.open.set()
    await until(lambda: not to.is_stuck)
    await to.close(1)


async def test_what_ends_when_it_is_cancelled_leaves_nothing_behind(closed: Model) -> None:
    to = scheduler()
    assert (await refusal(to, closed)).code is Code.DEADLINE_EXCEEDED
    await until(lambda: to.quarantine(closed) is None)
    assert not to.is_stuck
    assert await ask(to, closed) == 1.0
    await to.drain(closed)
    await to.close(1)


async def test_requests_that_wait_for_one_model_leave_room_for_another(closed: Model) -> None:
    to, fine = scheduler(call_seconds=SECONDS, waiting_bytes=1000), Model("fine", is_open=True)
    waiting = [asyncio.create_task(ask(to, closed, 250)) for _ in range(4)]
    await asyncio.sleep(0)
    assert (await refusal(to, closed, 250)).message == batching.QUEUE_FULL
    assert await ask(to, fine, 400) == 1.0
    closed.signature.open.set()
    assert await asyncio.gather(*waiting) == [1.0] * 4
    await to.close(1)


async def test_a_load_that_does_not_end_is_given_up_and_what_it_loads_later_is_let_go() -> None:
    loads, slow, fine = Loads(), Model("slow", is_open=False), Model("fine", is_open=True)

    def load() -> Any:
        slow.signature.open.wait(SECONDS)
        return slow

    with pytest.raises(ServingError, match="not loaded within") as caught:
        await loads.load(load, 0.1, "slow/1")
    assert caught.value.code is Code.DEADLINE_EXCEEDED
    assert loads.is_stuck
    assert await loads.load(lambda: fine, SECONDS, "fine/1") is fine
    slow.signature.open.set()
    await until(slow.released.is_set)
    assert not loads.is_stuck


async def test_whatever_a_loader_raises_is_the_versions_error() -> None:
    def load() -> Any:
        raise MemoryError("no room")

    with pytest.raises(ServingError, match="no room"):
        await Loads().load(load, SECONDS, "m/1")


def test_a_version_that_is_larger_than_the_free_memory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "variables").mkdir()
    (tmp_path / "variables" / "data").write_bytes(bytes(100))
    check_fits(tmp_path, 100)
    check_fits(tmp_path, None)
    with pytest.raises(
        ServingError, match="its files have 100 bytes, and 99 bytes of memory are free"
    ) as caught:
        check_fits(tmp_path, 99)
    assert caught.value.code is Code.RESOURCE_EXHAUSTED


def test_free_memory_is_the_machines_or_the_control_groups_whichever_is_less(tmp_path: Path) -> None:
    meminfo, group = tmp_path / "meminfo", tmp_path / "group"
    group.mkdir()
    meminfo.write_text("MemTotal: 9 kB\nMemAvailable:    4 kB\n")
    assert free_memory(meminfo, group) == 4096
    (group / "memory.max").write_text("max\n")
    (group / "memory.current").write_text("1000\n")
    assert free_memory(meminfo, group) == 4096
    (group / "memory.max").write_text("3000\n")
    (group / "memory.stat").write_text("anon 500\nfile 200\n")
    assert free_memory(meminfo, group) == 2200
    assert free_memory(tmp_path / "none", tmp_path / "none") is None


# --- with models that run --------------------------------------------------------------------------


def save(path: Path, *specs: Any) -> Callable[[Callable[..., Any]], None]:
    """Save a function as a model: a decorator."""

    def save_it(function: Callable[..., Any]) -> None:
        module = tf.Module()
        module.function = tf.function(function, input_signature=specs)
        tf.saved_model.save(module, str(path), signatures=module.function)

    return save_it


def tried_out(path: Path, graphs: Any) -> bool:
    """Whether requests to a model are joined, after it was tried out."""
    model = saved_model.load("m", 1, path, SessionLimits(), graphs)
    warmup.try_out(model, SECONDS)
    joined = model.signatures["serving_default"].batchable
    model.release()
    return joined


def test_requests_to_a_model_that_looks_across_its_batch_are_not_joined(tmp_path: Path, graphs: Any) -> None:
    rows = tf.TensorSpec([None, 4], tf.float32, name="x")

    @save(tmp_path / "centred", rows)
    def centred(x: Any) -> Any:
        return {"y": x - tf.reduce_mean(x, axis=0, keepdims=True)}

    @save(tmp_path / "ranked", tf.TensorSpec([None], tf.string, name="x"))
    def ranked(x: Any) -> Any:
        return {"y": tf.argsort(tf.strings.length(x))}

    @save(tmp_path / "plain", rows)
    def plain(x: Any) -> Any:
        return {"y": tf.nn.softmax(x), "best": tf.argmax(x, 1), "names": tf.constant(["a", "b"])}

    @save(tmp_path / "unanswered", rows)
    def unanswered(x: Any) -> Any:
        with tf.control_dependencies([tf.debugging.assert_greater(x, 100.0)]):
            return {"y": x - tf.reduce_mean(x, axis=0, keepdims=True)}

    def scores(x: Any) -> Any:
        return tf.io.parse_example(x, {"size": tf.io.FixedLenFeature([2], tf.float32)})["size"]

    serialized = tf.TensorSpec([None], tf.string, name="x")

    @save(tmp_path / "examples", serialized)
    def examples(x: Any) -> Any:
        return {"y": tf.nn.softmax(scores(x))}

    @save(tmp_path / "examples_centred", serialized)
    def examples_centred(x: Any) -> Any:
        return {"y": scores(x) - tf.reduce_mean(scores(x), axis=0, keepdims=True)}

    joined = {path.name for path in tmp_path.iterdir() if tried_out(path, graphs)}
    assert joined == {"plain", "examples"}


def test_a_call_of_an_onnx_model_ends_when_it_is_interrupted(tmp_path: Path) -> None:
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["on"], ["on_out"]), helper.make_node("Add", ["v", "v"], ["v_out"])],
        "body",
        [
            value("i", TensorProto.INT64, []),
            value("on", TensorProto.BOOL, []),
            value("v", TensorProto.FLOAT, [1]),
        ],
        [value("on_out", TensorProto.BOOL, []), value("v_out", TensorProto.FLOAT, [1])],
    )
    graph = helper.make_graph(
        [helper.make_node("Loop", ["n", "", "x"], ["y"], body=body)],
        "loop",
        [value("n", TensorProto.INT64, []), value("x", TensorProto.FLOAT, [1])],
        [value("y", TensorProto.FLOAT, [1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(tmp_path / "model.onnx"))
    signature = onnx_model.load("loop", 1, tmp_path, SessionLimits()).signatures["serving_default"]
    feeds: dict[str, Any] = {"n": np.array(500_000, np.int64), "x": np.zeros(1, np.float32)}
    timer = threading.Timer(0.1, signature.interrupt)
    timer.start()
    with pytest.raises(ServingError) as caught:
        signature.call(feeds)
    timer.join()
    assert caught.value.code is Code.CANCELLED
    assert signature.call({**feeds, "n": np.array(3, np.int64)})["y"].tolist() == [0.0]


def test_through_the_doors_a_slow_model_is_told_of_and_another_answers(
    serve_models: Any, tmp_path: Path, save_half: Any
) -> None:
    save_half(tmp_path / "half" / "1", 1.0)

    # One operation, on one thread: a loop would end between two of them, once it is interrupted.
    @save(tmp_path / "slow" / "1", tf.TensorSpec([], tf.int32, name="n"))
    def slow(n: Any) -> Any:
        values = tf.linalg.eigh(tf.reshape(tf.cos(tf.range(tf.cast(n * n, tf.float32))), [n, n]))[0]
        return {"y": tf.math.count_nonzero(tf.math.is_finite(values), dtype=tf.int32)}

    config = tmp_path / "models.config"
    entries = (
        f'config {{ name: "{name}" base_path: "{tmp_path / name}" model_platform: "tensorflow" }}'
        for name in ("half", "slow")
    )
    config.write_text(f"model_config_list {{ {' '.join(entries)} }}")
    flags = (f"--model_config_file={config}", "--max_call_seconds=0.5", "--enable_prometheus")
    server = serve_models(*flags, wait={"half": 1, "slow": 1})

    def predict(name: str, body: dict[str, Any]) -> httpx.Response:
        return httpx.post(f"{server.url}/v1/models/{name}:predict", json=body, timeout=SECONDS)

    assert predict("slow", {"inputs": 3}).json() == {"outputs": 3}
    answer = predict("slow", {"inputs": 2_500})
    assert answer.status_code == 504, answer.text
    refused = predict("slow", {"inputs": 3})
    assert (refused.status_code, "quarantine" in refused.json()["error"]) == (503, True)
    status = httpx.get(f"{server.url}/v1/models/slow").json()["model_version_status"][0]["status"]
    assert status["error_code"] == "UNAVAILABLE"
    assert httpx.get(f"{server.url}/v2/models/slow/ready").status_code == 503
    assert predict("half", {"instances": [0.0]}).json()["predictions"][0]["y"] == 1.0
    assert httpx.get(f"{server.url}/v2/health/live").json() == {"live": True}
    assert (
        'caravan_overdue_calls_total{model_name="slow"} 1'
        in httpx.get(f"{server.url}/monitoring/prometheus/metrics").text
    )
    deadline = time.monotonic() + SECONDS
    while predict("slow", {"inputs": 3}).status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert httpx.get(f"{server.url}/v2/models/slow/ready").status_code == 200
