"""What it costs the feeder to take in an archive: `python tests/bench/bench_feeder.py teas.zip [--rounds 5]`.

Starts the feeder with its store and broker, sends the archive to an edge that has none of it, once for each
round, and prints a line of JSON: seconds of CPU of the feeder and its children (`cpu`), of the store and the
broker (`behind`), the wall clock until the answer (`wall`), and the resident bytes at their highest. The
first round pays for the processes that decode; the others are what a running feeder takes. Without an archive
it renders 590 photos. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import httpx
import psutil

from lab.photos import render_zip
from local_stack.stack import Stack

RENDERED = {"other": 200, "tea-lemon": 130, "tea-earl-grey": 130, "tea-green": 130}
LOOK_SECONDS = 0.05


async def main(archive: Path | None, rounds: int) -> None:
    """Start what is needed, send the archive so often, and print the lines."""
    edges = [f"edge{number}" for number in range(1, rounds + 1)]
    with tempfile.TemporaryDirectory() as folder:
        if archive is None:
            archive = Path(folder, "photos.zip")
            render_zip(archive, RENDERED, 1)
        content = await asyncio.to_thread(archive.read_bytes)
        parts = Stack(Path(folder, "home"), edges=edges, parts=("feeder",))
        async with parts as stack, httpx.AsyncClient(timeout=120) as http:
            lines = [await one_round(stack, http, content, edge) for edge in edges]
    medians = {name: round(statistics.median(line[name] for line in lines), 3) for name in lines[0]}
    for line in (*lines, {"median of": rounds, **medians}):
        sys.stdout.write(f"{json.dumps(line)}\n")


async def one_round(stack: Stack, http: httpx.AsyncClient, content: bytes, edge: str) -> dict[str, float]:
    """Send the archive to an edge; return what that cost."""
    feeder, *behind = [_processes(stack, name) for name in ("feeder", "s3-central", "kafka")]
    before = _spent(feeder), sum(map(_spent, behind))
    began = time.perf_counter()
    upload = asyncio.create_task(http.put(f"{stack.url('feeder')}/zip?edgeId={edge}", content=content))
    highest = 0
    while not upload.done():
        highest = max(highest, _resident(feeder))
        await asyncio.wait([upload], timeout=LOOK_SECONDS)
    wall = time.perf_counter() - began
    answer = upload.result().raise_for_status().json()
    await asyncio.sleep(1)  # events are told a moment later
    spent = _spent(feeder) - before[0]
    return {
        "stored": answer["stored"],
        "cpu": round(spent, 3),
        "behind": round(sum(map(_spent, behind)) - before[1], 3),
        "wall": round(wall, 3),
        "resident_mb": round(highest / 1e6, 1),
    }


def _processes(stack: Stack, name: str) -> psutil.Process:
    pids = {part.name: part.pid for part in stack.state.parts}
    return psutil.Process(pids[name])


def _spent(process: psutil.Process) -> float:
    times = process.cpu_times()
    total = times.user + times.system + times.children_user + times.children_system
    for child in process.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            total += sum(child.cpu_times()[:2])
    return float(total)


def _resident(process: psutil.Process) -> int:
    total = process.memory_info().rss
    for child in process.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            total += child.memory_info().rss
    return int(total)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure what an archive costs the feeder.")
    parser.add_argument("archive", type=Path, nargs="?", help="a ZIP of training images")
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    asyncio.run(main(chosen.archive, chosen.rounds))
