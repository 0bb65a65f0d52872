"""Measure the dashboard while thousands of events a second are on their way.

It starts what it needs on free ports, looks at the page with Chromium as on a
wall, and asserts nothing; without Chromium it says so. Compare the rows: machines differ and are noisy.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import tempfile
import time
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
    table = Table("when", "events/s", "read/s", "frames/s", "longest frame", "page's heap", "process")
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
            read = 0.0
            for when, events_per_second in (("before", 0), ("during", EVENTS_PER_SECOND), ("after", 0)):
                await page.evaluate("frames_.length = 0")
                sent = await _send(stack, events_per_second)
                frames, longest = await _frames(page)
                metrics = (await http.get(f"{stack.url('hub')}/metrics")).text
                read_before, read = read, _metric(metrics, "monitor_dashboard_events_total")
                table.add_row(
                    when,
                    f"{sent / SECONDS:,.0f}",
                    f"{(read - read_before) / SECONDS:,.0f}",
                    f"{frames:.0f}",
                    f"{longest:.0f} ms",
                    f"{await _heap(cdp) / MIB:.1f} MiB",
                    f"{_metric(metrics, 'process_resident_memory_bytes') / MIB:.0f} MiB",
                )
    Console().print(table)


async def _send(stack: Stack, events_per_second: int) -> int:
    """Write events for some seconds; returns how many."""
    settings = KafkaSettings(kafka_bootstrap_servers=stack.kafka)
    events = [json.dumps({"name": name}).encode() for name in ("zipfile", "zipfile", "pipeline")]
    sent = 0
    began = time.monotonic()
    async with kafka.Producer(settings) as producer:
        while (now := time.monotonic()) < began + SECONDS:
            due = round((now - began) * events_per_second)
            sends = [producer.send(EDGES[number % 2], events[number % 3]) for number in range(sent, due)]
            await asyncio.gather(*sends)
            sent = due
            await asyncio.sleep(max(0.0, now + TICK_SECONDS - time.monotonic()))
    return sent


async def _frames(page: Page) -> tuple[float, float]:
    """Return frames a second, and the longest time between two, in milliseconds."""
    times: list[float] = await page.evaluate("frames_")
    between = [later - earlier for earlier, later in itertools.pairwise(times)]
    return 1000 * len(between) / sum(between), max(between)


async def _heap(cdp: CDPSession) -> float:
    await cdp.send("HeapProfiler.collectGarbage")
    used: float = (await cdp.send("Runtime.getHeapUsage"))["usedSize"]
    return used


def _metric(metrics: str, name: str) -> float:
    """Return a metric, summed up over its labels."""
    return sum(
        float(line.split()[-1]) for line in metrics.splitlines() if line.startswith((f"{name} ", f"{name}{{"))
    )


if __name__ == "__main__":
    if executable() is None:
        Console().print("no chromium here: apt-get install chromium")
    else:
        asyncio.run(main())
