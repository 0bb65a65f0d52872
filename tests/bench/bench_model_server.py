"""How fast the model server answers a small model: `python tests/bench/bench_model_server.py [seconds]`.

Starts the server (once joining requests, once not), then measures one caller and 16 concurrent callers over
gRPC, and one over REST. Prints a table; nothing is asserted.
"""

import asyncio
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import grpc
import httpx
import psutil
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

SIZE = 256
CALLERS = 16
Figures = tuple[float, float, float, float]
Call = Callable[[], Awaitable[object]]


class Network(tf.Module):  # type: ignore[misc] # TensorFlow has no types
    """Three dense layers of 256: enough work for joining to show, small enough for overhead to show."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = [tf.Variable(tf.random.stateless_normal([SIZE, SIZE], [1, n]) / 16.0) for n in range(3)]

    @tf.function(input_signature=[tf.TensorSpec([None, SIZE], tf.float32, name="x")])  # type: ignore[untyped-decorator]
    def run(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return `y`, float `[N, 256]`, and `best`, int64 `[N]`."""
        for layer in self.layers:
            x = tf.nn.relu(tf.matmul(x, layer))
        return {"y": x, "best": tf.argmax(x, axis=1)}


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def cpu_seconds(pid: int) -> float:
    """What a process and its children have used of the processors, in user and system mode."""
    server = psutil.Process(pid)
    used = [one.cpu_times() for one in (server, *server.children(recursive=True))]
    return sum(one.user + one.system for one in used)


async def measure(call: Call, callers: int, seconds: float, pid: int) -> Figures:
    """Return calls a second, median and 95th percentile in ms, and the server's CPU in ms a call."""
    times: list[float] = []
    used = cpu_seconds(pid)
    end = time.perf_counter() + seconds

    async def caller() -> None:
        while (began := time.perf_counter()) < end:
            await call()
            times.append(time.perf_counter() - began)

    await asyncio.gather(*(caller() for _ in range(callers)))
    cuts = statistics.quantiles(times, n=20)
    cost = (cpu_seconds(pid) - used) / len(times)
    return len(times) / seconds, cuts[9] * 1000, cuts[18] * 1000, cost * 1000


async def bench(grpc_port: int, rest_port: int, seconds: float, pid: int) -> dict[str, Figures]:
    """Measure a server that runs on these ports."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "net"
    request.inputs["x"].CopyFrom(tf.make_tensor_proto([[0.5] * SIZE], tf.float32))
    request.output_filter.append("best")
    async with (
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{rest_port}") as web,
        grpc.aio.insecure_channel(f"127.0.0.1:{grpc_port}") as channel,
    ):
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)

        async def over_grpc() -> None:
            await stub.Predict(request, timeout=10)

        async def over_rest() -> None:
            answer = await web.post("/v1/models/net:predict", json={"instances": [[0.5] * SIZE]})
            answer.raise_for_status()

        for _ in range(100):
            await over_grpc()
        return {
            "gRPC, 1 caller": await measure(over_grpc, 1, seconds, pid),
            f"gRPC, {CALLERS} callers": await measure(over_grpc, CALLERS, seconds, pid),
            "REST, 1 caller": await measure(over_rest, 1, seconds, pid),
        }


def wait_until_ready(rest_port: int) -> None:
    """Return once version 1 serves."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            answer = httpx.get(f"http://127.0.0.1:{rest_port}/v1/models/net").text
        except httpx.TransportError:
            answer = ""
        if "AVAILABLE" in answer:
            return
        time.sleep(0.2)
    raise TimeoutError("the model server did not become ready")


def main() -> None:
    """Measure both ways and print the table."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 5.0
    with tempfile.TemporaryDirectory() as folder:
        network = Network()
        tf.saved_model.save(network, str(Path(folder) / "net" / "1"), signatures=network.run)
        for batching in ("true", "false"):
            grpc_port, rest_port = free_port(), free_port()
            server = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "model_server",
                    f"--port={grpc_port}",
                    f"--rest_api_port={rest_port}",
                    "--model_name=net",
                    f"--model_base_path={folder}/net",
                    f"--enable_batching={batching}",
                ]
            )
            try:
                wait_until_ready(rest_port)
                print(f"batching {batching}")  # noqa: T201 a command's output
                figures = asyncio.run(bench(grpc_port, rest_port, seconds, server.pid))
                for name, (rate, median, tail, cost) in figures.items():
                    line = f"  {name:<18} {rate:7.0f}/s  p50 {median:6.2f} ms  p95 {tail:6.2f} ms"
                    print(f"{line}  server CPU {cost:5.2f} ms")  # noqa: T201 a command's output
            finally:
                server.terminate()
                server.wait(20)


if __name__ == "__main__":
    main()
