"""What an answer about a small model costs: `python -m bench.bench_model_server [seconds]` in tests/.

Starts the server twice, once joining requests and once not, and asks both in turns: one caller and 16 over
gRPC, as the shopper does, and one over REST. tritonclient, in a process of its own, asks the one that joins
over both doors by the Open Inference Protocol; it is installed from `requirements/clients`, or passed over in
a line that says so. Over gRPC both send a row as bytes and want one output; of version 1 over REST there are
only numbers in JSON and all outputs. It prints JSON lines, medians of three rounds: calls a second, p50 and
p95 in ms, and the CPU of server and caller in ms a call. Nothing is asserted.
"""

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import grpc
import httpx
import numpy as np
import psutil
import tensorflow as tf
from bench.peers.build import skip
from bench.peers.process import Peer
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from support import clients
from support.ports import free_port

SIZE = 256
CALLERS = 16
ROUNDS = 3
PEER = "tritonclient"
TIMES = Path(clients.__file__).with_name("inference_clients") / "time_tritonclient.py"
Figures = dict[str, float]
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


class Server:
    """A model server with the network as `net`; `joins` says whether it joins requests."""

    def __init__(self, models: Path, *, joins: bool) -> None:
        grpc_port, rest_port = free_port(), free_port()
        self.target, self.url = f"127.0.0.1:{grpc_port}", f"http://127.0.0.1:{rest_port}"
        flags = (f"--port={grpc_port}", f"--rest_api_port={rest_port}", f"--enable_batching={joins}".lower())
        command = [sys.executable, "-m", "model_server", *flags, "--model_name=net"]
        self._process = psutil.Popen(
            [*command, f"--model_base_path={models / 'net'}"], stdout=subprocess.DEVNULL
        )

    def wait(self) -> None:
        """Return once version 1 serves."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                answer = httpx.get(f"{self.url}/v1/models/net", trust_env=False).text
            except httpx.TransportError:
                answer = ""
            if "AVAILABLE" in answer:
                return
            time.sleep(0.2)
        raise TimeoutError("the model server did not become ready")

    def cpu(self) -> float:
        """Return the CPU seconds of the server and its children."""
        used = [one.cpu_times() for one in (self._process, *self._process.children(recursive=True))]
        return float(sum(one.user + one.system for one in used))

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(20)


async def measure(call: Call, callers: int, seconds: float, server: Server) -> Figures:
    """Call again and again, and return what that costs."""
    times: list[float] = []
    used, spent = server.cpu(), time.process_time()
    end = time.perf_counter() + seconds

    async def caller() -> None:
        while (began := time.perf_counter()) < end:
            await call()
            times.append(time.perf_counter() - began)

    await asyncio.gather(*(caller() for _ in range(callers)))
    cuts = statistics.quantiles(times, n=20)
    return {
        "rate": len(times) / seconds,
        "p50": cuts[9] * 1e3,
        "p95": cuts[18] * 1e3,
        "server CPU": (server.cpu() - used) / len(times) * 1e3,
        "client CPU": (time.process_time() - spent) / len(times) * 1e3,
    }


async def asked(server: Server, seconds: float) -> dict[tuple[str, int], Figures]:
    """Ask a server by either door; return what that costs by door and callers."""
    row = np.full((1, SIZE), 0.5, np.float32)
    async with (
        httpx.AsyncClient(base_url=server.url, trust_env=False) as web,
        grpc.aio.insecure_channel(server.target) as channel,
    ):
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)

        async def over_grpc() -> int:
            request = predict_pb2.PredictRequest(output_filter=["best"])
            request.model_spec.name = "net"
            tensor = request.inputs["x"]
            tensor.dtype, tensor.tensor_content = tf.float32.as_datatype_enum, row.tobytes()
            for size in row.shape:
                tensor.tensor_shape.dim.add(size=size)
            answer = await stub.Predict(request, timeout=10)
            return int(answer.outputs["best"].int64_val[0])

        async def over_rest() -> Any:
            answer = await web.post("/v1/models/net:predict", json={"instances": row.tolist()})
            return answer.raise_for_status().json()["predictions"][0]["best"]

        await over_grpc(), await over_rest()
        return {
            ("gRPC", 1): await measure(over_grpc, 1, seconds, server),
            ("gRPC", CALLERS): await measure(over_grpc, CALLERS, seconds, server),
            ("REST", 1): await measure(over_rest, 1, seconds, server),
        }


def asked_by_peer(peer: Peer, door: str, seconds: float, server: Server) -> Figures:
    """Let tritonclient ask a server by a door."""
    used = server.cpu()
    figures = peer.ask(f"{door} {seconds}")
    return figures | {"server CPU": (server.cpu() - used) / figures.pop("calls") * 1e3}


def peer_of(server: Server) -> Peer | None:
    """Start tritonclient; say why if it cannot be had."""
    try:
        python = clients.python_of(PEER)
    except clients.NotInstalled as exc:
        skip(PEER, str(exc).splitlines()[-1])
        return None
    return Peer(str(python), str(TIMES), server.url, server.target)


def main() -> None:
    """Measure all in turns, and print the medians."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    rows: dict[tuple[tuple[str, Any], ...], list[Figures]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        network = Network()
        tf.saved_model.save(network, str(Path(folder, "net", "1")), signatures=network.run)
        servers = {joins: Server(Path(folder), joins=joins) for joins in (True, False)}
        peer = peer_of(servers[True])
        try:
            for server in servers.values():
                server.wait()
            for _ in range(ROUNDS):
                for joins, server in servers.items():
                    for (door, callers), figures in asyncio.run(asked(server, seconds)).items():
                        rows[("joins", joins), ("door", door), ("callers", callers)].append(figures)
                for door in ("gRPC", "REST"):
                    if peer is None:
                        break
                    figures = asked_by_peer(peer, door, seconds, servers[True])
                    rows[("by", PEER), ("joins", True), ("door", door), ("callers", 1)].append(figures)
        finally:
            if peer:
                peer.stop()
            for server in servers.values():
                server.stop()
    for of, each in rows.items():
        medians = {what: round(statistics.median(one[what] for one in each), 3) for what in each[0]}
        print(json.dumps(dict(of) | medians))  # noqa: T201 a command's output


if __name__ == "__main__":
    main()
