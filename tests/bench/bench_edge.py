"""A whole edge in 512 MB and on one CPU, for a day: `python tests/bench/bench_edge.py`; see `--help`.

Runs what `make edge` runs in a control group, beside a central that is not in it, gives it a version of a
model that learnt nothing, and asks it about photos of some 110 kB in JSON, one after the other: a day of one
each ten seconds is 8,640. Windows are as short as can be, so that most detections have one of their own, as
over a day; a tenth of the answers count as uncertain, and newer versions come meanwhile. Where no group can
be made it says so, and goes on without. Nothing is asserted.

It prints lines of JSON. `ready_s`, `answers_s`: until the edge was ready, and until its first answer after a
version was published. Of each process, `rss_mb`, `pss_mb` and CPU. `mb`: memory of its own (`anon_mb`) and
the files that are mapped, each page once, at most; also after an hour's worth, halfway and at the end, with
the slope of the straight line through what was seen of `anon_mb` after that hour, of each process too.
`working_set_mb` is what was charged less cached files that lie unused, at most, and `charged_mb` with those.
`lost`: detections that no message at Kafka counts. Then what is on the edge's disk, in MB for 1,000
detections, by folder.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import io
import json
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
from aiokafka import AIOKafkaConsumer
from bench.cgroups import Group, group
from PIL import Image

from caravan import model_index, s3
from caravan.contracts import DEFAULT_MODEL, EDGE_METRICS, MANIFEST, SAVED_MODEL, version_prefix
from caravan.graphs.twin import open_twin, pixels_of
from caravan.manifest import File, Manifest
from local_stack.ports import part_name, plan_ports
from local_stack.settings import StackSettings
from local_stack.stack import Stack

EDGE = "edge1"
DAY = 8640
HOUR = DAY // 24
MEMORY = 512 * 2**20
SIDE, QUALITY, PHOTOS, CAMERAS = 1000, 62, 50, 3
FIRST = "first"
"""The camera that asks until there is an answer, and is not counted."""
UNCERTAIN = 0.1
"""Share of the photos whose answers count as uncertain."""
EVERY = 40
"""Detections between two looks at the memory."""
SERVICES = ("SHOPPER_PORT", "EDGE_MANAGER_PORT", "MONITOR_PORT")
PATIENCE = 120.0
MB = 1e6
COMMAND = [sys.executable, "-m", "local_stack.small_edge"]


@dataclass
class Edge:
    """An edge that runs, and the group that it is in."""

    parent: psutil.Process
    ports: dict[str, str]
    """What it listens on, by settings."""
    http: httpx.AsyncClient
    cage: Group | None

    def url(self, setting: str) -> str:
        """Return the address of a port."""
        return f"http://127.0.0.1:{self.ports[setting]}"

    def processes(self) -> Iterator[tuple[str, psutil.Process]]:
        """Yield all of its processes, and the names of their programs."""
        yield "parent", self.parent
        for child in self.parent.children(recursive=True):
            yield child.name().removesuffix(f"-{EDGE}"), child

    def anon(self) -> dict[str, int]:
        """Return the bytes of memory that is no file's, by program; what is shared in equal parts."""
        return {name: _rollup(one)["Pss_Anon"] for name, one in self.processes()}

    def mapped(self) -> float:
        """Return the bytes of files that are mapped and in memory, each page once."""
        pages: dict[tuple[str, str, int], int] = {}
        for _, process in self.processes():
            for one in process.memory_maps(grouped=False):
                if one.path.startswith("/"):
                    key = one.path, one.perms, one.size
                    pages[key] = max(pages.get(key, 0), one.rss - one.anonymous)
        return sum(pages.values())

    def cpu(self) -> dict[str, float]:
        """Return the CPU seconds of each program."""
        return {name: sum(one.cpu_times()[:2]) for name, one in self.processes()}


@dataclass
class Day:
    """What was seen while it was asked."""

    times: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    versions: Counter[int] = field(default_factory=Counter)
    uncertain: int = 0
    anon: list[tuple[int, dict[str, int]]] = field(default_factory=list)
    mapped: float = 0.0
    working_set: float = 0.0


async def main(detections: int, versions: int) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as exits:
        home, model = Path(folder, "edge"), Path(folder, "model")
        await _run(sys.executable, str(Path(__file__).with_name("bench_twin.py")), "export", str(model))
        photos, certain = await asyncio.to_thread(_photos, model)
        cage = None
        try:
            cage = exits.enter_context(group("caravan-edge", MEMORY))
        except OSError as exc:
            sys.stderr.write(f"No control group can be made here, so nothing is limited: {exc}\n")
        async with Stack(Path(folder, "central"), edges=(EDGE,), parts=("kafka",), lasting=False) as central:
            told = {
                "CARAVAN_HOME": str(home),
                "EDGES": EDGE,
                "S3_CENTRAL_ENDPOINT": central.url("s3-central"),
                "KAFKA_BOOTSTRAP_SERVERS": central.kafka,
                "CERTAIN_SCORE": str(certain),
                "SCORE_ACCURACY": "0",
                "WINDOW_SECONDS": "0.1",
            }
            ready = s3.open_bucket(central.s3("s3-central"), f"{EDGE}-ready")
            async with _running(home, told, cage) as edge:
                day = await _pass(edge, photos, certain, detections, (model, ready, versions))
                _tell_memory(edge, day)
                await _all_sent(edge)
            windows, images = await _counted(central.kafka)
        _print(
            {
                "answered": len(day.times),
                "errors": day.errors.total(),
                **({"killed": cage.kills} if cage else {}),
                "lost": len(day.times) - windows,
                "images_lost": day.uncertain - images,
                "versions": day.versions,
                "errors_by_kind": day.errors,
                **{f"p{q}": round(statistics.quantiles(day.times, n=100)[q - 1] * 1e3, 1) for q in (50, 99)},
            }
        )
        _tell_disk(home, len(day.times))


