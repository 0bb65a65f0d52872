"""Browsers before the real platform; without Chromium these tests are skipped in one line."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from support import browser
from support.platform import EDGE, Platform, eventually
from support.ports import free_port
from support.stacks import environment_of

BrowserWith = Callable[[str], Awaitable[Browser]]
OpenPage = Callable[..., Awaitable[Page]]
Faults = Callable[[Page], Awaitable[list[str]]]
PATIENCE_MS = 60_000
"""For what never comes; a busy machine is no reason to fail."""
BROWSERS_OWN = (
    "Failed to load resource",  # whether it may fail is the test's business
    "Cross-Origin-Opener-Policy header has been ignored",  # as it has to be over plain http
)
NPM = Path(__file__).parents[2] / "services/shopper/npm/node_modules"
PACKAGES = ("axe-core", "mqtt")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what cannot be had here; of one place in the code, pytest says so in one line for all tests."""
    chromium = ["chromium: apt-get install chromium"] if browser.executable() is None else []
    packages = [] if all((NPM / name).is_dir() for name in PACKAGES) else ["npm's packages: make web"]
    if chromium or (packages and "npm" in getattr(item, "fixturenames", ())):
        pytest.skip(f"not here: {'; '.join(chromium + packages)}")


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


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser_with(films: Callable[[str], Path]) -> AsyncIterator[BrowserWith]:
    """A browser for each film that a camera sees, none for none; started once."""
    expect.set_options(timeout=PATIENCE_MS)
    async with AsyncExitStack() as exits:
        browsers: dict[str, Browser] = {}

        async def started(film: str) -> Browser:
            if film not in browsers:
                chromium = browser.chromium(films(film) if film else None)
                browsers[film] = await exits.enter_async_context(chromium)
            return browsers[film]

        yield started


@pytest_asyncio.fixture(loop_scope="session")
async def open_page(platform: Platform, browser_with: BrowserWith) -> AsyncIterator[OpenPage]:
    """Open the app as someone new: `page = await open_page("tea-lemon")` has a camera that sees it.

    At the end no page may have met an error, broken the content security policy, or asked another host.
    """
    async with AsyncExitStack() as exits:
        complaints: list[str] = []

        async def open_(
            film: str = "", url: str = "", *, path: str = "", until: str = "html[data-ready]", **options: Any
        ) -> Page:
            base = url or platform.stack.url(f"shopper-{EDGE}") + "/"
            chrome = await browser_with(film)
            context = await exits.enter_async_context(await chrome.new_context(**(browser.PHONE | options)))
            context.set_default_timeout(PATIENCE_MS)
            page = await context.new_page()
            _watch(page, base, complaints)
            await page.goto(base + path)
            await page.wait_for_selector(until, state="attached")
            return page

        yield open_
    assert complaints == []


def _watch(page: Page, base: str, complaints: list[str]) -> None:
    def heard(message: Any) -> None:
        if message.type == "error" and not any(line in message.text for line in BROWSERS_OWN):
            complaints.append(message.text)

    def asked(request: Any) -> None:
        if not request.url.startswith((base, "blob:", "data:")):
            complaints.append(f"asked {request.url}")

    def linked(websocket: Any) -> None:
        # The edge's broker, at a port of its own.
        if urlsplit(websocket.url).hostname != urlsplit(base).hostname:
            complaints.append(f"linked to {websocket.url}")

    page.on("console", heard)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("websocket", linked)
    page.context.on("request", asked)


@pytest.fixture(scope="session")
def npm() -> Path:
    """The folder of npm's packages; tests that ask for it are skipped where it is not."""
    return NPM


@pytest.fixture(scope="session")
def faults(npm: Path) -> Faults:
    """What axe-core finds serious or critical on a page as it is now: `await faults(page)` is empty."""
    axe = (npm / "axe-core" / "axe.min.js").read_text()

    async def find(page: Page) -> list[str]:
        await browser.until(page, "document.getAnimations().every((one) => one.playState !== 'running')")
        # Through the protocol, not as a script of the page: its policy forbids those, as it should.
        await page.evaluate(axe)
        found = await page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        return [
            f"{rule['id']}: {[node['target'] for node in rule['nodes']]}"
            for rule in found["violations"]
            if rule["impact"] in {"serious", "critical"}
        ]

    return find


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def guarded_shopper(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """The address of one more shopper at the platform's edge: its door opens for Ann's token alone."""
    spool = {"SPOOL_DIR": str(tmp_path_factory.mktemp("guarded"))}
    async with _guarded(platform, "shopper", f"shopper-{EDGE}", spool) as url:
        yield url


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def guarded_hub(platform: Platform) -> AsyncIterator[str]:
    """The address of one more hub with its dashboard: its door opens for Ann's token alone."""
    async with _guarded(platform, "monitor", "hub", {}) as url:
        yield url


@asynccontextmanager
async def _guarded(
    platform: Platform, module: str, part: str, settings: Mapping[str, str]
) -> AsyncIterator[str]:
    """Run one more of a part of the platform, behind a token."""
    port = free_port()
    own = {"PORT": str(port), "TOKENS": f"ann:{browser.TOKEN}", **settings}
    environment = os.environ | environment_of(platform.stack, part) | own
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", module, env=environment)
    url = f"http://127.0.0.1:{port}"

    async def ready() -> bool:
        try:
            return (await platform.client.get(f"{url}/readyz")).is_success
        except httpx.TransportError:
            return False

    try:
        await eventually(ready, 60)
        yield url
    finally:
        process.terminate()
        async with asyncio.timeout(30):
            assert await process.wait() == 0


@pytest.fixture
def picture_file(tmp_path: Path) -> Callable[..., Path]:
    """Write a picture to a file: `picture_file("a.jpg", image, exif=…)`."""

    def write(name: str, image: Any, **options: Any) -> Path:
        image.save(tmp_path / name, **options)
        return tmp_path / name

    return write
