"""The review: what the shop did not know is labelled, many at once, and goes to training."""

import re
from typing import Any

import pytest
from playwright.async_api import Page, expect

from caravan import s3
from lab.photos import render
from support.browser import DESKTOP, PHONE, until
from support.platform import EDGE, Platform, eventually

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

CERTAIN = 0.8
ANSWERS = "unclassified", "valid"


async def ask_about(platform: Platform, product: str, count: int, seed: int) -> int:
    """Ask about photos of a product, and of nothing else so far; return how many people should look at."""
    for bucket in ANSWERS:
        await platform.forget(bucket, "images/")
    replies = [(await platform.detect(render(product, seed + number))).json() for number in range(count)]
    return sum(reply["known"] == "false" or reply["score"] < CERTAIN for reply in replies)


async def opened(open_page: Any, count: int, device: dict[str, Any]) -> Page:
    """Open the review with so many photos in it, each of them seen."""
    page: Page = await open_page(path="#review", **device)
    await expect(page.locator(".photo-choice")).to_have_count(count)
    shown = "[...document.querySelectorAll('.photo-choice img')].every((one) => one.naturalWidth)"
    await until(page, shown)
    return page


async def look(page: Page, faults: Any) -> None:
    for scheme in ("light", "dark"):
        await page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        assert await faults(page) == []


async def test_photos_are_labelled_by_keyboard_many_at_once_and_undone(
    platform: Platform, open_page: Any, faults: Any
) -> None:
    count = await ask_about(platform, "tea-licorice", 6, 7_300_000)
    assert count > 1
    page = await opened(open_page, count, DESKTOP)
    await look(page, faults)
    tile = page.locator(".photo-choice").first
    await page.locator("#review .tools .button").focus()
    await page.keyboard.press("Tab")
    await expect(tile).to_be_focused()
    await page.keyboard.press("Space")
    await expect(tile).to_have_attribute("aria-pressed", "true")
    await page.keyboard.press("z")
    await expect(page.get_by_role("dialog")).to_contain_text("The model said")
    await page.keyboard.press("Escape")
    await tile.focus()
    await page.keyboard.press("Escape")
    await page.keyboard.press("ArrowRight")
    await expect(tile).not_to_be_focused()
    await page.keyboard.press("a")
    await expect(page.locator(".decide")).to_contain_text(f"{count} chosen")
    product = page.locator(".decide .button", has_text="Licorice Tea")
    key = await product.get_attribute("aria-keyshortcuts") or ""

    await page.keyboard.press(key)
    await expect(page.locator(".photo-choice")).to_have_count(0)
    await page.get_by_role("button", name="Undo").click()
    await expect(page.locator(".photo-choice")).to_have_count(count)
    assert await platform.edge("data", "images/") == {}

    await tile.focus()
    await page.keyboard.press("a")
    await page.keyboard.press(key)
    await expect(page.locator("#review")).to_contain_text("Nothing to review")
    await expect(page.locator("#review .tally")).to_contain_text(f"{count}", timeout=15_000)
    learnt = await platform.edge("data", "images/tea-licorice/")
    assert len(learnt) == count
    data = s3.open_bucket(platform.stack.s3(f"s3-{EDGE}"), "data")
    for name in learnt:
        facts = await s3.facts(data, name)
        assert (facts["label"], facts["reviewed-by"], facts["model"]) == (
            "tea-licorice",
            "anyone",
            "tea_model_b64",
        )
        assert float(facts["model-score"]) < CERTAIN or facts["source"].startswith("unclassified/")

    await page.get_by_role("button", name="Send to training").locator("visible=true").click()
    await expect(page.locator("#review .sent")).to_contain_text(
        re.compile(rf"{count} photos? sent: {count} new"), timeout=60_000
    )
    assert await platform.edge("data", "images/") == {}


async def test_photos_are_chosen_by_touch_and_what_is_no_product_is_put_aside(
    platform: Platform, open_page: Any, faults: Any
) -> None:
    count = await ask_about(platform, "tea-licorice", 4, 7_400_000)
    assert count
    page = await opened(open_page, count, PHONE)
    await page.locator(".photo-choice").first.tap()
    await look(page, faults)
    await page.get_by_role("button", name="No product").tap()
    await expect(page.locator(".photo-choice")).to_have_count(count - 1)
    # Leaving is as good as waiting.
    await page.locator(".tabs a[href='#history']").tap()

    async def aside() -> bool:
        return len(await platform.edge("unclassified", "rejected/images/")) == 1

    await eventually(aside, 20)
    left = [key for bucket in ANSWERS for key in await platform.edge(bucket, "images/")]
    assert len(left) == 4 - 1
