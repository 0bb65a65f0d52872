"""Measure the whole platform: uploads, detections, and how long a new product takes to be known.

It renders its own photos, starts a stack on free ports, and asserts nothing; read
the ratios rather than the times, as machines differ and are noisy.
"""

from __future__ import annotations

import asyncio
import base64
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
from rich.console import Console
from rich.table import Table

from lab.photos import render, render_zip
from local_stack.stack import Stack

DETECTIONS = 300
CALLERS = (1, 16)
FIRST = {"other": 120, "tea-lemon": 60, "tea-earl-grey": 60}
NEW = {"tea-green": 60}


async def main() -> None:
    """Run it all and print one table."""
    table = Table("what", "figure")
    with tempfile.TemporaryDirectory() as folder:
        first, new = Path(folder, "first.zip"), Path(folder, "new.zip")
        render_zip(first, FIRST, 1)
        render_zip(new, NEW, 2)
        async with Stack(Path(folder, "home")) as stack, httpx.AsyncClient(timeout=120) as http:
            await _uploads(stack, http, first, table)
            await _until(lambda: _answers(stack, http, render("tea-lemon", 7), "Lemon Tea: 4.99"))
            await _detections(stack, http, table)
            began = time.perf_counter()
            await _upload(stack, http, new)
            await _until(lambda: _answers(stack, http, render("tea-green", 7), "Green Tea: 2.99"))
            table.add_row("upload of a new product until it is known", f"{time.perf_counter() - began:.1f} s")
    Console().print(table)


async def _uploads(stack: Stack, http: httpx.AsyncClient, archive: Path, table: Table) -> None:
    count = sum(FIRST.values())
    first, again = [await _upload(stack, http, archive) for _ in range(2)]
    table.add_row(f"upload of {count} photos", f"{first:.2f} s, {count / first:.0f} photos/s")
    table.add_row("the same again, all duplicates", f"{again:.2f} s, ratio {again / first:.2f}")


async def _upload(stack: Stack, http: httpx.AsyncClient, archive: Path) -> float:
    began = time.perf_counter()
    content = await asyncio.to_thread(archive.read_bytes)
    answer = await http.put(f"{stack.url('feeder')}/zip?edgeId=edge1", content=content)
    answer.raise_for_status()
    return time.perf_counter() - began


async def _detections(stack: Stack, http: httpx.AsyncClient, table: Table) -> None:
    """Compare the shopper with the model server behind it: what it adds is checking, pricing and keeping."""
    photo = render("tea-lemon", 8)
    rest = f"{stack.url('model-server-edge1', 'rest')}/v1/models/tea_model_b64:predict"
    body = {"instances": [{"b64": base64.b64encode(photo).decode()}]}
    asks: dict[str, Callable[[], Awaitable[httpx.Response]]] = {
        "model server, REST": lambda: http.post(rest, json=body),
        "shopper, /binary": lambda: http.post(f"{stack.url('shopper-edge1')}/binary", content=photo),
    }
    for callers in CALLERS:
        rates = []
        for name, ask in asks.items():
            times, took = await _load(ask, callers)
            rates.append(DETECTIONS / took)
            p50, p99 = statistics.median(times), statistics.quantiles(times, n=100)[98]
            figure = f"{rates[-1]:.0f}/s, p50 {p50 * 1000:.0f} ms, p99 {p99 * 1000:.0f} ms"
            table.add_row(f"{name}, {callers} at once", figure)
        table.add_row(f"shopper : model server, {callers} at once", f"ratio {rates[1] / rates[0]:.2f}")


async def _load(ask: Callable[[], Awaitable[httpx.Response]], callers: int) -> tuple[list[float], float]:
    times: list[float] = []
    left = iter(range(DETECTIONS))

    async def caller() -> None:
        for _ in left:
            began = time.perf_counter()
            (await ask()).raise_for_status()
            times.append(time.perf_counter() - began)

    (await ask()).raise_for_status()
    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return times, time.perf_counter() - began


async def _answers(stack: Stack, http: httpx.AsyncClient, photo: bytes, pricetag: str) -> bool:
    answer = await http.post(f"{stack.url('shopper-edge1')}/binary", content=photo)
    return answer.is_success and answer.json()["pricetag"] == pricetag


async def _until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(180):
        while not await holds():
            await asyncio.sleep(0.2)


if __name__ == "__main__":
    asyncio.run(main())
