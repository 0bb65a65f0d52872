"""What taking in photos costs beside copying them: `python -m bench.bench_copy teas.zip` in tests/.

The feeder takes in an archive; s5cmd and rclone copy its files to the same store, which nobody asks them to
look at, to know again or to tell of. They are built from the pins in `tests/bench/peers`; one that cannot be
built is passed over in a line that says so. They take turns, each round on buckets that are empty. It prints
a line of JSON for each, medians of the rounds: seconds of CPU with all children, and of the store (`behind`),
and the wall clock until all photos are stored. Without an archive, 590 photos are rendered. Nothing is
asserted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import defaultdict
from pathlib import Path

import httpx
import psutil
from bench.peers.build import built

from caravan import s3
from lab.photos import render_zip
from local_stack.stack import Stack

COMMANDS = {
    "s5cmd": ("--log", "error", "--endpoint-url", "{url}", "cp", "{folder}/", "s3://{bucket}/"),
    "rclone": ("copy", "--quiet", "{folder}", "store:{bucket}"),
}
RENDERED = {"other": 200, "tea-lemon": 130, "tea-earl-grey": 130, "tea-green": 130}

Figures = dict[str, float]


async def main(archive: Path | None, rounds: int) -> None:
    """Measure all in turns, and print the medians."""
    peers = {name: program for name in COMMANDS if (program := built(name))}
    edges = [f"edge{number}" for number in range(1, rounds + 1)]
    rows: dict[str, list[Figures]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        if archive is None:
            archive = Path(folder, "photos.zip")
            render_zip(archive, RENDERED, 1)
        photos = Path(folder, "photos")
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(photos)
        parts = Stack(Path(folder, "home"), edges=edges, parts=("feeder",), lasting=False)
        async with parts as stack:
            store = psutil.Process(stack.state.part("s3-central").pid)
            for edge in edges:
                before = spent(store)
                figures = await taken_in(stack, archive, edge)
                rows["feeder"].append(figures | {"behind": spent(store) - before})
                for name, program in peers.items():
                    bucket, before = f"{name}-{edge}", spent(store)
                    await s3.ensure_buckets(stack.s3("s3-central"), [bucket])
                    figures = await asyncio.to_thread(copied, program, stack, photos, bucket)
                    rows[name].append(figures | {"behind": spent(store) - before})
    for name, rounds_of in rows.items():
        medians = {what: round(statistics.median(one[what] for one in rounds_of), 3) for what in rounds_of[0]}
        say({"by": name, "rounds": rounds, **medians})


async def taken_in(stack: Stack, archive: Path, edge: str) -> Figures:
    """Send the archive to the feeder."""
    feeder = psutil.Process(stack.state.part("feeder").pid)
    content = await asyncio.to_thread(archive.read_bytes)
    began, before = time.perf_counter(), spent(feeder)
    async with httpx.AsyncClient(timeout=120, trust_env=False) as http:
        answer = await http.put(f"{stack.url('feeder')}/zip?edgeId={edge}", content=content)
    answer.raise_for_status()
    wall = time.perf_counter() - began
    await asyncio.sleep(1)  # events are told a moment later
    return {"photos": answer.json()["stored"], "cpu": spent(feeder) - before, "wall": wall}


def copied(program: Path, stack: Stack, photos: Path, bucket: str) -> Figures:
    """Let a peer copy the files."""
    address = stack.s3("s3-central")
    words = {"url": address.endpoint, "folder": str(photos), "bucket": bucket}
    store = "RCLONE_CONFIG_STORE_"
    environment = os.environ | {
        "AWS_ACCESS_KEY_ID": address.access_key.get_secret_value(),
        "AWS_SECRET_ACCESS_KEY": address.secret_key.get_secret_value(),
        "AWS_REGION": address.region,
        f"{store}TYPE": "s3",
        f"{store}PROVIDER": "Other",
        f"{store}ENV_AUTH": "true",
        f"{store}USE_PRESIGNED_REQUEST": "true",  # else it sends nothing to a store without TLS
        f"{store}ENDPOINT": address.endpoint,
        "RCLONE_CONFIG": os.devnull,
    }
    command = [str(program), *(word.format(**words) for word in COMMANDS[program.name])]
    before, began = os.times(), time.perf_counter()
    subprocess.run(command, check=True, env=environment)
    wall, after = time.perf_counter() - began, os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return {
        "photos": sum(path.is_file() for path in photos.rglob("*")),
        "cpu": cpu,
        "wall": wall,
    }


def spent(process: psutil.Process) -> float:
    """Return the CPU seconds of a process and its children."""
    times = process.cpu_times()
    total = times.user + times.system + times.children_user + times.children_system
    return float(total + sum(sum(child.cpu_times()[:2]) for child in process.children(recursive=True)))


def say(facts: dict[str, object]) -> None:
    """Print a line of JSON."""
    sys.stdout.write(f"{json.dumps(facts)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure taking in beside copying.")
    parser.add_argument("archive", type=Path, nargs="?", help="a ZIP of training images")
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    asyncio.run(main(chosen.archive, chosen.rounds))
