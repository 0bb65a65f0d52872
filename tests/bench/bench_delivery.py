"""What a new version costs the link to an edge: `python tests/bench/bench_delivery.py`.

Starts the stores of both sides and an edge-manager, which reaches central by way of a counter of bytes and
requests. For each number of classes it publishes signed versions as training does, of which only the head
differs, and two of a SavedModel made elsewhere, of which one layer differs. Prints, as JSON, a line for each:

- the bytes that came from central for the first version and for the next one, with every look (`first_kb`,
  `next_kb`) and without (`next_files_kb`), the share of the next version (`percent`), its requests, and
  whether each file at the edge has its SHA-256;
- `slow_seconds`: from the publication of one more until it serves, on a link of 64 kbit/s on which a request
  takes half a second to two seconds more, and which stalls for five seconds of thirty;
- of the first number of classes, `requests_at_rest`: those of a minute, of two minutes long after any news;
- last, of how many changed versions our own check, and OpenSSF's tool, say that `model.sig` does not vouch
  for them.

Nothing is asserted.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import aiomqtt
import httpx
import numpy as np
from bench.bench_edge_manager import ModelServer, until_serves
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)

from caravan import s3
from caravan.contracts import HEAD, MONITOR, version_prefix
from caravan.files import write_file
from caravan.manifest import Lineage, Manifest
from caravan.signatures import public_half
from local_stack.stack import Stack
from support import clients
from support.mutations import TOOL, laid_out, mutation, refused_here
from support.ports import free_port
from training.cutting import with_pieces
from training.embeddings import FEATURES, SHAPES
from training.export import export
from training.head import Array, Head, Space
from training.publish import outcome_event, publish
from training.space import DIRECTIONS
from training.stores import Stores

MODEL = "tea_model_b64"
FAST = ("first_kb", "next_kb")
"""What is told of the versions that come on a fast link; the one after them comes on a slow one."""
CLASSES = (3, 10, 20, 100)
ELSEWHERE = (10, 2_500_000)
"""Layers of a SavedModel made elsewhere, and the numbers in each: 100 MB."""
REQUEST = re.compile(rb"(GET|HEAD) (\S+) HTTP/1\.1\r\n")
SLOW_BYTES = 64_000 / 8
"""A second, of the slow link."""
LATENCY = (0.5, 2.0)
STALL_EVERY, STALL_SECONDS = 30, 5
MOST_SECONDS = 300
REST_SECONDS = 120
MUTATIONS = 1000


class Link:
    """Passes connections on to central, and counts what comes back and what is asked.

    Attributes:
        sizes: bytes that came back, by the path that was asked last where they came.
        asked: paths.
        is_slow: whether it passes little at once, late, and at times nothing.

    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.sizes: Counter[str] = Counter()
        self.asked: list[str] = []
        self.is_slow = False
        self._line = asyncio.Lock()
        self._chance = random.Random(0)

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
        own = [""]
        await asyncio.gather(self._ask(reader, to_central, own), self._answer(from_central, writer, own))

    async def _ask(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, own: list[str]) -> None:
        with suppress(ConnectionError):
            while some := await source.read(2**16):
                own += [path.decode() for _, path in REQUEST.findall(some)]
                self.asked += own[1:]
                del own[:-1]
                await asyncio.sleep(self._chance.uniform(*LATENCY) if self.is_slow else 0)
                target.write(some)
                await target.drain()
        target.close()

    async def _answer(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, own: list[str]
    ) -> None:
        with suppress(ConnectionError):
            while some := await source.read(2**11 if self.is_slow else 2**18):
                self.sizes[own[-1]] += len(some)
                if self.is_slow:
                    await self._pass_slowly(len(some))
                target.write(some)
                await target.drain()
        target.close()

    async def _pass_slowly(self, size: int) -> None:
        """Wait for the line, which all connections share, and for as long as it takes on it."""
        async with self._line:
            stalls = asyncio.get_running_loop().time() % STALL_EVERY < STALL_SECONDS
            await asyncio.sleep(size / SLOW_BYTES + (STALL_SECONDS if stalls else 0))


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
    return Head(names, numbers(FEATURES, classes), one, space, one, one, numbers(1))


def ours(folder: Path, classes: int, seed: int) -> dict[str, Path]:
    """Write a version as training does."""
    head, directory = drawn(classes, seed), folder / f"{classes}-{seed}"
    write_file(directory / HEAD, head.to_bytes())
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
            three = [ours(folder, count, seed) for seed in (1, 2, 3)]
            say({"classes": count, **await delivered(three, rests=count == classes[0])})
        layers, numbers = ELSEWHERE
        pair = [elsewhere(folder, seed) for seed in (1, 2)]
        say({"elsewhere": f"{layers} layers of {numbers * 4 / 1e6:.0f} MB", **await delivered(pair)})
        say(mutated(folder))


