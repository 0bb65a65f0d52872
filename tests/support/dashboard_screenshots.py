"""Pictures of the dashboard, on a wall and on a phone, light and dark, with real things going on."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from playwright.async_api import Browser

from caravan import kafka
from caravan.settings import KafkaSettings
from lab.photos import render
from support.browser import PHONE
from support.pictures import SCHEMES, smooth
from support.platform import EDGE, Platform

DEVICES: dict[str, dict[str, Any]] = {
    "wall": {"viewport": {"width": 1920, "height": 1080}},
    "phone": PHONE | {"device_scale_factor": 1.5},
}
WIDTHS = {"wall": 1280, "phone": 390}
PRODUCTS = ("tea-lemon", "tea-earl-grey", "other", "tea-licorice")
OTHER = "edge2"
CAMERAS = {EDGE: 3, OTHER: 2}
FILMED_SECONDS = 100
"""Some windows of each camera, for the charts to have lines."""


async def take(browser: Browser, platform: Platform, folder: Path) -> None:
    """Take pictures while cameras film at two edges, a letter waits, and a new product is learnt."""
    await _send_dead_letter(platform)
    # It has seen less than the other edge, so that there is something to be unsure of.
    await _upload(platform, OTHER, platform.archive(62, other=40, tea_lemon=30, tea_licorice=30))
    new = platform.archive(61, other=24, tea_green=40)
    async with _filming(platform):
        await asyncio.sleep(FILMED_SECONDS)
        await _upload(platform, EDGE, new)
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
    picture = smooth(await page.screenshot(), WIDTHS[device])
    await asyncio.to_thread((folder / f"dashboard-{device}-{scheme}.webp").write_bytes, picture)
    await context.close()


async def _upload(platform: Platform, edge: str, archive: Path) -> None:
    content = await asyncio.to_thread(archive.read_bytes)
    url = f"{platform.stack.url('feeder')}/zip?edgeId={edge}"
    (await platform.client.put(url, content=content)).raise_for_status()


async def _send_dead_letter(platform: Platform) -> None:
    headers = {"dead-letter-reason": "the event is not JSON", "dead-letter-route": "bridge"}
    async with kafka.Producer(KafkaSettings(kafka_bootstrap_servers=platform.stack.kafka)) as producer:
        await producer.send(f"{EDGE}-dead-letter", b"<event>sold out</event>", headers=headers)


@asynccontextmanager
async def _filming(platform: Platform) -> AsyncIterator[None]:
    photos = [render(product, 9_000_000 + number) for product in PRODUCTS for number in range(4)]

    async def film(edge: str, camera: int) -> None:
        url = f"{platform.stack.url(f'shopper-{edge}')}/binary"
        for photo in itertools.islice(itertools.cycle(photos), camera, None, 3):
            await platform.client.post(url, content=photo, headers={"camera": f"till-{camera + 1}"})
            await asyncio.sleep(0.4 + 0.1 * camera)

    filming = [
        asyncio.create_task(film(edge, camera))
        for edge, cameras in CAMERAS.items()
        for camera in range(cameras)
    ]
    try:
        yield
    finally:
        for task in filming:
            task.cancel()
        for task in filming:
            with suppress(asyncio.CancelledError):
                await task
