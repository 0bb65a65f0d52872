"""What every page has to be: accessible, small, installable, of one origin."""

import json
from typing import Any

import pytest
from playwright.async_api import expect

from support.browser import DESKTOP, PHONE, live
from support.platform import EDGE, Platform

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

FIRST_PAGE_BYTES = 100_000


@pytest.mark.parametrize("device", [PHONE, DESKTOP], ids=["phone", "desktop"])
async def test_axe_finds_nothing_serious_on_any_page_light_or_dark(
    open_page: Any, faults: Any, device: dict[str, Any]
) -> None:
    page = await open_page("tea-lemon", reduced_motion="reduce", **device)
    found: dict[str, list[str]] = {}

    async def look(name: str) -> None:
        for scheme in ("light", "dark"):
            await page.emulate_media(color_scheme=scheme)
            found[f"{name}, {scheme}"] = await faults(page)

    await look("start")
    await live(page)
    await page.locator("#shutter").click()
    await page.locator("#price").wait_for()
    await look("answer")
    await page.locator("#not-this").click()
    await page.get_by_role("radio", name="Lemon Tea").check(force=True)
    await look("tell")
    await page.keyboard.press("Escape")
    await page.locator(".tabs a[href='#teach']").click()
    await page.get_by_role("radio", name="Green Tea").check(force=True)
    await look("teach")
    await page.locator(".tabs a[href='#history']").click()
    await page.locator(".entry").wait_for()
    await look("history")
    await page.locator(".entry").click()
    await page.get_by_role("dialog").wait_for()
    await look("entry")
    await page.keyboard.press("Escape")
    await page.locator("#open-settings").click()
    await look("settings")
    await page.get_by_role("button", name="What the shop has learnt").click()
    async with page.context.expect_page() as opened:
        await page.get_by_role("link", name="Report of version").first.click()
    await look("models")
    report = await opened.value
    # No script runs in a report as it is shown, so that the scanner has to look at a copy.
    copy = await page.context.new_page()
    await copy.set_content(await report.content())
    for scheme in ("light", "dark"):
        await copy.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        found[f"report, {scheme}"] = await faults(copy)
    await page.goto(page.url.split("#")[0] + "login")
    await page.get_by_label("Token").wait_for()
    await look("login")
    assert {name: each for name, each in found.items() if each} == {}


async def test_with_text_twice_as_large_no_view_is_wider_than_a_phone(open_page: Any) -> None:
    page = await open_page("tea-lemon")
    await page.evaluate("document.documentElement.style.fontSize = '200%'")
    wide: dict[str, int] = {}

    async def look(view: str) -> None:
        wide[view] = await page.evaluate("document.documentElement.scrollWidth - screen.width")

    await look("start")
    await live(page)
    await page.locator("#shutter").click()
    await page.locator("#price").wait_for()
    await look("answer")
    for view in ("teach", "history", "review"):
        await page.locator(f".tabs a[href='#{view}']").click()
        await page.locator(f"main[data-view='{view}'] #{view} > *").first.wait_for()
        await look(view)
    assert {view: more for view, more in wide.items() if more > 0} == {}


async def test_the_first_page_is_small_and_comes_from_here_alone(open_page: Any) -> None:
    page = await open_page()
    await expect(page.locator("#state")).to_have_text("ready")
    sizes = await page.evaluate(
        "performance.getEntries().filter((one) => 'transferSize' in one)"
        ".map((one) => [one.name, one.transferSize])"
    )
    # What the service worker lays in store afterwards is asked for by it, not by the page.
    assert len(sizes) > 10
    assert sum(size for _, size in sizes) < FIRST_PAGE_BYTES


async def test_the_app_can_be_installed(platform: Platform, open_page: Any) -> None:
    page = await open_page()
    session = await page.context.new_cdp_session(page)
    found = (await session.send("Page.getInstallabilityErrors"))["installabilityErrors"]
    # A test's browser is one that keeps nothing; that alone may stand in the way.
    assert [one["errorId"] for one in found] in ([], ["in-incognito"])
    manifest = json.loads((await session.send("Page.getAppManifest"))["data"])
    shopper = platform.stack.url(f"shopper-{EDGE}")
    for one in manifest["icons"]:
        answer = await platform.client.get(f"{shopper}/{one['src']}")
        assert (answer.status_code, answer.headers["content-type"]) == (200, one["type"])


async def test_motion_rests_for_those_who_ask_for_it(open_page: Any) -> None:
    page = await open_page("tea-lemon", reduced_motion="reduce")
    await live(page)
    await page.locator("#shutter").click()
    await page.locator("#price").wait_for()
    assert await page.evaluate("document.getAnimations().length") == 0
