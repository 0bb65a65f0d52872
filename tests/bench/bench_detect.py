"""What a detection costs, from end to end: `python -m bench.bench_detect [rounds] [checkouts…]` in tests/.

An edge's shopper and model server run in a stack of their own, of this checkout and of each other that is
named (it needs its `.venv`), all with one model that learnt nothing, whose answers count as certain. They are
asked in turns about one photo in JSON, by one caller and by eight. It prints JSON lines: detections a second,
p50 and p99 in ms, of shopper and model server CPU in ms a detection and resident MB, medians of the rounds;
and of ONNX Runtime and TensorFlow alone, each in a process that only decodes the photo and asks its form of
the model, p50, CPU and resident MB. Nothing is asserted.
"""

from __future__ import annotations

import asyncio
import base64
import json
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
from bench.peers.process import Peer
from PIL import Image

from support.files import as_file

MODEL = "tea_model_b64"
CALLERS = (1, 8)
DETECTIONS = 150
SIDE, QUALITY = 1000, 62
PARTS = ("shopper-edge1", "model-server-edge1")
LIBRARIES = {
    "ONNX Runtime alone": ("onnx",),
    "TensorFlow alone": ("tensorflow",),
    "TensorFlow on one thread": ("tensorflow", "1"),
}
HERE = Path(__file__).parents[2]

Figures = dict[str, float]


async def main(rounds: int, others: list[Path]) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder, "model")
        await _run(sys.executable, str(Path(__file__).with_name("bench_twin.py")), "export", str(model))
        checkouts = [HERE, *others]
        edges = [_Edge(root, Path(folder, str(number)), model) for number, root in enumerate(checkouts)]
        photo = Path(folder, "photo.jpg")
        await asyncio.to_thread(photo.write_bytes, _photo())
        libraries = {
            name: Peer(sys.executable, "-m", "bench.peers.alone", library, str(model), str(photo), *threads)
            for name, (library, *threads) in LIBRARIES.items()
        }
        try:
            for edge in edges:
                await edge.start()
            rows: dict[tuple[str, int], list[Figures]] = defaultdict(list)
            for _ in range(rounds):
                for callers in CALLERS:
                    for edge in edges:
                        rows[str(edge.root), callers].append(await edge.ask(callers))
                for name, library in libraries.items():
                    rows[name, 1].append(await asyncio.to_thread(library.ask))
            for (name, callers), figures in rows.items():
                medians = {what: round(statistics.median(f[what] for f in figures), 2) for what in figures[0]}
                _print({"of": name, "callers": callers, "rounds": rounds, **medians})
        finally:
            for library in libraries.values():
                library.stop()
            for edge in edges:
                await edge.stop()


async def serve(home: Path, model: Path) -> None:
    """Run an edge with the model until standard input ends; print where it is."""
    import obstore  # noqa: PLC0415 - of the checkout that runs this

    from caravan import s3  # noqa: PLC0415
    from local_stack.stack import Stack  # noqa: PLC0415

    async with Stack(home, parts=("shopper", "model-server"), environment={"CERTAIN_SCORE": "0"}) as stack:
        store = s3.open_bucket(stack.s3("s3-edge1"), "production")
        for path in _entry_last(model):
            key = f"models/{MODEL}/1/{path.relative_to(model)}"
            await obstore.put_async(store, key, await asyncio.to_thread(path.read_bytes))
        _print(
            {"url": stack.url("shopper-edge1"), "pids": {part: stack.state.part(part).pid for part in PARTS}}
        )
        await asyncio.to_thread(sys.stdin.read)


def _entry_last(model: Path) -> list[Path]:
    """List a version's files as they have to be written."""
    files = [path for path in model.rglob("*") if path.is_file()]
    return sorted(files, key=lambda path: path.name == "saved_model.pb")


class _Edge:
    def __init__(self, root: Path, home: Path, model: Path) -> None:
        self.root = root
        python = str(root / ".venv/bin/python")
        self._command = [python, "-m", "bench.bench_detect", "serve", str(home), str(model)]
        self._process: asyncio.subprocess.Process | None = None
        self._body = json.dumps({"image": base64.b64encode(_photo()).decode()}).encode()

    async def start(self) -> None:
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(
            *self._command, stdin=pipe, stdout=pipe, cwd=HERE / "tests"
        )
        assert self._process.stdout is not None
        told = json.loads(await self._process.stdout.readline())
        self._url = told["url"]
        self._processes = {part: psutil.Process(pid) for part, pid in told["pids"].items()}
        async with httpx.AsyncClient(trust_env=False, timeout=30) as http, asyncio.timeout(120):
            while not (await self._asked(http)).is_success:
                await asyncio.sleep(0.2)
        await self.ask(8)

    async def stop(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()  # it ends then
            await self._process.wait()

    async def _asked(self, http: httpx.AsyncClient) -> httpx.Response:
        headers = {"content-type": "application/json"}
        return await http.post(f"{self._url}/detection", content=self._body, headers=headers)

    async def ask(self, callers: int) -> Figures:
        async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
            before = {part: _cpu(process) for part, process in self._processes.items()}
            times, took = await _load(lambda: self._asked(http), callers)
        cuts = statistics.quantiles(times, n=100)
        figures = {"rate": len(times) / took, "p50": cuts[49] * 1e3, "p99": cuts[98] * 1e3}
        for part, process in self._processes.items():
            name = part.removesuffix("-edge1")
            figures[f"{name} CPU"] = (_cpu(process) - before[part]) / len(times) * 1e3
            figures[f"{name} MB"] = sum(one.memory_info().rss for one in _all(process)) / 1e6
        return figures


async def _load(ask: Callable[[], Awaitable[httpx.Response]], callers: int) -> tuple[list[float], float]:
    times: list[float] = []
    left = iter(range(DETECTIONS))

    async def caller() -> None:
        for _ in left:
            began = time.perf_counter()
            (await ask()).raise_for_status()
            times.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return times, time.perf_counter() - began


def _photo() -> bytes:
    """Return something as large as a photo, with as much on it."""
    small = Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 60, 3), np.uint8))
    return as_file(small.resize((SIDE, SIDE), Image.Resampling.BICUBIC), "JPEG", quality=QUALITY)


async def _run(*command: str) -> None:
    process = await asyncio.create_subprocess_exec(*command)
    if await process.wait():
        raise SystemExit(f"{command} failed")


def _all(process: psutil.Process) -> list[psutil.Process]:
    return [process, *process.children(recursive=True)]


def _cpu(process: psutil.Process) -> float:
    return sum(sum(one.cpu_times()[:2]) for one in _all(process))


def _print(row: dict[str, Any]) -> None:
    print(json.dumps(row), flush=True)  # noqa: T201 - a command's output


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        asyncio.run(serve(Path(sys.argv[2]), Path(sys.argv[3])))
    else:
        rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
        asyncio.run(main(rounds, [Path(path).absolute() for path in sys.argv[2:]]))
