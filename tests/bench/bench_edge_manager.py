"""What it costs the edge-manager to bring a version: `python tests/bench/bench_edge_manager.py [--rounds 4]`.

Starts the stores of both sides and an edge-manager, which reaches them by way of a counter of requests, and
publishes versions as the pipeline does: of 15 MB, and of 29 MB with the second form of the model. A model
server is played that has at once what is in the bucket. Prints, as JSON, a line for each version: requests to
the stores (`requests`, without the index and listings, which are asked every second while there is news),
seconds of CPU (`cpu`) and of the clock (`wall`) until it is noted that it serves, both with a look for news
at least, and the resident size then; `announced`, the seconds from its entry file in the edge's bucket to
`pushmodel` on MQTT. `rest` is the CPU of some seconds in which nothing happens, and
`idle_minute`, all requests to central in a minute of an edge at rest that has been told before. Nothing is
asserted.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import re
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import aiomqtt
import httpx
import psutil

from caravan import model_index, s3
from caravan.contracts import MANIFEST, MONITOR, model_ready_event, version_prefix
from caravan.manifest import File, Manifest
from local_stack.stack import Stack

MODEL = "tea_model_b64"
SIZES = {
    "fingerprint.pb": 60,
    "variables/variables.index": 13_000,
    "variables/variables.data-00000-of-00001": 1_400_000,
    "saved_model.pb": 13_600_000,
}
TWIN = {"assets.extra/model.onnx": 14_000_000}
REST_SECONDS = 5.0
SECONDS_TO_REST = 70.0
"""Until an edge that is told of versions looks for them no more than every two minutes."""
LINE = re.compile(rb"(GET|PUT|POST|HEAD|DELETE) (\S+) HTTP/1\.1\r\n")
NEWS = re.compile(rb"/index\.json|[?&]list-type=2")
"""What is asked every second, as long as there is anything new."""


class Counting:
    """Passes connections on to a server, and counts the requests in them."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.asked: Counter[str] = Counter()
        self.all = 0
        """All requests, those for news too."""

    @asynccontextmanager
    async def open(self) -> AsyncIterator[str]:
        """Yield the address to ask instead."""
        server = await asyncio.start_server(self._pass_on, "127.0.0.1", 0)
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self.port)
        await asyncio.gather(
            self._pump(reader, to_server, counts=True), self._pump(from_server, writer, counts=False)
        )

    async def _pump(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, counts: bool
    ) -> None:
        with suppress(ConnectionError):
            while some := await source.read(2**18):
                for method, path in LINE.findall(some) if counts else ():
                    self.all += 1
                    if not NEWS.search(path):
                        self.asked[f"{method.decode()} {path.decode()[:90]}"] += 1
                target.write(some)
                await target.drain()
        target.close()


class ModelServer:
    """A model server that has loaded what the bucket has."""

    def __init__(self) -> None:
        self.there: set[int] = set()
        self.since: dict[int, float] = {}

    @asynccontextmanager
    async def open(self) -> AsyncIterator[str]:
        """Yield its address."""
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while await reader.readuntil(b"\r\n\r\n"):
                states = [{"version": str(one), "state": "AVAILABLE", "status": {}} for one in self.there]
                body = json.dumps({"model_version_status": states}).encode()
                head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n"
                writer.write(f"{head}Content-Type: application/json\r\n\r\n".encode() + body)
                await writer.drain()


