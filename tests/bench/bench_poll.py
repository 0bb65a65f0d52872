"""What an edge's look at central costs: `python tests/bench/bench_poll.py [versions]`.

Fills an `E-ready` of a real S3 server with versions of seven files each, and looks at it through a relay that
counts. Prints requests, bytes and CPU of: a listing of every file, as a look once was; a first look; one when
nothing is new; one at all folders when nothing is new; one that finds a version by the index, and one by its
folder. Nothing is asserted.
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import obstore
from obstore.store import ObjectStore
from rich.console import Console

from caravan import model_index, s3
from caravan.contracts import MODELS
from edge_manager.central import LONGEST_SECONDS, Central
from edge_manager.versions import offers
from local_stack.stack import Stack

MODEL = "tea_model_b64"
BUCKET = "edge1-ready"
PATHS = (
    "saved_model.pb",
    "variables/variables.index",
    "variables/variables.data-00000-of-00001",
    "assets.extra/head.npz",
    "assets.extra/twin.onnx",
    "report/index.html",
    "fingerprint.pb",
    "manifest.json",
)
AT_ONCE = 64


class Meter:
    """Carries connections to a server, and counts what passes."""

    def __init__(self, target: str) -> None:
        self._target = urlsplit(target)
        self.requests = self.sent = self.received = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        """Listen; gives the address through which the server is reached."""
        server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        async with server:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there = await asyncio.open_connection(self._target.hostname, self._target.port)

        async def ask() -> None:
            while data := await reader.read(65_536):
                self.requests += data.count(b"HTTP/1.1\r\n")
                self.sent += len(data)
                there.write(data)
                await there.drain()
            there.close()

        async def answer() -> None:
            while data := await there_reader.read(65_536):
                self.received += len(data)
                writer.write(data)
                await writer.drain()
            writer.close()

        await asyncio.gather(ask(), answer(), return_exceptions=True)


async def measured(name: str, meter: Meter, look: Callable[[], Awaitable[object]]) -> None:
    """Print what a look costs; the CPU is this process's, the relay's share included."""
    requests, transferred, cpu, began = (
        meter.requests,
        meter.sent + meter.received,
        time.process_time(),
        time.perf_counter(),
    )
    await look()
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    transferred = meter.sent + meter.received - transferred
    Console(width=120).print(
        f"{name:<44} {meter.requests - requests:>4} requests {transferred:>10,} bytes "
        f"{cpu * 1000:>8.1f} ms CPU {seconds * 1000:>8.1f} ms"
    )


async def put(store: ObjectStore, version: int) -> None:
    """Put a version there."""
    for path in PATHS:
        await obstore.put_async(store, f"{MODELS}{MODEL}/{version}/{path}", b"x")


async def fill(store: ObjectStore, versions: int) -> None:
    """Put so many versions there."""
    places = asyncio.Semaphore(AT_ONCE)

    async def one(version: int) -> None:
        async with places:
            await put(store, version)

    await asyncio.gather(*map(one, range(1, versions + 1)))
    await model_index.add(store, MODEL, versions, b"manifest")


async def main(versions: int) -> None:
    """Fill a bucket, and look."""
    with tempfile.TemporaryDirectory() as home:
        async with Stack(Path(home), parts=("s3-central",)) as stack:
            address = stack.s3("s3-central")
            await s3.ensure_buckets(address, [BUCKET])
            near = s3.open_bucket(address, BUCKET)
            await fill(near, versions)
            meter = Meter(address.endpoint)
            async with meter.running() as url:
                await compare(near, s3.open_bucket(replace(address, endpoint=url), BUCKET), meter, versions)


async def compare(near: ObjectStore, far: ObjectStore, meter: Meter, versions: int) -> None:
    """Look at the bucket in each way."""
    central, now, above = Central(far), 0.0, {MODEL: 0}

    async def look() -> None:
        await central.look(now, above=above, standing=lambda _: "open")

    async def list_all() -> None:
        offers([(entry["path"], entry["size"], entry["e_tag"]) async for entry in s3.listing(far, MODELS)])

    await measured(f"every file of {versions:,} versions", meter, list_all)
    await measured("the first look", meter, look)
    above = {MODEL: versions}
    now = 1.0
    await measured("nothing is new", meter, look)
    now += LONGEST_SECONDS
    await measured("nothing is new, at all folders", meter, look)
    await put(near, versions + 1)
    await model_index.add(near, MODEL, versions + 1, b"manifest")
    now += 1
    await measured("a new version, named in the index", meter, look)
    above = {MODEL: versions + 1}
    await put(near, versions + 2)
    now += LONGEST_SECONDS
    await measured("a new version, found by its folder", meter, look)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 5000))
