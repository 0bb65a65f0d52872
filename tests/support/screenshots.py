"""Pictures of every page, the app's and the dashboard, light and dark, from a real stack.

cd tests && python -m support.screenshots FOLDER
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from playwright.async_api import Browser, Page

from caravan.contracts import DEFAULT_MODEL
from lab.photos import render
from lab.samples.digits import digits, write_zip
from local_stack.stack import Stack
from support import dashboard_screenshots
from support.browser import DESKTOP, PHONE, SIGN_IN, chromium, draw, executable, live, upright, write_film
from support.pictures import SCHEMES, small
from support.platform import EDGE, Platform
from support.strokes import drawn

DEVICES: dict[str, dict[str, Any]] = {"phone": PHONE | {"device_scale_factor": 1}, "desktop": DESKTOP}
UNSURE = ("tea-green", "tea-licorice", "tea-earl-grey")
WIDTHS = {"phone": 312, "desktop": 720}
"""Pixels: enough to read, few enough to keep in the repository."""

Shoot = Callable[[str], Awaitable[None]]


async def main(folder: Path) -> None:
    """Take all pictures."""
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        lemon = write_film(Path(scratch, "lemon.y4m"), upright("tea-lemon", 6, 7_200_000), 2)
        green = write_film(Path(scratch, "green.y4m"), upright("tea-green", 6, 7_200_000), 2)
        async with _platform(Path(scratch)) as platform:
            url = platform.stack.url(f"shopper-{EDGE}")
            async with chromium() as nobody, chromium(lemon) as known, chromium(green) as unknown:
                for device in DEVICES:
                    for scheme in SCHEMES:
                        await _start(nobody, url, folder, device, scheme)
                        await _review(nobody, url, folder, device, scheme)
                        await _known(known, url, folder, device, scheme)
                        await _unknown(unknown, url, folder, device, scheme)
                await _teach_digits(platform)
                for device in DEVICES:
                    for scheme in SCHEMES:
                        await _draw(nobody, url, folder, device, scheme)
                await dashboard_screenshots.take(nobody, platform, folder)


@asynccontextmanager
async def _platform(scratch: Path) -> AsyncIterator[Platform]:
    async with (
        Stack(scratch / "home", edges=(EDGE, dashboard_screenshots.OTHER)) as stack,
        httpx.AsyncClient(timeout=60) as client,
    ):
        platform = Platform(stack, client, scratch)
        await platform.upload_until_taken(platform.archive(1, other=80, tea_lemon=40, tea_earl_grey=40))
        await platform.wait_serving(1)
        for number in range(24):
            await platform.detect(render(UNSURE[number % len(UNSURE)], 7_500_000 + number))
        yield platform


async def _teach_digits(platform: Platform) -> None:
    archive = platform.folder / "digits.zip"
    write_zip(archive, await asyncio.to_thread(digits))
    await platform.upload_until_taken(archive)
    await platform.wait_serving(2)


async def _start(browser: Browser, url: str, folder: Path, device: str, scheme: str) -> None:
    async with _page(browser, url, folder, device, scheme) as (page, shoot):
        await page.get_by_text("ready").wait_for()
        await shoot("start")
        await page.goto(f"{url}/login")
        await page.wait_for_selector(SIGN_IN)
        await shoot("login")
        await page.goto(f"{url}/models/{DEFAULT_MODEL}/latest/report")
        await shoot("report")


async def _draw(browser: Browser, url: str, folder: Path, device: str, scheme: str) -> None:
    async with _page(browser, url, folder, device, scheme) as (page, shoot):
        await page.goto(f"{url}/draw")
        await page.wait_for_selector("html[data-ready]", state="attached")
        await draw(page, drawn("3", 0, 1))
        await shoot("draw")


async def _review(browser: Browser, url: str, folder: Path, device: str, scheme: str) -> None:
    async with _page(browser, url, folder, device, scheme) as (page, shoot):
        await page.locator(".tabs a[href='#review']").click()
        for number in (0, 1, 4):
            await page.locator(".photo-choice").nth(number).click()
        await shoot("review")


async def _known(browser: Browser, url: str, folder: Path, device: str, scheme: str) -> None:
    async with _page(browser, url, folder, device, scheme) as (page, shoot):
        await live(page)
        for number in (1, 2, 3):
            await page.locator("#shutter").click()
            await page.locator(".entry, #price").first.wait_for()
            await page.wait_for_timeout(600 + number)  # the next photo of the film
        await shoot("scan")
        await page.get_by_role("button", name="tea_model_b64, version").click()
        await page.get_by_role("link", name="Report of version").first.wait_for()
        await shoot("models")
        await page.keyboard.press("Escape")
        await page.locator("#not-this").click()
        await page.get_by_role("radio", name="Lemon Tea").check(force=True)
        await shoot("tell")
        await page.keyboard.press("Escape")
        await page.locator(".tabs a[href='#history']").click()
        await page.locator(".entry").first.wait_for()
        await shoot("history")
        await page.locator("#open-settings").click()
        await page.get_by_role("dialog").wait_for()
        await shoot("settings")
        await page.keyboard.press("Escape")
        if device == "desktop":
            return
        await page.locator(".tabs a[href='#scan']").click()
        await page.context.set_offline(offline=True)
        await page.locator("#shutter").click()
        await page.locator("#kept").wait_for()
        await shoot("offline")


async def _unknown(browser: Browser, url: str, folder: Path, device: str, scheme: str) -> None:
    async with _page(browser, url, folder, device, scheme) as (page, shoot):
        await live(page)
        await page.locator("#shutter").click()
        await page.locator("#price").wait_for()
        await shoot("unknown")
        await page.locator(".tabs a[href='#teach']").click()
        await page.get_by_role("radio", name="Green Tea").check(force=True)
        for number in range(3):
            await page.locator("#shutter").click()
            await page.locator("#undo-count", has_text=str(number + 1)).wait_for()
        await page.locator("#count", has_text="3").wait_for()
        await shoot("teach")
        while await page.locator("#undo").is_enabled():
            await page.locator("#undo").click()
            await page.wait_for_timeout(100)


@asynccontextmanager
async def _page(
    browser: Browser, url: str, folder: Path, device: str, scheme: str
) -> AsyncIterator[tuple[Page, Shoot]]:
    context = await browser.new_context(
        **DEVICES[device],
        color_scheme=scheme,  # type: ignore[arg-type] # one of two words
        reduced_motion="reduce",
    )
    context.set_default_timeout(20_000)
    page = await context.new_page()
    await page.goto(f"{url}/")
    await page.wait_for_selector("html[data-ready]", state="attached")

    async def shoot(name: str) -> None:
        await page.wait_for_timeout(250)  # pictures have to be decoded
        picture = small(await page.screenshot(), WIDTHS[device])
        (folder / f"{name}-{device}-{scheme}.png").write_bytes(picture)

    yield page, shoot
    await context.close()


if __name__ == "__main__":
    if executable() is None:
        sys.exit("no chromium here: apt-get install chromium")
    asyncio.run(main(Path(sys.argv[1])))
