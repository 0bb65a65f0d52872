"""The page where digits are drawn, before the real platform, which then learns them."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import expect

from lab.samples.digits import digits, split, write_zip
from support.browser import DESKTOP, draw
from support.platform import EDGE, Platform, eventually
from support.strokes import HANDS, drawn

pytest.importorskip("sklearn")
pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

LEARNED = 500
"""Of 1,797: enough to know what people draw."""
RIGHT = 0.8


async def test_a_model_without_digits_says_how_it_learns_them(platform: Platform, open_page: Any) -> None:
    page = await open_page(path="draw")
    await expect(page.locator("#undo")).to_be_disabled()
    await draw(page, drawn("3", 0, 0))
    await expect(page.get_by_role("alert")).to_contain_text("knows no digits")
    await expect(page.get_by_role("alert")).to_contain_text("make digits.zip")
    await page.keyboard.press("Backspace")
    await expect(page.get_by_role("alert")).to_be_empty()
    await page.goto(platform.stack.url(f"shopper-{EDGE}") + "/draw?model=nowhere")
    await draw(page, drawn("3", 0, 0))
    await expect(page.get_by_role("alert")).to_contain_text("no model nowhere")


async def test_digits_drawn_by_several_hands_are_recognised(
    platform: Platform, open_page: Any, tmp_path: Path
) -> None:
    archive = tmp_path / "digits.zip"
    learned, _ = await asyncio.to_thread(lambda: split(digits()))
    write_zip(archive, learned[:LEARNED])
    await platform.upload_until_taken(archive)

    async def learnt() -> bool:
        # The next version may be of photos that were sent before; the one meant here knows digits.
        answer = await platform.client.get(f"{platform.stack.url(f'shopper-{EDGE}')}/models")
        versions = [each for model in answer.json()["models"] for each in model["versions"]]
        with_digits = [each["version"] for each in versions if "9" in each["classes"]]
        return bool(with_digits) and await platform.serving() >= min(with_digits)

    await eventually(learnt, 240)
    page = await open_page(path="draw", **DESKTOP)
    wrong: list[str] = []
    hands = [(digit, hand) for digit in HANDS for hand in range(len(HANDS[digit]))]
    for digit, hand in hands:
        await draw(page, drawn(digit, hand, 1))
        seen = await page.locator("#digit").inner_text()
        if seen.removesuffix("?") != digit:
            wrong.append(f"{digit}, hand {hand}: {seen}")
        await page.keyboard.press("Delete")
    assert len(wrong) <= (1 - RIGHT) * len(hands), wrong


async def test_axe_finds_nothing_serious_where_digits_are_drawn(open_page: Any, faults: Any) -> None:
    for scheme in ("light", "dark"):
        page = await open_page(path="draw", color_scheme=scheme, reduced_motion="reduce")
        assert await faults(page) == []
        await draw(page, drawn("5", 0, 0))
        assert await faults(page) == []
