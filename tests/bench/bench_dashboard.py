"""Measure the dashboard while thousands of events a second are on their way.

Run it with `make bench`. It starts what it needs on free ports, looks at the page with Chromium as on a
wall, and asserts nothing; without Chromium it says so. Compare the rows: machines differ and are noisy.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import httpx
from playwright.async_api import CDPSession, Page
from rich.console import Console
from rich.table import Table

from caravan import kafka
from caravan.settings import KafkaSettings
from local_stack.stack import Stack
from support.browser import chromium, executable

EDGES = ("edge1", "edge2")
EVENTS_PER_SECOND = 3000
SECONDS = 20
TICK_SECONDS = 0.1
MIB = 2**20
COUNT_FRAMES = """() => {
  window.frames_ = [];
  const tick = (now) => { window.frames_.push(now); requestAnimationFrame(tick); };
  requestAnimationFrame(tick);
}"""


async def main() -> None:
    """Look at the page when nothing happens, when much does, and afterwards."""
    table = Table("when", "events/s", "frames/s", "longest frame", "page's heap", "process")
    with tempfile.TemporaryDirectory() as folder:
        async with (
            Stack(Path(folder), edges=EDGES, parts=("hub",)) as stack,
            chromium() as browser,
            httpx.AsyncClient() as http,
        ):
            page = await browser.new_page(viewport={"width": 1920, "height": 1080})
            await page.goto(stack.url("hub"))
            await page.wait_for_selector("html[data-live]", state="attached")
            cdp = await page.context.new_cdp_session(page)
            await page.evaluate(COUNT_FRAMES)
            for when, events_per_second in (("before", 0), ("during", EVENTS_PER_SECOND), ("after", 0)):
                await page.evaluate("frames_.length = 0")
                sent = await _send(stack, events_per_second)
                row = [f"{sent / SECONDS:,.0f}", *await _frames(page), *await _memory(cdp, http, stack)]
                table.add_row(when, *row)
    Console().print(table)


async def _send(stack: Stack, events_per_second: int) -> int:
    """Write events for some seconds; returns how many."""
    settings = KafkaSettings(kafka_bootstrap_servers=stack.kafka)
    events = [json.dumps({"name": name}).encode() for name in ("zipfile", "zipfile", "pipeline")]
    each = round(events_per_second * TICK_SECONDS)
    sent = 0
    began = time.monotonic()
    async with kafka.Producer(settings) as producer:
        while (now := time.monotonic()) < began + SECONDS:
            sends = [producer.send(EDGES[number % 2], events[number % 3]) for number in range(each)]
            await asyncio.gather(*sends)
            sent += each
            await asyncio.sleep(max(0.0, now + TICK_SECONDS - time.monotonic()))
    return sent


async def _frames(page: Page) -> Sequence[str]:
    times: list[float] = await page.evaluate("frames_")
    between = [later - earlier for earlier, later in itertools.pairwise(times)]
    return f"{1000 * len(between) / sum(between):.0f}", f"{max(between):.0f} ms"


async def _memory(cdp: CDPSession, http: httpx.AsyncClient, stack: Stack) -> Sequence[str]:
    await cdp.send("HeapProfiler.collectGarbage")
    heap = (await cdp.send("Runtime.getHeapUsage"))["usedSize"]
    metrics = (await http.get(f"{stack.url('hub')}/metrics")).text
    (resident,) = [line for line in metrics.splitlines() if line.startswith("process_resident_memory_bytes")]
    return f"{heap / MIB:.1f} MiB", f"{float(resident.split()[1]) / MIB:.0f} MiB"


if __name__ == "__main__":
    if executable() is None:
        Console().print("no chromium here: apt-get install chromium")
    else:
        asyncio.run(main())
