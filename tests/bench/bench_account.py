"""Measure the account of an edge with many receipts and images against the embedded stack's S3 server.

`python tests/bench/bench_account.py --receipts 5000 --images 200000` makes them and runs `python -m caravan
account`: for the first time, again, after one more receipt, and after a stored image was swapped for another.
It prints CPU seconds and peak of resident memory of that process, and asserts nothing. Making 200,000 objects
takes some minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from pydantic import SecretStr
from rich.console import Console
from rich.table import Table

from caravan import s3
from caravan.concurrency import for_each
from caravan.contracts import data_bucket
from caravan.receipts import ImageReceipt, Receipt, receipt_key
from caravan.settings import S3Address
from local_stack.keys import PASSWORD, USER
from local_stack.stack import Stack

EDGE = "edge1"
CLASSES = 5


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--receipts", type=int, default=5000)
    parser.add_argument("--images", type=int, default=200_000)
    arguments = parser.parse_args()
    asyncio.run(_measure(arguments.receipts, arguments.images))


async def _measure(receipts: int, images: int) -> None:
    table = Table("account", "CPU", "peak", "time", "answer", title=f"{receipts} receipts, {images} images")
    with tempfile.TemporaryDirectory() as folder:
        async with Stack(Path(folder, "home"), edges=(EDGE,), parts=("s3-central", "s3")) as stack:
            store = _bucket(stack.url("s3-central"))
            await s3.ensure_buckets(store.address, [store.name])
            await for_each(_batches(receipts, images), lambda batch: _feed(store, *batch), at_once=24)
            await _row(table, stack, "first")
            await _row(table, stack, "again")
            await _feed(store, receipts, range(images, images + 40))
            await _row(table, stack, "after one more receipt")
            await s3.write(store, _key(images // 2), b"another image")
            await _row(table, stack, "after a swap")
    Console().print(table)


async def _row(table: Table, stack: Stack, asked: str) -> None:
    began = time.perf_counter()
    usage, answer = await asyncio.to_thread(_ask, stack)
    cpu, peak = usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024
    took = time.perf_counter() - began
    table.add_row(asked, f"{cpu:.2f} s", f"{peak:.0f} MB", f"{took:.1f} s", answer)


def _ask(stack: Stack) -> tuple[resource.struct_rusage, str]:
    """Run the command; return what it took, and the last of what it said."""
    environment = os.environ | {
        "EDGE": EDGE,
        "S3_CENTRAL_ENDPOINT": stack.url("s3-central"),
        "S3_EDGE_ENDPOINT": stack.url(f"s3-{EDGE}"),
        "NO_PROXY": "127.0.0.1",
    }
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen([sys.executable, "-m", "caravan", "account"], env=environment, stdout=out)
        # Not `wait`: this tells what the one process used.
        _, _, usage = os.wait4(process.pid, 0)
        out.seek(0)
        words = out.read().decode().splitlines()
    return usage, "; ".join(line for line in words if line.startswith(("It ", "swapped", "missing", "unacc")))


def _batches(receipts: int, images: int) -> Iterator[tuple[int, range]]:
    for number in range(receipts):
        yield number, range(images * number // receipts, images * (number + 1) // receipts)


async def _feed(store: s3.Bucket, number: int, images: range) -> None:
    """Store a batch as the feeder does."""
    stored = []
    for image in images:
        key, content = _key(image), f"image {image}".encode()
        placed = await s3.put_new(store, key, content)
        sha256 = hashlib.sha256(content).hexdigest()
        stored.append(ImageReceipt(key, "stored", key, sha256, size=len(content), etag=placed.etag))
    batch = hashlib.sha256(str(number).encode()).hexdigest()
    receipt = Receipt("done", EDGE, batch, 9, 0, 1, "then", "now", tuple(stored))
    await s3.write(store, receipt_key(batch), receipt.to_json())


def _key(image: int) -> str:
    return f"images/tea-{image % CLASSES}/2026-11-21_09-14-01-{image:06}.jpg"


def _bucket(endpoint: str) -> s3.Bucket:
    address = S3Address(endpoint, SecretStr(USER), SecretStr(PASSWORD), "us-east-1", None)
    return s3.open_bucket(address, data_bucket(EDGE))


if __name__ == "__main__":
    main()