@asynccontextmanager
async def _running(home: Path, told: dict[str, str], cage: Group | None) -> AsyncIterator[Edge]:
    """Start an edge, and tell how long that took."""
    await asyncio.to_thread(home.mkdir)
    ports = _free_ports()
    began = time.monotonic()
    with (home / "output.log").open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(cage.entering(COMMAND) if cage else COMMAND),
            env=os.environ | told | ports,
            stdout=output,
            stderr=output,
        )
    try:
        async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
            edge = Edge(psutil.Process(process.pid), ports, http, cage)
            doors = [f"{edge.url(service)}/readyz" for service in SERVICES]
            doors.append(f"{edge.url('TFSERVING_REST_PORT')}/v2/health/live")
            took = {}
            for door in doors:
                await _until(lambda door=door: _answers(http, door))
                took[door] = time.monotonic() - began
            _print({"ready_s": round(max(took.values()), 2), "cpu_s": round(sum(edge.cpu().values()), 2)})
            yield edge
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def _pass(
    edge: Edge,
    photos: list[bytes],
    certain: float,
    detections: int,
    supply: tuple[Path, s3.Bucket, int],
) -> Day:
    model, ready, versions = supply
    day, began = Day(), time.monotonic()
    await _publish(ready, model, 1)
    ask = {"content-type": "application/json"}
    door = f"{edge.url('SHOPPER_PORT')}/detection"
    await _until(lambda: _asked(edge.http, door, photos[0]))
    _print({"answers_s": round(time.monotonic() - began, 2)})
    bodies = cycle(photos)
    spent, began = sum(edge.cpu().values()), time.monotonic()
    for number in range(detections):
        if number % EVERY == 0:
            day.anon.append((number, edge.anon()))
            day.mapped = max(day.mapped, edge.mapped())
            day.working_set = max(day.working_set, edge.cage.working_set if edge.cage else 0)
        if number and number * versions % detections < versions:
            await _publish(ready, model, number * versions // detections + 1)
        asked = time.perf_counter()
        try:
            headers = ask | {"camera": f"till-{number % CAMERAS}"}
            answer = await edge.http.post(door, content=next(bodies), headers=headers)
            answer.raise_for_status()
        except httpx.HTTPError as exc:
            day.errors[str(exc)] += 1
            continue
        day.times.append(time.perf_counter() - asked)
        told = answer.json()
        day.versions[told["version"]] += 1
        day.uncertain += told["score"] < certain
    _print(
        {
            "detections_per_s": round(detections / (time.monotonic() - began), 1),
            "cpu_ms": round((sum(edge.cpu().values()) - spent) / detections * 1e3, 2),
        }
    )
    return day


def _tell_memory(edge: Edge, day: Day) -> None:
    cpu = edge.cpu()
    hour = min(HOUR, day.anon[-1][0] / 2)
    numbers = [number for number, _ in day.anon if number >= hour]
    later = [anon for number, anon in day.anon if number >= hour]
    for name, process in edge.processes():
        sizes = _rollup(process)
        own = {"rss_mb": round(sizes["Rss"] / MB, 1), "pss_mb": round(sizes["Pss"] / MB, 1)}
        grows = _slope(numbers, [anon.get(name, 0) for anon in later])
        _print({"process": name, **own, "cpu_s": round(cpu[name], 1), "grows_kb_per_1000": round(grows)})
    most = max(sum(anon.values()) for _, anon in day.anon)
    sums = [sum(anon.values()) for anon in later]
    facts = {
        "mb": (most + day.mapped) / MB,
        "anon_mb": most / MB,
        "anon_mb_after_an_hour": sums[0] / MB,
        "anon_mb_halfway": sums[len(sums) // 2] / MB,
        "anon_mb_at_the_end": sums[-1] / MB,
        "grows_kb_per_1000": _slope(numbers, sums),
    }
    if edge.cage:
        facts |= {"working_set_mb": day.working_set / MB, "charged_mb": edge.cage.peak / MB}
    _print({name: round(value, 1) for name, value in facts.items()})


def _slope(numbers: list[int], sizes: list[int]) -> float:
    """Return what is more after 1,000 detections, in kB: bytes a detection."""
    return statistics.linear_regression(numbers, sizes).slope


def _tell_disk(home: Path, answered: int) -> None:
    sizes: Counter[str] = Counter()
    for path in home.rglob("*"):
        if path.is_file():
            parts = path.relative_to(home).parts
            sizes["/".join(parts[:-1][:4]) or parts[0]] += path.stat().st_blocks * 512
    by_folder = {name: round(size / MB / answered * 1000, 2) for name, size in sizes.most_common()}
    _print({"disk_mb_per_1000": round(sum(sizes.values()) / MB / answered * 1000, 1), "by_folder": by_folder})


# --- what it is given, and what comes of it -----------------------------------------------------------


def _photos(model: Path) -> tuple[list[bytes], float]:
    """Return requests about photos, and the score below which a tenth of the answers are."""
    session, _ = open_twin(model, 1)
    scores, bodies = [], []
    for seed in range(PHOTOS):
        small = np.random.default_rng(seed).integers(0, 255, (60, 60, 3), np.uint8)
        target = io.BytesIO()
        large = Image.fromarray(small).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        large.save(target, "JPEG", quality=QUALITY)
        photo = target.getvalue()
        scores.append(float(session.run(None, {"pixels": pixels_of(photo)[None]})[0].max()))
        bodies.append(json.dumps({"image": base64.b64encode(photo).decode()}).encode())
    return bodies, statistics.quantiles(scores, n=round(1 / UNCERTAIN))[0]


async def _publish(ready: s3.Bucket, model: Path, number: int) -> None:
    """Publish the model as a version, its manifest last, and name it in the index."""
    files = await asyncio.to_thread(_contents, model)
    listed = [File(path, len(data), hashlib.sha256(data).hexdigest()) for path, data in files.items()]
    manifest = Manifest(DEFAULT_MODEL, number, tuple(listed), edge=EDGE, verdict="passed").to_json()
    for path in sorted(files, key=lambda path: path == SAVED_MODEL):
        await s3.write(ready, version_prefix(DEFAULT_MODEL, number) + path, files[path])
    await s3.write(ready, version_prefix(DEFAULT_MODEL, number) + MANIFEST, manifest)
    await model_index.add(ready, DEFAULT_MODEL, number, manifest)


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


async def _all_sent(edge: Edge) -> None:
    async def sent() -> bool:
        text = (await edge.http.get(f"{edge.url('SHOPPER_PORT')}/metrics")).text
        return "\nshopper_scoring_outbox_messages 0.0" in text

    await asyncio.sleep(1)  # the last window ends
    await _until(sent)


async def _counted(kafka: str) -> tuple[int, int]:
    """Return how many detections the messages at central count, and how many images came."""
    counted: dict[str, int] = {}
    images: set[str] = set()
    async with AIOKafkaConsumer(
        EDGE_METRICS, bootstrap_servers=kafka, auto_offset_reset="earliest"
    ) as consumer:
        while batches := await consumer.getmany(timeout_ms=5000):
            for record in (one for batch in batches.values() for one in batch):
                for name, inner in json.loads(record.value).items():
                    body = json.loads(inner)
                    if (record.key or b"").decode() == FIRST:
                        continue
                    if name == "metrics_json":
                        seen = body["camera_metrics"].values()
                        counted[body["id"]] = sum(sum(sum(row) for row in one.values()) for one in seen)
                    else:
                        images.add(body["id"])
    return sum(counted.values()), len(images)


# --- plumbing -----------------------------------------------------------------------------------------


def _free_ports() -> dict[str, str]:
    """Choose a port for each setting of an edge's."""
    settings = StackSettings.read({"EDGES": EDGE, "SITE": "edge", "S3": "files", "PORTS": "free"})
    ports = plan_ports(settings)
    return {
        port.setting: str(ports[part_name(row.name, EDGE)][name])
        for row in settings.rows
        for name, port in row.ports.items()
        if port.setting
    }


async def _until(question: Any) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await question():
            await asyncio.sleep(0.05)


async def _answers(http: httpx.AsyncClient, url: str) -> bool:
    with suppress(httpx.TransportError):
        return (await http.get(url)).is_success
    return False


async def _asked(http: httpx.AsyncClient, url: str, body: bytes) -> bool:
    headers = {"content-type": "application/json", "camera": FIRST}
    return (await http.post(url, content=body, headers=headers)).is_success


def _rollup(process: psutil.Process) -> dict[str, int]:
    """Return the sizes of a process in bytes: Rss, Pss, Pss_Anon …"""
    lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()[1:]
    return {name.rstrip(":"): int(value) * 1024 for name, value, *_ in map(str.split, lines)}


async def _run(*command: str) -> None:
    process = await asyncio.create_subprocess_exec(*command)
    if await process.wait():
        raise SystemExit(f"{command} failed")


def _print(row: dict[str, Any]) -> None:
    print(json.dumps(row), flush=True)  # noqa: T201 - a command's output


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Run a whole edge in little memory, and ask it.")
    parser.add_argument("--detections", type=int, default=DAY, help=f"a whole day has {DAY}")
    parser.add_argument("--versions", type=int, default=4, help="versions of the model that come")
    chosen = parser.parse_args()
    asyncio.run(main(chosen.detections, chosen.versions))
