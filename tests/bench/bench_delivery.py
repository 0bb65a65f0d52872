"""What a new version costs the link to an edge: `python tests/bench/bench_delivery.py`.

Starts the stores of both sides and an edge-manager, which reaches central by way of a counter of bytes and
requests. For each number of classes it publishes two versions as training does, of which only the head
differs, and for a SavedModel made elsewhere two of which one layer differs. Prints, as JSON, a line for each:
the bytes that came from central for the first version and for the next one (`first_kb`, `next_kb`, with every
look), the share of the next version (`percent`), its requests, and whether each file at the edge has
its SHA-256. Nothing is asserted.
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
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import httpx
import numpy as np
from bench.bench_edge_manager import ModelServer, free_port, until_serves

from caravan import s3
from caravan.contracts import version_prefix
from caravan.manifest import Lineage, Manifest
from local_stack.stack import Stack
from training.cutting import with_pieces
from training.embeddings import FEATURES, SHAPES
from training.export import export
from training.head import Array, Head, Space
from training.publish import publish
from training.space import DIRECTIONS
from training.stores import Stores

MODEL = "tea_model_b64"
CLASSES = (3, 10, 20, 100)
ELSEWHERE = (10, 2_500_000)
"""Layers of a SavedModel made elsewhere, and the numbers in each: 100 MB."""
REQUEST = re.compile(rb"(GET|HEAD) (\S+) HTTP/1\.1\r\n")


class Link:
    """Passes connections on to central, and counts what comes back and what is asked of versions."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.size = 0
        self.asked: list[str] = []

    @asynccontextmanager
    async def open(self) -> AsyncIterator[str]:
        """Yield the address to ask instead."""
        server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_central, to_central = await asyncio.open_connection("127.0.0.1", self.port)
        await asyncio.gather(self._ask(reader, to_central), self._answer(from_central, writer))

    async def _ask(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while some := await source.read(2**16):
                self.asked += [path.decode() for _, path in REQUEST.findall(some)]
                target.write(some)
                await target.drain()
        target.close()

    async def _answer(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while some := await source.read(2**18):
                self.size += len(some)
                target.write(some)
                await target.drain()
        target.close()


def drawn(classes: int, seed: int) -> Head:
    """Return a head as of a training set with photos enough for all directions."""
    rng = np.random.default_rng(seed)

    def numbers(*shape: int) -> Array:
        return np.asarray(rng.normal(size=shape) / np.sqrt(shape[0]), np.float32)

    colours = FEATURES - SHAPES
    space = Space(
        numbers(FEATURES),
        numbers(SHAPES, DIRECTIONS),
        numbers(DIRECTIONS),
        numbers(colours, colours),
        numbers(colours),
        numbers(classes, FEATURES),
    )
    names = (*(f"tea-{number:03}" for number in range(classes - 1)), "unknown")
    names = tuple(sorted([*names[:-1], "other"]))
    one = numbers(classes)
    return Head(names, numbers(FEATURES, classes), one, space, one, one)


def ours(folder: Path, classes: int, seed: int) -> dict[str, Path]:
    """Write a version as training does."""
    head, directory = drawn(classes, seed), folder / f"{classes}-{seed}"
    export(folder / "cache", head, directory)
    return {path.relative_to(directory).as_posix(): path for path in directory.rglob("*") if path.is_file()}


def elsewhere(folder: Path, seed: int) -> dict[str, Path]:
    """Write a SavedModel of which one layer differs with the seed, as a judge publishes it."""
    import tensorflow as tf  # noqa: PLC0415

    layers, numbers = ELSEWHERE
    module, directory = tf.Module(), folder / f"elsewhere-{seed}"
    module.layers = [
        tf.Variable(np.random.default_rng([seed if at == layers // 2 else 0, at]).random(numbers, np.float32))
        for at in range(layers)
    ]
    tf.saved_model.save(module, str(directory))
    files = {path.relative_to(directory).as_posix(): path for path in directory.rglob("*") if path.is_file()}
    return with_pieces(files, folder / f"pieces-{seed}.json")


async def main(classes: list[int]) -> None:
    """Start what is needed for each pair of versions, publish them, and print a line."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for count in classes:
            pair = [ours(folder, count, seed) for seed in (1, 2)]
            say({"classes": count, **await delivered(pair)})
        layers, numbers = ELSEWHERE
        pair = [elsewhere(folder, seed) for seed in (1, 2)]
        say({"elsewhere": f"{layers} layers of {numbers * 4 / 1e6:.0f} MB", **await delivered(pair)})


async def delivered(pair: list[dict[str, Path]]) -> dict[str, object]:
    """Publish two versions one after the other, and tell what each costs the link."""
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        parts = ("s3-central", "s3", "mqtt")
        running = await stack.enter_async_context(Stack(Path(folder, "home"), parts=parts, lasting=False))
        link, server = Link(running.port("s3-central")), ModelServer()
        central = await stack.enter_async_context(link.open())
        client = await stack.enter_async_context(httpx.AsyncClient())
        address = running.s3("s3-central")
        buckets = [s3.open_bucket(address, f"edge1-{kind}") for kind in ("data", "models", "ready")]
        stores, production = (
            Stores(buckets[0], buckets[1], buckets[2], "edge1"),
            s3.open_bucket(running.s3("s3-edge1"), "production"),
        )
        environment = os.environ | {
            "S3_CENTRAL_ENDPOINT": central,
            "S3_EDGE_ENDPOINT": f"http://127.0.0.1:{running.port('s3-edge1')}",
            "TFSERVING_REST": await stack.enter_async_context(server.open()),
            "MQTT_PORT": str(running.port("mqtt-edge1", "mqtt")),
            "STATUS_SECONDS": "0",
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
        try:
            url = f"http://127.0.0.1:{environment['PORT']}"
            await until_serves(client, url, server, production, 0)
            found: dict[str, object] = {}
            for number, files in enumerate(pair, 1):
                link.size, link.asked = 0, []
                published = await publish(
                    stores, MODEL, f"{number}", files, Lineage(classes=("a",)), key=None
                )
                await until_serves(client, url, server, production, number)
                prefix = quote(version_prefix(MODEL, number))
                found |= {
                    ("first_kb", "next_kb")[number - 1]: round(link.size / 1e3, 1),
                    "requests": sum(prefix in path for path in link.asked),
                    "same": await is_same(production, published.manifest),
                }
            whole = sum(file.stat().st_size for file in pair[1].values())
            return {**found, "version_kb": round(whole / 1e3), "percent": round(link.size / whole * 100, 2)}
        finally:
            process.terminate()
            await process.wait()


async def is_same(production: s3.Bucket, manifest: Manifest) -> bool:
    """Tell whether the edge has each file byte for byte, by its SHA-256."""
    prefix = version_prefix(manifest.model, manifest.version)
    wanted = manifest.files
    found = [hashlib.sha256(await s3.read(production, prefix + file.path)).hexdigest() for file in wanted]
    return found == [file.sha256 for file in wanted]


def say(facts: Mapping[str, object]) -> None:
    """Print a line of JSON."""
    sys.stdout.write(f"{json.dumps(facts)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure what a new version costs the link.")
    parser.add_argument("--classes", type=int, nargs="+", default=CLASSES)
    asyncio.run(main(list(parser.parse_args().classes)))
