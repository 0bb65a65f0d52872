"""How soon the shopper's app can be used on a slow phone: `python tests/bench/bench_app_start.py [times]`.

Serves the pages alone, and opens them anew in Chromium: as the machine is, then at a quarter of its speed
over a slow 4G (1.6 Mbit/s down, 0.75 up, 150 ms there and back). Prints medians; nothing is asserted.
"""

import asyncio
import statistics
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from obstore.store import MemoryStore
from playwright.async_api import Browser

sys.path.insert(0, str(Path(__file__).parents[1]))

from caravan import http
from caravan.sessions import Sessions
from caravan.tokens import Tokens
from shopper.catalogue_file import CatalogueFile
from shopper.doors import page as page_api
from shopper.doors.relay import EventRelay
from shopper.doors.web import PageSettings
from shopper.storage.counts import TrainingCounts
from support.browser import PHONE, chromium, executable

SLOWER = 4
SLOW_4G = {
    "offline": False,
    "latency": 150,
    "downloadThroughput": 1.6e6 / 8,
    "uploadThroughput": 0.75e6 / 8,
}
SEEN = """() => {
  const at = (name) => performance.getEntriesByName(name)[0].startTime;
  const files = performance.getEntries().filter((one) => "transferSize" in one);
  return {
    painted: at("first-contentful-paint"), interactive: at("interactive"), files: files.length,
    bytes: files.reduce((sum, one) => sum + one.transferSize, 0),
  };
}"""


@asynccontextmanager
async def pages() -> AsyncIterator[str]:
    """Serve the pages, with nothing behind them."""
    app = FastAPI()
    http.install(app, {})
    sessions = Sessions(Tokens({}), "shopper")
    count = TrainingCounts(MemoryStore())
    relay = EventRelay()
    page_api.install(
        app, page=PageSettings(), sessions=sessions, relay=relay, count=count, catalogue_file=CatalogueFile()
    )
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", lifespan="off"))
    server.config.load()
    socket = server.config.bind_socket()
    serving = asyncio.create_task(server.serve([socket]))
    try:
        yield f"http://127.0.0.1:{socket.getsockname()[1]}/"
    finally:
        relay.close()
        server.should_exit = True
        await serving


async def opened(browser: Browser, url: str, *, slow: bool) -> dict[str, Any]:
    """Open the app as someone who was never here; return when what was there, in milliseconds."""
    # Without the worker: what it lays in store afterwards is no part of the first page.
    context = await browser.new_context(**PHONE, service_workers="block")
    page = await context.new_page()
    if slow:
        session = await context.new_cdp_session(page)
        await session.send("Network.enable")
        await session.send("Network.emulateNetworkConditions", SLOW_4G)
        await session.send("Emulation.setCPUThrottlingRate", {"rate": SLOWER})
    await page.goto(url)
    await page.wait_for_selector("html[data-ready]", state="attached")
    seen: dict[str, Any] = await page.evaluate(SEEN)
    await context.close()
    return seen


async def main(times: int) -> None:
    """Measure and print."""
    async with pages() as url, chromium() as browser:
        await opened(browser, url, slow=False)  # the browser itself warms up
        for name, slow in (("as it is", False), ("slow phone", True)):
            runs = [await opened(browser, url, slow=slow) for _ in range(times)]
            median = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
            print(  # noqa: T201 # this is what it is for
                f"{name:>10}: painted after {median['painted']:.0f} ms, interactive after "
                f"{median['interactive']:.0f} ms; {median['files']:.0f} files, {median['bytes']:.0f} bytes"
            )


if __name__ == "__main__":
    if executable() is None:
        sys.exit("no chromium here: apt-get install chromium")
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 5))
