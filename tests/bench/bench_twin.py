"""What a version costs in both of its forms, side by side: `python tests/bench/bench_twin.py [rounds]`.

A head of four classes that learnt nothing is exported; one server runs its twin by ONNX Runtime, another the
SavedModel by TensorFlow. Both are asked over gRPC about one photo, by one caller and by eight, in turns. It
prints requests a second and times, and of each server and its children CPU per request and resident memory;
nothing is asserted.
"""

from __future__ import annotations

import asyncio
import io
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import grpc
import httpx
import numpy as np
import psutil
from PIL import Image
from rich.console import Console
from rich.table import Table

from caravan.contracts import HEAD, TWIN
from caravan.files import write_file
from caravan.tf_stubs import without_tensorflow

with without_tensorflow():
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

NAME = "tea_model_b64"
CALLERS = (1, 8)
SECONDS = 4.0
SIDE = 1000
QUALITY = 62


def main() -> None:
    """Measure and print."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    with tempfile.TemporaryDirectory() as folder:
        twin, plain = Path(folder, "twin"), Path(folder, "plain")
        subprocess.run([sys.executable, __file__, "export", str(twin / NAME / "1")], check=True)
        shutil.copytree(twin, plain)
        (plain / NAME / "1" / TWIN).unlink()
        asyncio.run(_measure({"twin, ONNX Runtime": twin, "SavedModel, TensorFlow": plain}, rounds))


def export_untaught(folder: Path) -> None:
    """Export a head that learnt nothing."""
    from training.embeddings import FEATURES, SHAPES  # noqa: PLC0415
    from training.export import export  # noqa: PLC0415 - loads TensorFlow, which the measuring process does not
    from training.head import Head, Space  # noqa: PLC0415
    from training.space import DIRECTIONS  # noqa: PLC0415

    classes = ("a", "b", "c", "other")
    draw = np.random.default_rng(0)

    def some(*shape: int) -> np.ndarray:
        return draw.normal(0, 0.03, shape).astype(np.float32)

    space = Space(
        some(FEATURES),
        some(SHAPES, DIRECTIONS),
        some(DIRECTIONS),
        some(FEATURES - SHAPES, FEATURES - SHAPES),
        some(FEATURES - SHAPES),
        some(len(classes), FEATURES),
    )
    thresholds, slopes = np.full(len(classes), 0.1, np.float32), np.full(len(classes), 9, np.float32)
    head = Head(classes, some(FEATURES, len(classes)), some(len(classes)), space, thresholds, slopes, some(1))
    write_file(folder / HEAD, head.to_bytes())
    with tempfile.TemporaryDirectory() as cache:
        export(Path(cache), head, folder)


async def _measure(forms: dict[str, Path], rounds: int) -> None:
    servers = {name: _Server(path) for name, path in forms.items()}
    try:
        photo = _photo()
        for server in servers.values():
            await server.ready()
            await server.ask(photo, 1, 1.0)
        rows: dict[tuple[str, int], list[tuple[float, ...]]] = defaultdict(list)
        for _ in range(rounds):
            for callers in CALLERS:
                for name, server in servers.items():
                    rows[name, callers].append(await server.ask(photo, callers, SECONDS))
        table = Table(
            "form",
            "callers",
            "a second",
            "p50",
            "p99",
            "CPU each",
            "resident",
            title=f"a photo of {len(photo) // 1000} kB, {SIDE} x {SIDE}; medians of {rounds}",
        )
        for (name, callers), figures in rows.items():
            rate, half, most, cpu, memory = (statistics.median(one) for one in zip(*figures, strict=True))
            table.add_row(
                name,
                str(callers),
                f"{rate:.1f}",
                f"{half:.1f} ms",
                f"{most:.1f} ms",
                f"{cpu:.1f} ms",
                f"{memory:.0f} MB",
            )
        Console().print(table)
    finally:
        for server in servers.values():
            server.stop()


def _photo() -> bytes:
    """Return something as large as a photo, with as much on it."""
    small = Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 60, 3), np.uint8))
    target = io.BytesIO()
    small.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(target, "JPEG", quality=QUALITY)
    return target.getvalue()


class _Server:
    def __init__(self, base: Path) -> None:
        self._grpc, self._rest = _free_port(), _free_port()
        flags = (f"--port={self._grpc}", f"--rest_api_port={self._rest}", f"--model_name={NAME}")
        command = [sys.executable, "-m", "model_server", *flags, f"--model_base_path={base / NAME}"]
        self._process = psutil.Popen(command, stdout=subprocess.DEVNULL)

    async def ready(self) -> None:
        async with httpx.AsyncClient(trust_env=False) as http, asyncio.timeout(120):
            while True:
                try:
                    answer = await http.get(f"http://127.0.0.1:{self._rest}/v1/models/{NAME}")
                except httpx.TransportError:
                    pass
                else:
                    if "AVAILABLE" in answer.text:
                        return
                await asyncio.sleep(0.1)

    async def ask(self, photo: bytes, callers: int, seconds: float) -> tuple[float, ...]:
        """Return requests a second, p50 and p99 in ms, CPU of each in ms, resident MB."""
        request = predict_pb2.PredictRequest()
        request.model_spec.name = NAME
        request.inputs["image_b64"].dtype = 7  # strings
        request.inputs["image_b64"].tensor_shape.dim.add(size=1)
        request.inputs["image_b64"].string_val.append(photo)
        times: list[float] = []
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self._grpc}") as channel:
            predict = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict
            began, used = time.perf_counter(), self._cpu()

            async def caller() -> None:
                while time.perf_counter() < began + seconds:
                    asked = time.perf_counter()
                    await predict(request)
                    times.append(time.perf_counter() - asked)

            await asyncio.gather(*(caller() for _ in range(callers)))
            took = time.perf_counter() - began
        cuts = statistics.quantiles(times, n=100)
        cpu = (self._cpu() - used) / len(times)
        memory = sum(one.memory_info().rss for one in self._all()) / 1e6
        return len(times) / took, cuts[49] * 1e3, cuts[98] * 1e3, cpu * 1e3, memory

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(20)

    def _all(self) -> list[psutil.Process]:
        return [self._process, *self._process.children(recursive=True)]

    def _cpu(self) -> float:
        return sum(sum(one.cpu_times()[:2]) for one in self._all())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    if sys.argv[1:2] == ["export"]:
        export_untaught(Path(sys.argv[2]))
    else:
        main()
