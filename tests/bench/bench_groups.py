"""What a new version costs a group of edges: `python -m bench.bench_groups [edges]` in tests/.

A hundred edge-managers in two processes bring what one training has made into temporary directories, out of a
real S3 server, through a relay that counts; the model server is played. Two versions are trained, the second
with photos of one more product, sent to another edge, when all have come to rest. Prints seconds from the
trigger until a version is ready, until it is offered to the last edge, and until that has it, and what
central's store has sent, in whole versions; and CPU seconds. Nothing is asserted.
"""

from __future__ import annotations

import asyncio
import io
import json
import multiprocessing
import os
import sys
import tempfile
import time
import zipfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import httpx
import psutil
from bench.bench_poll import Meter
from obstore.store import ObjectStore
from rich.console import Console

from caravan import s3
from caravan.concurrency import run
from caravan.contracts import DEFAULT_MODEL, version_prefix
from caravan.settings import S3Address
from caravan.telemetry import configure_logging
from edge_manager.app import wire
from edge_manager.bringing import MODEL_SYNC
from edge_manager.settings import EdgeManagerSettings
from lab.photos import render_zip
from local_stack.stack import Stack

GROUP = "north"
PROCESSES = 2
PHOTOS = 30
"""Of each product."""
POLL_SECONDS = 0.2
SECONDS_TO_REST = 60
"""Until an edge at which nothing happens looks as seldom as it does without being told: each five seconds."""


def served(folder: Path) -> list[int]:
    """Return the versions that a model server would find in an edge's folder."""
    entries = folder.glob(f"{DEFAULT_MODEL}/*/saved_model.pb")
    return sorted(int(path.parent.name) for path in entries)


@asynccontextmanager
async def model_server(root: Path) -> AsyncIterator[int]:
    """Play the model servers of edges: each says that it serves what is in its folder. Gives the port."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while asked := await reader.readuntil(b"\r\n\r\n"):
                _, edge, *_ = asked.split(b" ", 2)[1].decode().split("/")
                states = [
                    {"version": str(version), "state": "AVAILABLE", "status": {}}
                    for version in served(root / edge)
                ]
                body = json.dumps({"model_version_status": states}).encode()
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def run_edges(edges: Sequence[str], root: Path, central: S3Address) -> None:
    """Be the edge-managers of some edges, until the end."""
    os.environ |= {
        "S3_CENTRAL_ENDPOINT": central.endpoint,
        "S3_CENTRAL_ACCESS_KEY": central.access_key.get_secret_value(),
        "S3_CENTRAL_SECRET_KEY": central.secret_key.get_secret_value(),
    }
    configure_logging("ERROR", "console")
    run(_run_edges(edges, root))


async def _run_edges(edges: Sequence[str], root: Path) -> None:
    async with model_server(root) as port, AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
        for edge in edges:
            settings = EdgeManagerSettings(
                edge=edge,
                sink_bucket="",
                sink_directory=root / edge,
                tfserving_rest=f"http://127.0.0.1:{port}/{edge}",
                keep_versions=1,
                status_seconds=0,
                log_level="ERROR",
            )
            service = await stack.enter_async_context(wire(settings))
            tasks.create_task(_forever(service.loops[MODEL_SYNC.id]))


async def _forever(loop: Callable[[], Awaitable[None]]) -> None:
    await loop()


async def teach(store_of: S3Address, edge: str, root: Path, seed: int, *products: str) -> None:
    """Put photos into an edge's bucket, as the feeder does."""
    archive = root / f"{seed}.zip"
    await asyncio.to_thread(render_zip, archive, dict.fromkeys(products, PHOTOS), seed)
    store = s3.open_bucket(store_of, f"{edge}-data")
    with zipfile.ZipFile(io.BytesIO(archive.read_bytes())) as opened:
        for name in opened.namelist():
            await s3.write(store, name, opened.read(name))


