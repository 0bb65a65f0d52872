"""Pictures of the dashboard, on a wall and on a phone, light and dark, with real things going on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from playwright.async_api import Browser

from caravan import kafka
from caravan.settings import KafkaSettings
from local_stack.photos import render
from support.browser import PHONE
from support.pictures import SCHEMES, small
from support.platform import EDGE, Platform

DEVICES: dict[str, dict[str, Any]] = {
    "wall": {"viewport": {"width": 1920, "height": 1080}},
    "phone": PHONE | {"device_scale_factor": 1.5},
}
WIDTHS = {"wall": 1440, "phone": 390}
PRODUCTS = ("tea-lemon", "tea-earl-grey", "other", "tea-licorice")
CAMERAS = 5
FILMED_SECONDS = 90
"""Some windows of each camera, for the charts to have lines."""


async def take(browser: Browser, platform: Platform, folder: Path) -> None:
    """Let cameras film, put a letter aside, send photos of a new product, and take pictures meanwhile."""
    await _put_aside(platform)
    async with _filming(platform):
        await asyncio.sleep(FILMED_SECONDS)
        await platform.upload_until_taken(platform.archive(61, other=24, tea_green=40))
        for device in DEVICES:
            for scheme in SCHEMES:
                await _shoot(browser, platform, folder, device, scheme)


async def _shoot(browser: Browser, platform: Platform, folder: Path, device: str, scheme: str) -> None:
    context = await browser.new_context(
        **DEVICES[device],
        color_scheme=scheme,  # type: ignore[arg-type] # one of two words
    )
    context.set_default_timeout(60_000)
    page = await context.new_page()
    await page.goto(platform.stack.url("hub"))
    await page.wait_for_selector("html[data-live]", state="attached")
    await page.wait_for_timeout(4000)  # until something moves
    picture = small(await page.screenshot(), WIDTHS[device])
    await asyncio.to_thread((folder / f"dashboard-{device}-{scheme}.png").write_bytes, picture)
    await context.close()


async def _put_aside(platform: Platform) -> None:
    headers = {"dead-letter-reason": "the event is not JSON", "dead-letter-route": "bridge"}
    async with kafka.Producer(KafkaSettings(kafka_bootstrap_servers=platform.stack.kafka)) as producer:
        await producer.send(f"{EDGE}-dead-letter", b"<event>sold out</event>", headers=headers)


@asynccontextmanager
async def _filming(platform: Platform) -> AsyncIterator[None]:
    photos = [render(product, 9_000_000 + number) for product in PRODUCTS for number in range(4)]
    shopper = platform.stack.url(f"shopper-{EDGE}")

    async def film(camera: int) -> None:
        number = camera
        while True:
            photo = photos[number % len(photos)]
            headers = {"camera": f"till-{camera + 1}"}
            await platform.client.post(f"{shopper}/binary", content=photo, headers=headers)
            number += 3
            await asyncio.sleep(0.4 + 0.1 * camera)

    filming = [asyncio.create_task(film(camera)) for camera in range(CAMERAS)]
    try:
        yield
    finally:
        for task in filming:
            task.cancel()
        for task in filming:
            with suppress(asyncio.CancelledError):
                await task
