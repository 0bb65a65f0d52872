"""The app behind tokens, and behind a proxy that shows it under a path of its own."""

import io
import re
from typing import Any

import pytest
from PIL import Image
from playwright.async_api import expect

from lab.photos import render
from support.browser import LAN_HOST, SIGN_IN, TOKEN, live
from support.platform import Platform
from support.proxy import proxy

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]


async def test_tokens_are_enforced_and_signing_in_opens_the_app(
    platform: Platform, open_page: Any, guarded_shopper: str, photo: bytes
) -> None:
    shopper = guarded_shopper
    reads = ("events", "ingestion/counts", "review", "models", "models/tea_model_b64/latest/report")
    for method, paths in {
        "POST": ("binary", "detection", "ingestion", "zip", "review"),
        "GET": reads,
    }.items():
        for path in paths:
            answer = await platform.client.request(method, f"{shopper}/{path}", content=photo)
            assert (path, answer.status_code) == (path, 401)

    page = await open_page("tea-lemon", f"{shopper}/", until=SIGN_IN)
    assert page.url == f"{shopper}/login"
    await page.get_by_label("Token").fill("not-the-right-token")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("alert")).to_contain_text("This token is not known here")
    await page.get_by_label("Token").fill(TOKEN)
    await page.keyboard.press("Enter")
    await page.wait_for_url(f"{shopper}/")

    (cookie,) = await page.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    assert TOKEN not in cookie["value"]
    assert await page.evaluate("document.cookie") == ""
    await live(page)
    await page.locator("#shutter").click()
    await expect(page.locator("#price")).to_have_text("$4.99")

    # The cookie is of no use to pages of other sites.
    with_cookie = {"Cookie": f"{cookie['name']}={cookie['value']}"}
    for foreign in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "http://elsewhere.example"}, {}):
        answer = await platform.client.post(f"{shopper}/binary", content=photo, headers=with_cookie | foreign)
        assert answer.status_code == 401
    answer = await platform.client.post(
        f"{shopper}/binary", content=photo, headers=with_cookie | {"Sec-Fetch-Site": "same-origin"}
    )
    assert answer.status_code == 200

    await page.locator("#open-settings").click()
    await expect(page.get_by_role("dialog")).to_contain_text("Signed in as ann")
    await page.locator("#sign-out").click()
    await page.wait_for_url(f"{shopper}/login")
    await page.goto(f"{shopper}/")
    await page.wait_for_url(f"{shopper}/login")


async def test_a_token_that_is_sent_before_the_page_is_ready_stays_out_of_every_address(
    open_page: Any, guarded_shopper: str
) -> None:
    page = await open_page("", f"{guarded_shopper}/", until=SIGN_IN, service_workers="block")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    await page.route("**/login.js", lambda route: route.abort())
    await page.reload()
    await page.get_by_label("Token").fill(TOKEN)
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("button", name="Sign in")).to_be_disabled()
    async with page.expect_navigation():
        await page.evaluate("document.getElementById('login').submit()")
    assert page.url == f"{guarded_shopper}/login"
    assert not [url for url in asked if TOKEN in url]


async def test_the_app_works_under_a_path_of_a_proxy_behind_tokens_too(
    open_page: Any, guarded_shopper: str
) -> None:
    async with proxy(guarded_shopper, "/a/shop") as url:
        page = await open_page("tea-lemon", url, until=SIGN_IN)
        assert page.url == f"{url}login"
        await page.get_by_label("Token").fill(TOKEN)
        await page.keyboard.press("Enter")
        await page.wait_for_url(url)
        (cookie,) = await page.context.cookies()
        assert cookie["path"] == "/a/shop/"
        await live(page)
        await page.locator("#shutter").click()
        await expect(page.locator("#price")).to_have_text("$4.99")
        await page.get_by_role("button", name="tea_model_b64, version").click()
        async with page.context.expect_page() as opened:
            await page.get_by_role("link", name="Report of version").first.click()
        report = await opened.value
        assert report.url.startswith(f"{url}models/tea_model_b64/")
        await report.get_by_role("heading", name="tea_model_b64").wait_for()
        await report.close()
        await page.keyboard.press("Escape")
        await page.locator(".tabs a[href='#teach']").click()
        await page.get_by_role("radio", name="Lemon Tea").wait_for()
        await page.locator(".tabs a[href='#review']").click()
        await expect(page.locator("#review")).to_contain_text(re.compile("to look at|Nothing to review"))
        scope = await page.evaluate("navigator.serviceWorker.ready.then((one) => one.scope)")
        assert scope == url
        await page.context.close()


async def test_a_phone_in_the_shops_network_needs_no_https_but_for_a_live_camera(
    open_page: Any, guarded_shopper: str, picture_file: Any
) -> None:
    url = guarded_shopper.replace("127.0.0.1", LAN_HOST) + "/"
    page = await open_page("", url, until=SIGN_IN)
    assert not await page.evaluate("isSecureContext")
    await page.get_by_label("Token").fill(TOKEN)
    await page.keyboard.press("Enter")
    await page.wait_for_url(url)
    await page.locator("#start").click()
    await expect(page.get_by_role("alert")).to_contain_text("A live camera needs https")
    photo = Image.open(io.BytesIO(render("tea-lemon", 7_100_002)))
    await page.set_input_files("#file", picture_file("lemon.jpg", photo))
    await expect(page.locator("#price")).to_be_visible()
    await page.locator(".tabs a[href='#history']").click()
    await expect(page.locator(".entry")).to_have_count(1)
    await page.locator(".tabs a[href='#review']").click()
    await expect(page.locator("#review")).to_contain_text(re.compile("to look at|Nothing to review"))