async def main(rounds: int, *, show: bool) -> None:
    """Start what is needed, publish the versions one after the other, and print the lines."""
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        parts = ("s3-central", "s3", "mqtt")
        running = await stack.enter_async_context(Stack(Path(folder, "home"), parts=parts, lasting=False))
        counters = [Counting(running.port(part)) for part in ("s3-central", "s3-edge1")]
        central, edge = [await stack.enter_async_context(counter.open()) for counter in counters]
        server = ModelServer()
        client = await stack.enter_async_context(httpx.AsyncClient())
        ready, production = [
            s3.open_bucket(running.s3(part), bucket)
            for part, bucket in (("s3-central", "edge1-ready"), ("s3-edge1", "production"))
        ]
        environment = os.environ | {
            "S3_CENTRAL_ENDPOINT": central,
            "S3_EDGE_ENDPOINT": edge,
            "TFSERVING_REST": await stack.enter_async_context(server.open()),
            "MQTT_PORT": str(running.port("mqtt-edge1", "mqtt")),
            "STATUS_SECONDS": "0",
            "MALLOC_MMAP_THRESHOLD_": "1048576",  # as in the stack and in its image
            "PORT": str(free_port()),
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "edge_manager",
            env=environment,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        told = await stack.enter_async_context(Monitor.of(running.port("mqtt-edge1", "mqtt")))
        try:
            url, used = f"http://127.0.0.1:{environment['PORT']}", psutil.Process(process.pid)
            await until_serves(client, url, server, production, 0)
            start, begun = spent(used), used.memory_info().rss
            for number in range(1, 2 * rounds + 1):
                files = SIZES | (TWIN if number > rounds else {})
                for counter in counters:
                    counter.asked.clear()
                before, began = spent(used), time.perf_counter()
                await publish(ready, number, files)
                await told.tell(number)
                await until_serves(client, url, server, production, number)
                wall, cpu = time.perf_counter() - began, spent(used) - before
                announced = await told.heard(number) - server.since[number]
                line = {
                    "version": number,
                    "mb": round(sum(files.values()) / 1e6, 1),
                    "requests": sum(counter.asked.total() for counter in counters),
                    "cpu": round(cpu, 3),
                    "wall": round(wall, 2),
                    "announced": round(announced, 2),
                    "resident_mb": round(used.memory_info().rss / 1e6, 1),
                }
                sys.stdout.write(f"{json.dumps(line)}\n")
                for counter in counters if show else ():
                    sys.stdout.write("".join(f"  {n} {one}\n" for one, n in counter.asked.items()))
            before = spent(used)
            await asyncio.sleep(REST_SECONDS)
            idle = {
                "start": round(start, 3),
                "resident_mb": round(begun / 1e6, 1),
                "rest": round(spent(used) - before, 3),
                "seconds": REST_SECONDS,
            }
            await asyncio.sleep(SECONDS_TO_REST - REST_SECONDS)
            asked = counters[0].all
            await asyncio.sleep(60)
            idle["idle_minute"] = counters[0].all - asked
            sys.stdout.write(f"{json.dumps(idle)}\n")
        finally:
            process.terminate()
            await process.wait()


class Monitor:
    """The edge's MQTT `monitor`: tells of versions as central's bridge does, and hears what is announced."""

    def __init__(self, client: aiomqtt.Client) -> None:
        self._client = client
        self._heard: dict[int, asyncio.Future[float]] = defaultdict(asyncio.get_running_loop().create_future)

    @classmethod
    @asynccontextmanager
    async def of(cls, port: int) -> AsyncIterator[Monitor]:
        """Listen to the broker at a port."""
        async with aiomqtt.Client("127.0.0.1", port) as client, asyncio.TaskGroup() as tasks:
            monitor = cls(client)
            await client.subscribe(MONITOR, qos=1)
            listening = tasks.create_task(monitor._listen())
            yield monitor
            listening.cancel()

    async def tell(self, number: int) -> None:
        """Tell the edge that a version is ready."""
        await self._client.publish(
            MONITOR, json.dumps(model_ready_event(MODEL, number), separators=(",", ":")), qos=1
        )

    async def heard(self, number: int) -> float:
        """Return when it was announced that a version serves, by `perf_counter`."""
        async with asyncio.timeout(30):
            return await self._heard[number]

    async def _listen(self) -> None:
        async for message in self._client.messages:
            event = json.loads(bytes(message.payload))
            if event["name"] == "pushmodel" and not self._heard[event["version"]].done():
                self._heard[event["version"]].set_result(time.perf_counter())


async def publish(ready: s3.Bucket, number: int, sizes: dict[str, int]) -> None:
    """Write a version of random files, its manifest last, and name it in the index."""
    files = {path: os.urandom(size) for path, size in sizes.items()}
    listed = [File(path, len(data), hashlib.sha256(data).hexdigest()) for path, data in files.items()]
    manifest = Manifest(MODEL, number, tuple(listed), edge="edge1", verdict="passed").to_json()
    for path, content in {**files, MANIFEST: manifest}.items():
        await s3.write(ready, version_prefix(MODEL, number) + path, content)
    await model_index.add(ready, MODEL, number, manifest)


async def until_serves(
    client: httpx.AsyncClient,
    url: str,
    server: ModelServer,
    production: s3.Bucket,
    number: int,
    *,
    seconds: float = 60,
) -> None:
    """Wait until the edge-manager says that a version serves; 0: until it answers at all."""
    async with asyncio.timeout(seconds):
        while True:
            with suppress(httpx.TransportError):
                if not number:
                    (await client.get(f"{url}/healthz")).raise_for_status()
                    return
                entry = version_prefix(MODEL, number) + "saved_model.pb"
                if number not in server.there:
                    with suppress(FileNotFoundError):
                        await s3.facts(production, entry)
                        server.there.add(number)
                        server.since[number] = time.perf_counter()
                records = await s3.listed(production, "served/")
                if any(one["path"].endswith(f"/{number}.json") for one in records):
                    return
            await asyncio.sleep(0.1)


def spent(process: psutil.Process) -> float:
    """Return the CPU seconds that a process has taken."""
    return float(sum(process.cpu_times()[:2]))


def free_port() -> int:
    """Return a port that is free now."""
    import socket  # noqa: PLC0415

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure what a version costs the edge-manager.")
    parser.add_argument("--rounds", type=int, default=4, help="versions of each size")
    parser.add_argument("--show", action="store_true", help="the requests, too")
    chosen = parser.parse_args()
    asyncio.run(main(chosen.rounds, show=chosen.show))
