"""The server does without TensorFlow, and a process of its own runs the SavedModels."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import ml_dtypes
import numpy as np
import psutil
import pytest
import tensorflow as tf

from caravan import credentials
from caravan.graphs.limits import SessionLimits
from model_server.errors import Code, ServingError
from model_server.graphs import messages, process
from model_server.graphs.process import Graphs
from support.waiting import wait_until

SECONDS = 60

ONNX_ONLY = """
import asyncio, httpx, sys
from model_server import app
from model_server.settings import read

async def main():
    settings = read(["--port=0", "--rest_api_port=0", "--model_name=scores", *sys.argv[1:]], {})
    async with app.serving(settings) as running, httpx.AsyncClient() as client:
        url = f"http://127.0.0.1:{running.rest_port}/v1/models/scores"
        while "AVAILABLE" not in (await client.get(url)).text:
            await asyncio.sleep(0.05)
        answer = await client.post(url + ":predict", json={"instances": [[1.0, 2.0, 0.0]]})
        answer.raise_for_status()

asyncio.run(main())
print([name for name in sys.modules if name in {"tensorflow", "tensorflow.python"}])
"""


@pytest.mark.parametrize(
    "array",
    [
        np.array([[1.5, -2.0], [0.0, 3.0]], np.float32),
        np.array(7, np.int64),
        np.zeros((0, 3), np.float64),
        np.arange(12).reshape(3, 4).T,
        np.array([True, False]),
        np.array([1.0, 2.0], ml_dtypes.bfloat16),
        np.array([(1,), (-1,)], [("qint8", np.int8)]),
        np.array([1 + 2j], np.complex64),
        np.zeros(300_000, np.float32),
        np.array([b"one", b"", b"\xff\x00"], object),
        np.array([[b"x" * 300_000]], object),
        np.array(b"scalar", object),
        np.array([], object),
        np.array([b"%d" % n for n in range(2000)], object),
    ],
    ids=lambda array: f"{array.dtype} {array.shape}",
)
def test_arrays_of_every_type_reach_the_other_process_as_they_are(array: Any) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sent = {"first": np.array([1], np.int8), "x": array, "last": array}
        sender = threading.Thread(target=messages.send, args=(ours, messages.encode({"do": "call"}, sent)))
        sender.start()
        head, arrays = messages.receive(theirs)
        sender.join()
    assert head == {"do": "call"}
    assert list(arrays) == list(sent)
    for name, expected in sent.items():
        assert (arrays[name].dtype, arrays[name].shape) == (expected.dtype, expected.shape)
        assert arrays[name].tolist() == expected.tolist()


def test_many_arrays_are_sent_at_once() -> None:
    ours, theirs = socket.socketpair()
    sent = {str(n): np.full(n, n, np.float32) for n in range(1500)}
    with ours, theirs:
        sender = threading.Thread(target=messages.send, args=(ours, messages.encode({}, sent)))
        sender.start()
        _, arrays = messages.receive(theirs)
        sender.join()
    assert all(np.array_equal(arrays[name], sent[name]) for name in sent)


def test_an_end_within_a_message_is_told() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        with ours:
            ours.sendall(b"\x01\x00\x00")
        with pytest.raises(messages.HungUpError):
            messages.receive(theirs)
        with pytest.raises(messages.HungUpError):
            messages.send(theirs, messages.encode({}, {"x": np.zeros(1_000_000)}))


def test_a_server_of_onnx_models_has_no_tensorflow(onnx_models: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-c", ONNX_ONLY, f"--model_base_path={onnx_models / 'scores'}"],
        check=True,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert told.stdout.splitlines()[-1] == "[]"


@pytest.fixture
def places(saved_models: Path, onnx_models: Path, tmp_path: Path) -> dict[str, Path]:
    """Base paths by model: of `slow`, `y` is `n` after as many steps."""

    @tf.function(input_signature=[tf.TensorSpec([], tf.int32, name="n")])  # type: ignore[untyped-decorator]
    def count(n: Any) -> Any:
        return {"y": tf.while_loop(lambda i: i < n, lambda i: [i + 1], [0])[0]}

    module = tf.Module()
    module.function = count
    tf.saved_model.save(module, str(tmp_path / "slow" / "1"), signatures=count)
    return {"half": saved_models / "half", "scores": onnx_models / "scores", "slow": tmp_path / "slow"}


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> Iterator[Graphs]:
    """A process for this test alone, of a server that has credentials."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    monkeypatch.setenv("SEEN", "yes")
    graphs = Graphs(credentials.without(os.environ))
    yield graphs
    graphs.close()


