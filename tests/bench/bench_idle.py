"""What the stack costs while nothing happens: `python tests/bench/bench_idle.py [--edges 1] [--seconds 60]`.

Starts a stack on free ports, lets it come to rest, and prints how many seconds of CPU each part takes in a
minute, with all of its children, user and system time alike, and the sums as a line of JSON. Nothing is
asserted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from local_stack.stack import Stack

REST_SECONDS = 120
"""After a start: groups are joined, caches filled, pauses and waits for Kafka have grown to their longest."""
SERVICES = ("feeder", "delivery", "edge-manager", "shopper", "monitor")
MINUTE = 60
SUPERVISOR = "supervisor"


async def main(edges: int, seconds: float, rest: float) -> None:
    """Start it, wait, and print one table."""
    names = tuple(f"edge{number}" for number in range(1, edges + 1))
    with tempfile.TemporaryDirectory() as home:
        async with Stack(Path(home), edges=names) as stack:
            await asyncio.sleep(rest)
            before = spent(stack)
            await asyncio.sleep(seconds)
            after = spent(stack)
    used = {part: (after[part] - before[part]) * MINUTE / seconds for part in before}
    table = Table("part", "CPU, s a minute")
    for part, cpu in sorted(used.items(), key=lambda item: -item[1]):
        table.add_row(part, f"{cpu:.2f}")
    services = sum(cpu for part, cpu in used.items() if part.startswith(SERVICES))
    table.add_section()
    table.add_row("the five services", f"{services:.2f}")
    table.add_row("all of it", f"{sum(used.values()):.2f}")
    Console(stderr=True).print(table)
    sys.stdout.write(json.dumps({"services": round(services, 2), "all": round(sum(used.values()), 2)}) + "\n")


def spent(stack: Stack) -> dict[str, float]:
    """Return the CPU seconds that each part has taken in its life."""
    state = stack.state
    parts = {part.name: _whole(psutil.Process(part.pid)) for part in state.parts if part.pid is not None}
    return parts | {SUPERVISOR: _own(psutil.Process(state.pid))}


def _whole(process: psutil.Process) -> float:
    total = _own(process)
    for child in process.children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # then it counts among those that its parent has waited for
            total += _own(child)
    return total


def _own(process: psutil.Process) -> float:
    """Return what a process took, and those of its children that have ended."""
    times = process.cpu_times()
    return float(times.user + times.system + times.children_user + times.children_system)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure what the stack costs while nothing happens.")
    parser.add_argument("--edges", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60, help="how long to measure")
    parser.add_argument("--rest", type=float, default=REST_SECONDS, help="how long to wait before")
    chosen = parser.parse_args()
    asyncio.run(main(chosen.edges, chosen.seconds, chosen.rest))