async def measured(stack: Stack, meter: Meter, edges: Sequence[str], root: Path, version: int) -> None:
    """Have a version trained, and wait until every edge has it; print what that took."""
    console = Console(width=140)
    ready = s3.open_bucket(stack.s3("s3-central"), f"{GROUP}-ready")
    before, began, clock, spent = meter.received, time.perf_counter(), time.time(), cpu(stack)
    async with httpx.AsyncClient() as client:
        (await client.post(f"{stack.url('training')}/", json={"id-edge": edges[0]})).raise_for_status()
    key = version_prefix(DEFAULT_MODEL, version)
    while f"{key}manifest.json" not in (sizes := await listed(ready, key)):
        await asyncio.sleep(POLL_SECONDS)
    trained = time.perf_counter() - began
    while not all(version in served(root / edge) for edge in edges):
        await asyncio.sleep(POLL_SECONDS)
    there, sent, whole = time.perf_counter() - began, meter.received - before, sum(sizes.values())
    offered = await last_offered(stack, edges, key) - clock
    spent = {name: seconds - spent[name] for name, seconds in cpu(stack).items()}
    console.print(
        f"version {version} of {whole / 1e6:.1f} MB: trained {trained:.1f} s after the trigger, offered to "
        f"the last of {len(edges)} edges after {offered:.0f} s, and there after {there:.1f} s"
    )
    console.print(
        f"  central's store sent {sent / 1e6:,.1f} MB, {sent / whole:.2f} whole ones, "
        f"{100 * sent / whole / len(edges):.2f} % of one to each edge"
    )
    console.print(f"  CPU: {', '.join(f'{name} {seconds:.1f} s' for name, seconds in spent.items())}")


def cpu(stack: Stack) -> dict[str, float]:
    """Return the CPU seconds of the edge-managers with the relay, of the store, and of the training."""
    roots = {
        "edges": psutil.Process(),
        **{name: psutil.Process(stack.state.part(name).pid) for name in ("s3-central", "training")},
    }
    stacked = {process.pid for name in ("s3-central", "training") for process in _tree(roots[name])}
    stacked.add(stack.state.pid)
    found = {}
    for name, root in roots.items():
        of_it = [each for each in _tree(root) if name != "edges" or each.pid not in stacked]
        found[name] = sum(_seconds(each) for each in of_it)
    return found


def _tree(root: psutil.Process) -> list[psutil.Process]:
    return [root, *root.children(recursive=True)]


def _seconds(process: psutil.Process) -> float:
    user, system, of_ended_user, of_ended_system, *_ = process.cpu_times()
    return float(user + system + of_ended_user + of_ended_system)


async def last_offered(stack: Stack, edges: Sequence[str], prefix: str) -> float:
    """Return the clock time at which the last member had its manifest."""
    stores = [s3.open_bucket(stack.s3("s3-central"), f"{edge}-ready") for edge in edges]
    times: list[datetime] = [(await s3.listed(store, prefix))[0]["last_modified"] for store in stores]
    return max(times).timestamp()


async def listed(store: ObjectStore, prefix: str) -> dict[str, int]:
    """Return the size of each object."""
    return {entry["path"]: entry["size"] for entry in await s3.listed(store, prefix)}


async def main(count: int) -> None:
    """Make a group of so many edges, and bring it two versions."""
    edges = tuple(f"edge{number + 1}" for number in range(count))
    with tempfile.TemporaryDirectory() as home:
        root = Path(home)
        groups = f"{GROUP}={','.join(edges)}"
        async with Stack(
            root / "stack", edges=edges, edge_groups=groups, parts=("training",), lasting=False
        ) as stack:
            central = stack.s3("s3-central")
            await teach(central, edges[0], root, 1, "other", "tea-green", "tea-lemon")
            meter = Meter(central.endpoint)
            async with meter.running() as url:
                far = replace(central, endpoint=url)
                spawn = multiprocessing.get_context("spawn")
                shares = [edges[start::PROCESSES] for start in range(PROCESSES)]
                processes = [
                    spawn.Process(target=run_edges, args=(share, root / "edges", far)) for share in shares
                ]
                for process in processes:
                    process.start()
                try:
                    await measured(stack, meter, edges, root / "edges", 1)
                    await asyncio.sleep(SECONDS_TO_REST)
                    await teach(central, edges[-1], root, 2, "tea-earl-grey")
                    await measured(stack, meter, edges, root / "edges", 2)
                finally:
                    for process in processes:
                        process.terminate()
                        process.join()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 100))