async def delivered(versions: list[dict[str, Path]], *, rests: bool = False) -> dict[str, object]:
    """Publish versions one after the other, the third on a slow link, and tell what each costs.

    Args:
        versions: the files of each.
        rests: whether a minute without news is counted, too.

    """
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        parts = ("s3-central", "s3", "mqtt")
        running = await stack.enter_async_context(Stack(Path(folder, "home"), parts=parts, lasting=False))
        link, server = Link(running.port("s3-central")), ModelServer()
        central = await stack.enter_async_context(link.open())
        client = await stack.enter_async_context(httpx.AsyncClient())
        mqtt_port = running.port("mqtt-edge1", "mqtt")
        events = await stack.enter_async_context(aiomqtt.Client("127.0.0.1", mqtt_port))
        address = running.s3("s3-central")
        buckets = [s3.open_bucket(address, f"edge1-{kind}") for kind in ("data", "models", "ready")]
        stores, production = (
            Stores(buckets[0], buckets[1], buckets[2], "edge1"),
            s3.open_bucket(running.s3("s3-edge1"), "production"),
        )
        key, public = keys(Path(folder))
        environment = os.environ | {
            "PUBLIC_KEY": str(public),
            "REQUIRE_SIGNATURE": "true",
            "S3_CENTRAL_ENDPOINT": central,
            "S3_EDGE_ENDPOINT": f"http://127.0.0.1:{running.port('s3-edge1')}",
            "TFSERVING_REST": await stack.enter_async_context(server.open()),
            "MQTT_PORT": str(mqtt_port),
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
            for number, files in enumerate(versions, 1):
                link.sizes, link.asked, link.is_slow = Counter(), [], number > len(FAST)
                published = await publish(stores, MODEL, f"{number}", files, Lineage(classes=("a",)), key=key)
                await events.publish(MONITOR, json.dumps(outcome_event(published)))  # as the monitor does
                began = time.perf_counter()
                await until_serves(client, url, server, production, number, seconds=MOST_SECONDS)
                if link.is_slow:
                    found["slow_seconds"] = round(time.perf_counter() - began, 1)
                    continue
                prefix, whole = (
                    quote(version_prefix(MODEL, number)),
                    sum(f.size for f in published.manifest.files),
                )
                found |= {
                    FAST[number - 1]: round(link.sizes.total() / 1e3, 1),
                    "next_files_kb": round(
                        sum(n for path, n in link.sizes.items() if prefix in path) / 1e3, 1
                    ),
                    "version_kb": round(whole / 1e3),
                    "percent": round(link.sizes.total() / whole * 100, 2),
                    "requests": sum(prefix in path for path in link.asked),
                    "same": await is_same(production, published.manifest),
                }
            link.is_slow = False
            if rests:
                await asyncio.sleep(REST_SECONDS)
                link.asked = []
                await asyncio.sleep(REST_SECONDS)
                found["requests_at_rest"] = len(link.asked) / REST_SECONDS * 60
            return found
        finally:
            process.terminate()
            await process.wait()


async def is_same(production: s3.Bucket, manifest: Manifest) -> bool:
    """Tell whether the edge has each file byte for byte, by its SHA-256."""
    prefix = version_prefix(manifest.model, manifest.version)
    wanted = manifest.files
    found = [hashlib.sha256(await s3.read(production, prefix + file.path)).hexdigest() for file in wanted]
    return found == [file.sha256 for file in wanted]


def keys(folder: Path) -> tuple[EllipticCurvePrivateKey, Path]:
    """Return a new key, and the file of its public half."""
    key, file = generate_private_key(SECP256R1()), folder / "key.pub.pem"
    file.write_bytes(public_half(key))
    return key, file


def mutated(folder: Path) -> dict[str, object]:
    """Change a signed version in many ways, and count who says that its signature does not vouch for it."""
    key, public = keys(folder)
    changed = [mutation(seed, key)[1] for seed in range(MUTATIONS)]
    folders = [laid_out(folder / "mutations" / str(seed), files) for seed, files in enumerate(changed)]
    command = list[str | Path]([clients.python_of("model-signing"), TOOL, "verify", public, *folders])
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return {
        "mutations": MUTATIONS,
        "refused_here": sum(refused_here(files, [key.public_key()]) for files in changed),
        "refused_by_their_tool": sum(fault is not None for fault in json.loads(done.stdout)),
    }


def say(facts: Mapping[str, object]) -> None:
    """Print a line of JSON."""
    sys.stdout.write(f"{json.dumps(facts)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure what a new version costs the link.")
    parser.add_argument("--classes", type=int, nargs="+", default=CLASSES)
    asyncio.run(main(list(parser.parse_args().classes)))
