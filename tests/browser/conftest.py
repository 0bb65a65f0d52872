"""Browsers before the real platform; without Chromium these tests are skipped in one line."""

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page

from support import browser
from support.platform import EDGE, Platform, eventually

OpenPage = Callable[..., Awaitable[Page]]
Faults = Callable[[Page], Awaitable[list[str]]]
StartShopper = Callable[[Mapping[str, str]], Awaitable[str]]
PATIENCE_MS = 20_000
AXE = Path(__file__).parents[2] / "services/shopper/npm/node_modules/axe-core/axe.min.js"


@pytest.fixture(scope="session", autouse=True)
def _chromium_is_here() -> None:
    if browser.executable() is None:
        pytest.skip("no chromium here: apt-get install chromium")


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Films of a product, made once each: what a camera sees."""
    folder = tmp_path_factory.mktemp("films")

    def film(product: str) -> Path:
        path = folder / f"{product}.y4m"
        if not path.exists():
            browser.write_film(path, browser.upright(product, 36, 7_000_000))
        return path

    return film


@pytest_asyncio.fixture(loop_scope="session")
async def open_page(platform: Platform, films: Callable[[str], Path]) -> AsyncIterator[OpenPage]:
    """Open the app: `page = await open_page("tea-lemon")` has a camera that sees it.

    At the end no page may have met an error, broken the content security policy, or asked another host.
    """
    async with AsyncExitStack() as exits:
        complaints: list[str] = []

        async def open_(
            film: str = "", url: str = "", *, path: str = "", expect: str = "html[data-ready]", **options: Any
        ) -> Page:
            base = url or platform.stack.url(f"shopper-{EDGE}") + "/"
            chrome: Browser = await exits.enter_async_context(browser.chromium(films(film) if film else None))
            context: BrowserContext = await chrome.new_context(**(browser.PHONE | options))
            context.set_default_timeout(PATIENCE_MS)
            page = await context.new_page()
            _watch(page, base, complaints)
            await page.goto(base + path)
            await page.wait_for_selector(expect, state="attached")
            return page

        yield open_
    assert complaints == []


def _watch(page: Page, base: str, complaints: list[str]) -> None:
    def heard(message: Any) -> None:
        # A request that fails is the browser's own line; whether it may fail is the test's business.
        if message.type == "error" and "Failed to load resource" not in message.text:
            complaints.append(message.text)

    def asked(request: Any) -> None:
        if not request.url.startswith((base, "blob:", "data:")):
            complaints.append(f"asked {request.url}")

    page.on("console", heard)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.context.on("request", asked)


@pytest.fixture(scope="session")
def faults() -> Faults:
    """What axe-core finds serious or critical on a page as it is now: `await faults(page)` is empty."""
    if not AXE.is_file():
        pytest.skip("axe-core is not here: make web")
    axe = AXE.read_text()

    async def find(page: Page) -> list[str]:
        # Through the protocol, not as a script of the page: its policy forbids those, as it should.
        await page.wait_for_function("document.getAnimations().every((one) => one.playState !== 'running')")
        await page.evaluate(axe)
        found = await page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        return [
            f"{rule['id']}: {[node['target'] for node in rule['nodes']]}"
            for rule in found["violations"]
            if rule["impact"] in {"serious", "critical"}
        ]

    return find


@pytest_asyncio.fixture(loop_scope="session")
async def start_shopper(platform: Platform, tmp_path: Path) -> AsyncIterator[StartShopper]:
    """Start one more shopper at the platform's edge, with settings of its own; returns its address."""
    started: list[asyncio.subprocess.Process] = []

    async def start(settings: Mapping[str, str]) -> str:
        port = _free_port()
        own = {"PORT": str(port), "SPOOL_DIR": str(tmp_path / "spool"), **settings}
        environment = os.environ | platform.stack.env_for(f"shopper-{EDGE}") | own
        started.append(await asyncio.create_subprocess_exec(sys.executable, "-m", "shopper", env=environment))
        url = f"http://127.0.0.1:{port}"

        async def ready() -> bool:
            try:
                return (await platform.client.get(f"{url}/readyz")).is_success
            except httpx.TransportError:
                return False

        await eventually(ready, 30)
        return url

    yield start
    for process in started:
        process.terminate()
        async with asyncio.timeout(20):
            assert await process.wait() == 0


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture
def picture_file(tmp_path: Path) -> Callable[..., Path]:
    """Write a picture to a file: `picture_file("a.jpg", image, exif=…)`."""

    def write(name: str, image: Any, **options: Any) -> Path:
        image.save(tmp_path / name, **options)
        return tmp_path / name

    return write
