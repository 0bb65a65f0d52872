"""A real browser, Debian's Chromium, with rendered photos before its camera."""

from __future__ import annotations

import io
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from playwright.async_api import Browser, Page, async_playwright

from lab.photos import render
from support.platform import eventually

WIDTH, HEIGHT = 480, 640
PHONE: dict[str, Any] = {
    "viewport": {"width": 390, "height": 844},
    "device_scale_factor": 2,
    "is_mobile": True,
    "has_touch": True,
}
LAN_HOST = "shop.example"
LAN = f"--host-resolver-rules=MAP {LAN_HOST} 127.0.0.1"
"""A name for this machine that browsers do not trust as they trust localhost."""
TOKEN = "only-for-the-phone-of-ann"
SIGN_IN = "#login button:enabled"
"""What is there once the page of the sign-in can be used."""
DESKTOP: dict[str, Any] = {
    "viewport": {"width": 1280, "height": 800},
    "device_scale_factor": 1,
    "is_mobile": False,
    "has_touch": False,
}


def executable() -> str | None:
    """Return where Chromium is; None where there is none."""
    return shutil.which("chromium")


@asynccontextmanager
async def chromium(film: Path | None = None) -> AsyncIterator[Browser]:
    """Run Chromium without a window; `film` is what its camera sees, in a loop."""
    camera = [
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-video-capture={film}",
    ]
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=executable(), args=["--no-sandbox", LAN, *(camera if film else [])]
        )
        try:
            yield browser
        finally:
            await browser.close()


async def live(page: Page) -> None:
    """Start the camera, unless it starts by itself."""
    await page.locator("#start").dispatch_event("click")
    await page.locator("#video").wait_for()


async def until(page: Page, expression: str) -> None:
    """Wait until an expression holds in a page.

    Asked anew each time: waiting within the page needs `eval`, which its policy forbids.
    """

    async def holds() -> bool:
        return bool(await page.evaluate(expression))

    await eventually(holds, 60)


async def draw(page: Page, strokes: Sequence[NDArray[np.float64]]) -> None:
    """Draw strokes with the mouse, in shares of the paper, and wait for the model's opinion of them."""
    paper = await page.locator("#paper").bounding_box()
    assert paper is not None
    for stroke in strokes:
        points = [(paper["x"] + x * paper["width"], paper["y"] + y * paper["height"]) for x, y in stroke]
        await page.mouse.move(*points[0])
        await page.mouse.down()
        for point in points[1:]:
            await page.mouse.move(*point)
        await page.mouse.up()
    await page.locator("#answer[aria-busy=false]").wait_for()


def upright(product: str, count: int, seed: int) -> list[bytes]:
    """Render photos that are taller than wide, as a phone's camera gives them: JPEG, 3 to 4."""
    photos: list[bytes] = []
    while len(photos) < count:
        photo = render(product, seed)
        seed += 1
        if Image.open(io.BytesIO(photo)).size == (324, 432):
            photos.append(photo)
    return photos


def write_film(path: Path, photos: Sequence[bytes], frames_per_second: int = 4) -> Path:
    """Write a film of photos, one each frame, as YUV4MPEG2 of 480 x 640, 4:2:0."""
    with path.open("wb") as film:
        film.write(f"YUV4MPEG2 W{WIDTH} H{HEIGHT} F{frames_per_second}:1 Ip A1:1 C420mpeg2\n".encode())
        for photo in photos:
            film.write(b"FRAME\n" + _planes(Image.open(io.BytesIO(photo))))
    return path


def _planes(image: Image.Image) -> bytes:
    """Return Y, U and V of a picture, ITU-R BT.601 with its limited range."""
    full = image.convert("RGB").resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS).convert("YCbCr")
    luma, *chroma = full.split()
    limited = [16 + np.asarray(luma, np.float32) * (219 / 255)]
    for plane in chroma:
        half = plane.resize((WIDTH // 2, HEIGHT // 2), Image.Resampling.BOX)
        limited.append(128 + (np.asarray(half, np.float32) - 128) * (224 / 255))
    return b"".join(np.rint(plane).clip(0, 255).astype(np.uint8).tobytes() for plane in limited)
