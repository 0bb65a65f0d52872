"""What 10, 1,000 and 100,000 edges need at central: `make scaling`; it prints what `docs/scaling.md` shows.

Costs are those of `docs/performance.json`, and of reading hub messages here and now; what a shop does is an
assumption, and each is a field of `Shop`. Retrainings are simulated: uploads come by chance in opening hours,
so many workers take them in their order, and the fewest are looked for by whom 95 of 100 uploads wait for at
most a minute. The seed is fixed.
"""

from __future__ import annotations

import heapq
import json
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from rich.console import Console

from caravan.contracts import central_buckets, dead_letter, events_topic, images_topic
from caravan.times import iso
from edge_manager.edge import TOLD_SECONDS
from monitor import hub_messages
from monitor.hub_state import Hub, HubLimits

ROOT = Path(__file__).parents[2]
EDGES = (10, 1_000, 100_000)
SEED = 20
WAIT_SECONDS, SHARE = 60.0, 0.95
LOOK_REQUESTS = 3
"""Of an edge with one model: its index, its folders, and the versions of the model."""


@dataclass(frozen=True)
class Shop:
    """What is assumed of an edge: hours and uploads are of a day, of a version so many MB are new to it."""

    cameras: int = 4
    open_hours: float = 10
    uploads: float = 0.3
    window_seconds: float = 10
    version_mb: float = 0.146


@dataclass(frozen=True)
class Costs:
    """Measured, in CPU seconds: a read at central's store, a retraining, a window at the hub."""

    request: float
    retraining: float
    window: float


def main() -> None:
    """Print the table."""
    shop, costs = Shop(), measured()
    console = Console(soft_wrap=True)
    console.print(
        f"a request {costs.request * 1e3:.2f} ms, a retraining {costs.retraining:.1f} s, "
        f"a window at the hub {costs.window * 1e6:.0f} µs of CPU\n"
    )
    rows = [needs(edges, shop, costs) for edges in EDGES]
    heads = ["", *(f"{edges:,} edges" for edges in EDGES)]
    lines = [heads, ["---"] * len(heads), *([name, *(row[name] for row in rows)] for name in rows[0])]
    for line in lines:
        console.print(f"| {' | '.join(line)} |", markup=False)


def measured() -> Costs:
    """Read what the benches found, and read messages of the hub."""
    found: Mapping[str, Mapping[str, float]] = json.loads((ROOT / "docs" / "performance.json").read_text())
    beside = "retraining after 100 images beside 1,000"
    retraining = [
        found[f"{beside}: CPU of {what}, s"]["now"] for what in ("the worker", "TensorFlow beside it")
    ]
    request = found["store of an edge, SeaweedFS: CPU a photo read, ms"]["now"] / 1e3
    return Costs(request, sum(retraining), _window())


def _window() -> float:
    limits = HubLimits()
    hub, now = Hub(limits, lambda *_: None, time.time()), time.time()
    messages = [_message(number) for number in range(5_000)]
    began = time.process_time()
    for message in messages:
        hub.take(hub_messages.read(message), now, now)
    return (time.process_time() - began) / len(messages)


def needs(edges: int, shop: Shop, costs: Costs) -> dict[str, str]:
    """Return what so many edges need at central, by name."""
    opened = shop.open_hours * 3600
    looks = edges * LOOK_REQUESTS / TOLD_SECONDS
    windows = edges * shop.cameras / shop.window_seconds
    topics = len(
        {events_topic("e"), images_topic("e"), dead_letter(events_topic("e")), dead_letter(images_topic("e"))}
    )
    uploads = _uploads(edges, shop)
    workers = fewest_workers(uploads, costs.retraining)
    return {
        "requests of looks for a version, a second": f"{looks:,.2f}",
        "cores for these": f"{looks * costs.request:,.2g}",
        "windows to the hub, a second, in opening hours": f"{windows:,.0f}",
        "cores of the hub": f"{windows * costs.window:,.2g}",
        "cameras (`HUB_MAX_CAMERAS` is 1,000)": f"{edges * shop.cameras:,}",
        "topics on Kafka": f"{edges * topics:,}",
        "buckets at central": f"{edges * len(central_buckets('e')):,}",
        "retrainings a day": f"{len(uploads):,}",
        "workers, a core each, so that 95 of 100 begin within a minute": f"{workers:,}",
        "GB a day to edges": f"{len(uploads) * shop.version_mb / 1e3:,.2f}",
        "average load of the workers": f"{len(uploads) * costs.retraining / (workers * opened):.2f}",
    }


def _uploads(edges: int, shop: Shop) -> list[float]:
    """Return when uploads come in a day, in seconds since opening: as many as may be, by chance."""
    draw = random.Random(SEED)
    end, mean = shop.open_hours * 3600, edges * shop.uploads / (shop.open_hours * 3600)
    times, now = [], draw.expovariate(mean)
    while now < end:
        times.append(now)
        now += draw.expovariate(mean)
    return times


def fewest_workers(uploads: list[float], seconds: float) -> int:
    """Return by how many workers enough uploads are begun in time."""
    least, most = 0, 1
    while not _is_soon(uploads, seconds, most):
        least, most = most, 2 * most
    while most - least > 1:
        middle = (least + most) // 2
        least, most = (least, middle) if _is_soon(uploads, seconds, middle) else (middle, most)
    return most


def _is_soon(uploads: list[float], seconds: float, workers: int) -> bool:
    assert all(a <= b for a, b in pairwise(uploads))
    free = [0.0] * workers
    soon = 0
    for at in uploads:
        begins = max(at, heapq.heappop(free))
        heapq.heappush(free, begins + seconds)
        soon += begins - at <= WAIT_SECONDS
    return soon >= SHARE * len(uploads)


def _message(number: int) -> bytes:
    """Return what a camera tells of a window with five detections."""
    moment = iso(time.time() - 5_000 + number)
    times = {"min": 0.0, "max": 0.2, "mean": 0.1, "std": 0.0, "percentiles": [0.1, 0.1, 0.1, 0.2]}
    body = {
        "id": f"a-{number}w",
        "edge": f"edge{number % 250}",
        "camera_metrics": {f"till-{number % 4}": {"certain": [3, 1], "uncertain": [0, 1]}},
        "latency_metrics": {"prep": times, "predict": times},
        "timestamp": moment,
        "window_start": moment,
        "classes": ["tea-green", "tea-lemon"],
        "config": {"window_size": 10, "threshold": 0.8, "model": "m", "model_version": 2},
    }
    return json.dumps({"metrics_json": json.dumps(body)}).encode()


if __name__ == "__main__":
    main()