def test_a_killed_process_is_replaced_while_other_models_answer(
    own: Graphs, places: dict[str, Path], start_server: Any, tmp_path: Path
) -> None:
    entries = (
        f'config {{ name: "{name}" base_path: "{place}" model_platform: "tensorflow" }}'
        for name, place in places.items()
    )
    config = tmp_path / "models.config"
    config.write_text(f"model_config_list {{ {' '.join(entries)} }}")
    with ExitStack() as stack, ThreadPoolExecutor() as pool:
        server = start_server(
            stack, f"--model_config_file={config}", graphs=own, wait=dict.fromkeys(places, 1)
        )

        def predict(name: str, body: dict[str, Any]) -> httpx.Response:
            return httpx.post(f"{server.url}/v1/models/{name}:predict", json=body, timeout=SECONDS)

        def half() -> httpx.Response:
            return predict("half", {"instances": [2.0]})

        expected = half().json()
        assert expected["predictions"][0]["y"] == 3.0
        first = own.pid
        assert first is not None
        environment = psutil.Process(first).environ()
        assert environment["SEEN"] == "yes"
        assert "hush" not in environment.values()

        in_flight = pool.submit(predict, "slow", {"inputs": 50_000_000})
        before = psutil.Process(first).cpu_times().user
        wait_until(lambda: psutil.Process(first).cpu_times().user > before + 0.2)
        os.kill(first, signal.SIGKILL)
        assert in_flight.result().status_code == 503
        wait_until(lambda: httpx.get(f"{server.url}/v2/models/half/ready").status_code == 503)
        status = httpx.get(f"{server.url}/v1/models/half").json()["model_version_status"][0]["status"]
        assert status["error_code"] == "UNAVAILABLE"
        answers = [half()]
        while answers[-1].status_code != 200:
            assert "The process that runs SavedModels has ended" in answers[-1].json()["error"]
            assert predict("scores", {"instances": [[1.0, 2.0, 0.0]]}).status_code == 200
            answers.append(half())
            time.sleep(0.02)
        assert len(answers) > 1
        assert answers[-1].json() == expected
        assert httpx.get(f"{server.url}/v2/models/half/ready").status_code == 200
        assert own.pid not in {None, first}
        wait_until(lambda: predict("slow", {"inputs": 3}).status_code == 200)


def test_the_process_ends_with_the_last_saved_model_and_with_the_server(
    own: Graphs, saved_models: Path
) -> None:
    half, text = (own.load(saved_models / name / "1", SessionLimits()) for name in ("half", "text"))
    first = own.pid
    assert first is not None
    own.release(text)
    assert own.pid == first
    assert half.call("serving_default", {"x": np.array([2.0], np.float32)})["y"].tolist() == [3.0]
    with pytest.raises(ServingError) as caught:
        text.call("serving_default", {})
    assert caught.value.code is Code.UNAVAILABLE
    own.release(half)
    assert own.pid is None
    assert not psutil.pid_exists(first)


def test_a_saved_model_is_refused_where_tensorflow_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(process, "_NEEDED", "no_such_package")
    graphs = Graphs({})
    with pytest.raises(ServingError, match="TensorFlow is not installed") as refused:
        graphs.load(tmp_path, SessionLimits(1, 1, 1.0, 1.0))
    assert (refused.value.code, graphs.pid) == (Code.UNIMPLEMENTED, None)
