"""The app without a network: it opens, keeps photos, and sends each once when the network is back."""

from typing import Any

import pytest
from playwright.async_api import expect

from support.browser import live
from support.platform import EDGE, Platform, eventually

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]


async def test_photos_taken_offline_are_sent_once_when_the_network_is_back(
    platform: Platform, open_page: Any
) -> None:
    page = await open_page("tea-lemon")
    await page.evaluate("navigator.serviceWorker.ready.then(() => true)")
    before = set(await platform.edge("valid", "images/"))
    await page.context.set_offline(offline=True)

    await page.reload()
    await page.wait_for_selector("html[data-ready]", state="attached")
    await expect(page.locator("#state")).to_have_text("offline")
    await live(page)
    for number in (1, 2):
        await page.locator("#shutter").click()
        await expect(page.locator("#kept")).to_contain_text("Kept for later")
        await expect(page.locator("#waiting")).to_have_text(f"{number} waiting")
    assert set(await platform.edge("valid", "images/")) == before

    await page.context.set_offline(offline=False)
    await expect(page.locator("#waiting")).to_be_hidden()

    async def kept_twice() -> bool:
        return len(set(await platform.edge("valid", "images/")) - before) == 2

    await eventually(kept_twice, 20)
    await page.locator(".tabs a[href='#history']").click()
    await expect(page.locator(".entry")).to_have_count(2)
    await expect(page.locator(".entry").first).to_contain_text("$4.99")
    await page.get_by_role("button", name="Clear").click()
    await page.get_by_role("button", name="Clear it").click()
    await expect(page.locator("#history")).to_contain_text("Nothing scanned yet")


async def test_a_request_that_is_repeated_with_its_key_is_done_once(platform: Platform, photo: bytes) -> None:
    shopper = platform.stack.url(f"shopper-{EDGE}")
    before = len(await platform.edge("valid", "images/"))
    headers = {"Idempotency-Key": "a-photo-of-this-test"}
    answers = [
        (await platform.client.post(f"{shopper}/binary", content=photo, headers=headers)).json()
        for _ in range(3)
    ]
    assert answers[0]["known"] == "true"
    assert answers[0] == answers[1] == answers[2]
    assert len(await platform.edge("valid", "images/")) == before + 1
