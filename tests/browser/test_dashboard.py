"""The dashboard before the real platform: what happens is seen as it happens."""

import json
import re
from dataclasses import replace
from typing import Any

import pytest
from playwright.async_api import Page, expect

from caravan import kafka, s3
from caravan.contracts import (
    EDGE_METRICS,
    EDGE_STATUS,
    data_bucket,
    dead_letter,
    evidence_key,
    quarantine_event,
    rollout_key,
    training_event,
)
from caravan.evidence import Differing, Evidence, Finding, verdict, write
from caravan.images import thumbnail
from caravan.quarantine import Quarantined, put_in_quarantine, release_batch
from caravan.rollout import Rollout, Told
from caravan.settings import KafkaSettings
from caravan.testing.links import Link
from lab.photos import render
from shopper.canary.telling import picture_message
from support.browser import PHONE, SIGN_IN, TOKEN, until
from support.platform import EDGE, Platform
from support.proxy import proxy

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

LIVE = "html[data-live]"
WALL: dict[str, Any] = {
    "viewport": {"width": 1920, "height": 1080},
    "device_scale_factor": 1,
    "is_mobile": False,
    "has_touch": False,
}
LEARN_MS = 180_000
UPLOADED = 45
"""Images; as many as no other test sends at once, so that the log names them apart."""
FIRST_PAGE_BYTES = 100_000
AT = "2026-11-29T12:00:00+00:00"
LOADED = """document.querySelector("img[src='{}']").naturalWidth > 0"""
CAMERA = {"camera": "till-9"}


async def tell(platform: Platform, topic: str, event: dict[str, Any], **headers: str) -> None:
    """Write an event to Kafka, as services at central do."""
    async with kafka.Producer(KafkaSettings(kafka_bootstrap_servers=platform.stack.kafka)) as producer:
        await producer.send(topic, json.dumps(event).encode(), headers=headers)


async def send_dead_letter(platform: Platform, event: dict[str, Any]) -> None:
    """Write a dead letter of the edge's events."""
    reason = {"dead-letter-reason": "the broker was away for too long", "dead-letter-route": "bridge"}
    await tell(platform, dead_letter(EDGE), event, **reason)


async def film(platform: Platform) -> None:
    """Let a camera ask for some photos."""
    shopper = platform.stack.url(f"shopper-{EDGE}")
    for number in range(4):
        photo = render("tea-lemon", 7_600_000 + number)
        (await platform.client.post(f"{shopper}/binary", content=photo, headers=CAMERA)).raise_for_status()


def hub(platform: Platform) -> str:
    return platform.stack.url("hub") + "/"


def differing(number: int, reviewed: str = "") -> Differing:
    name = f"{number + 1:064x}-8"
    image = f"valid/images/tea-green/2026-11-29_12-00-0{number}-000.jpg"
    return Differing(name, image, "tea-green", 0.97, "tea-lemon", 0.91, reviewed)


async def sign_in(page: Page) -> None:
    await page.get_by_label("Token").fill(TOKEN)
    await page.keyboard.press("Enter")


async def test_the_upload_the_training_and_the_new_version_are_seen_as_they_happen(
    platform: Platform, open_page: Any
) -> None:
    await platform.settled()  # what other tests sent to training has been learnt
    page = await open_page(url=hub(platform), until=LIVE, **WALL)
    await page.evaluate("window.sameAsEver = true")
    version = await platform.serving()
    edge = page.get_by_role("article", name=EDGE)
    await expect(edge.locator(".pair")).to_have_text(f"v{version}")
    await platform.upload_until_taken(platform.archive(7, tea_licorice=UPLOADED))

    await expect(edge).to_contain_text(f"Stored: {UPLOADED} images")
    training = edge.get_by_role("progressbar", name=re.compile("^Training"))
    await expect(training).to_have_attribute("aria-valuenow", re.compile(r"^[1-9]\d?$"), timeout=LEARN_MS)
    await expect(edge.locator(".pair b")).to_have_text(f"v{version + 1}", timeout=LEARN_MS)
    await expect(edge).to_contain_text("Training: done")
    happened = page.get_by_role("log").get_by_role("listitem")
    for words in (
        f"{UPLOADED} images stored",
        f"{UPLOADED} images came in; training is asked for",
        f"version {version + 1} of tea_model_b64 passed the gate and is ready",
        f"serves version {version + 1} of tea_model_b64",
    ):
        await expect(happened.filter(has_text=words)).to_have_count(1)
    assert await page.evaluate("window.sameAsEver")

    # What was counted before is older than a minute by now, or is counted again by hand.
    await page.get_by_role("button", name="Count again").click()
    await expect(page.locator("#account .pill")).to_have_text("adds up")
    await edge.get_by_text("All training reports").click()
    await expect(edge.locator(".reports li")).to_have_count(version + 1)
    await edge.locator(".since a").click()
    await expect(page).to_have_url(f"{hub(platform)}reports/{EDGE}/tea_model_b64/{version + 1}")
    await expect(page.locator("h1")).to_contain_text("tea_model_b64")


async def test_a_batch_that_waits_for_a_person_is_shown_with_its_pictures_until_it_is_released(
    platform: Platform, open_page: Any
) -> None:
    page = await open_page(url=hub(platform), until=LIVE, **WALL)
    card = page.get_by_role("article", name=EDGE)
    store = s3.open_bucket(platform.stack.s3("s3-central"), data_bucket(EDGE))
    reason = "61 of 61 photos labelled tea-lemon are surely tea-green"
    held = Quarantined("9f86", reason, "2026-11-28T09:14:01.000+00:00", (("tea-lemon", "1" * 64),))
    await put_in_quarantine(store, held, b"<!doctype html><title>Quarantine</title><h1>Pictures</h1>")
    await tell(platform, EDGE, quarantine_event("9f86", 1, reason))
    await expect(card).to_contain_text("1 batch waits for a person")
    await page.reload()
    await expect(card).to_contain_text(reason)
    await card.get_by_role("link", name="see the pictures").click()
    await expect(page.locator("h1")).to_have_text("Pictures")
    await page.go_back()

    await release_batch(store, "9f86")
    await tell(platform, EDGE, training_event("skipped", 1))
    await expect(card).to_contain_text("tea_model_b64")
    await expect(card).not_to_contain_text("waits for a person")


async def test_where_versions_differ_pictures_are_beside_the_rollout_and_the_comparison(
    platform: Platform, open_page: Any, faults: Any
) -> None:
    model, group = "tea_model_b64", (EDGE, "edge2")
    seen = Evidence(model, 8, 7, 21, compared=204, worse=16, better=2, candidate_wrong=2)
    shown = [differing(number, "tea-lemon" if number == 1 else "") for number in range(5)]
    of_other = replace(shown[4], edge="edge2")
    why = verdict(seen).says
    stopped = Rollout(8, 7, 7, "1,100%").changed("stopped", why, {}, [replace(shown[0], edge=EDGE), of_other])
    page = await open_page(url=hub(platform), until=LIVE)
    async with kafka.Producer(KafkaSettings(kafka_bootstrap_servers=platform.stack.kafka)) as producer:
        for number, each in enumerate(shown[1:]):  # of one there is no picture
            small = thumbnail(render(each.item, 7_700_000 + number), 160, 70)
            await producer.send(EDGE_METRICS, picture_message(EDGE, seen, each, small, AT))
        finding = Finding(seen, "stop", tuple(shown[:4]))
        await producer.send(EDGE_STATUS, write(finding, AT), key=evidence_key(EDGE, model))
        told = Told("north", model, group, stopped)
        await producer.send(EDGE_STATUS, told.to_json(), key=rollout_key("north", model))

        card = page.get_by_role("article", name=EDGE)
        compared = card.get_by_role("region", name=f"Versions of {model}")
        await expect(compared).to_contain_text(f"{model}, stopped: {why}")
        figures = compared.get_by_role("figure")
        await expect(figures).to_have_count(4)
        await expect(figures.nth(1)).to_contain_text("v8: tea-green 97 %")
        await expect(figures.nth(1)).to_contain_text("v7: tea-lemon 91 %")
        await expect(figures.nth(1)).to_contain_text("Reviewed: tea-lemon")
        pictures = compared.get_by_role("img")
        await expect(pictures).to_have_count(3)
        await pictures.last.scroll_into_view_if_needed()
        for number in range(3):
            await until(page, LOADED.format(await pictures.nth(number).get_attribute("src")))
        rollout = card.get_by_role("region", name="Rollout")
        await expect(rollout).to_contain_text("Version 8 was stopped in ring 1 of 2")
        await expect(rollout.get_by_role("figure")).to_have_count(1)
        await expect(rollout.get_by_role("figure")).to_contain_text("edge2")  # its own are below
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert await faults(page) == []

        done = replace(told, rollout=replace(stopped, state="done"))
        await producer.send(EDGE_STATUS, done.to_json(), key=rollout_key("north", model))
        await expect(rollout).to_have_count(0)


async def test_what_cameras_ask_is_counted_and_drawn(platform: Platform, open_page: Any) -> None:
    page = await open_page(url=hub(platform), until=LIVE, **WALL)
    await film(platform)
    await expect(page.get_by_role("row", name=re.compile("till-9"))).to_contain_text("live")
    await expect(page.get_by_role("img", name=re.compile("^Images a second"))).to_be_visible()
    await page.get_by_role("combobox", name="Camera").select_option(f"{EDGE}/till-9")
    await expect(page.locator("#classes")).to_contain_text("tea-lemon")


async def test_a_dead_letter_that_is_sent_again_disappears(platform: Platform, open_page: Any) -> None:
    page = await open_page(url=hub(platform), until=LIVE, **WALL)
    await send_dead_letter(platform, {"name": "model-upload", "model": "late_but_here"})
    letters = page.get_by_role("region", name="Dead letters")
    await expect(letters).to_contain_text("the broker was away for too long")
    await letters.locator("summary").first.click()
    await expect(letters.locator("pre").first).to_contain_text("late_but_here")
    happened = page.get_by_role("log")
    assert "late_but_here" not in await happened.inner_text()

    await letters.get_by_role("button", name="Send again").focus()
    await page.keyboard.press("Enter")
    await expect(letters).to_contain_text("None: everything could be handled.")
    await expect(happened).to_contain_text("model late_but_here was sent")
    await expect(page.locator(".toast")).to_contain_text("1 message sent again")


async def test_after_a_cut_connection_the_page_catches_up(platform: Platform, open_page: Any) -> None:
    link = Link(f"127.0.0.1:{platform.stack.port('hub')}")
    async with link.listening() as address:
        page = await open_page(url=f"http://{address}/", until=LIVE, **WALL)
        await page.evaluate("window.sameAsEver = true")
        link.cut()
        await expect(page.locator("#state")).to_have_text("Connection lost; trying again")
        await tell(platform, EDGE, {"name": "model-upload", "model": "sent_meanwhile"})
        link.mend()
        await expect(page.locator("#state")).to_have_text("Live")
        await expect(page.get_by_role("log").get_by_text("model sent_meanwhile was sent")).to_have_count(1)
        assert await page.evaluate("window.sameAsEver")
        await page.context.close()


async def test_tokens_are_asked_for_and_a_proxy_may_show_it_under_a_path(
    platform: Platform, open_page: Any, guarded_hub: str
) -> None:
    for path in ("dashboard/state", "dashboard/events", "hub", "hub/events", f"reports/{EDGE}"):
        assert (path, (await platform.client.get(f"{guarded_hub}/{path}")).status_code) == (path, 401)
    async with proxy(guarded_hub, "/a/wall") as url:
        page = await open_page(url=url, until=SIGN_IN, **WALL)
        assert page.url == f"{url}login"
        await sign_in(page)
        await page.wait_for_url(url)
        (cookie,) = await page.context.cookies()
        assert (cookie["path"], cookie["httpOnly"], cookie["sameSite"]) == ("/a/wall/", True, "Strict")
        await page.wait_for_selector(LIVE, state="attached")
        await expect(page.get_by_role("article", name=EDGE)).to_contain_text("tea_model_b64")
        await expect(page.locator("#account .pill")).to_have_text("adds up")

        # A page of another site sends nothing again, whatever it has.
        forged = {"Cookie": f"{cookie['name']}={cookie['value']}", "Origin": "http://elsewhere.example"}
        replay = f"{guarded_hub}/dashboard/dead-letters/{EDGE}/replay"
        answer = await platform.client.post(replay, json={}, headers=forged)
        assert answer.status_code == 403
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        assert (await platform.client.get(f"{guarded_hub}/hub", headers=bearer)).status_code == 200

        await page.get_by_role("button", name="Sign out").click()
        await page.wait_for_url(f"{url}login")
        await page.goto(url)
        await page.wait_for_url(f"{url}login")
        await page.context.close()


async def test_the_first_page_is_small_and_comes_from_here_alone(platform: Platform, open_page: Any) -> None:
    page = await open_page(url=hub(platform), until=LIVE)
    sizes = await page.evaluate(
        "performance.getEntries()"
        ".filter((one) => 'transferSize' in one && !one.name.includes('/hub/uncertain/'))"
        ".map((one) => [one.name, one.transferSize])"
    )
    assert len(sizes) > 10
    assert sum(size for _, size in sizes) < FIRST_PAGE_BYTES


async def test_with_text_twice_as_large_the_dashboard_is_no_wider_than_a_phone(
    platform: Platform, open_page: Any
) -> None:
    await film(platform)
    page = await open_page(url=hub(platform), until=LIVE)
    await page.evaluate("document.documentElement.style.fontSize = '200%'")
    await page.get_by_role("img", name=re.compile("^Images a second")).wait_for()
    assert await page.evaluate("document.documentElement.scrollWidth - screen.width") <= 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("device", [PHONE, WALL], ids=["phone", "wall"])
async def test_axe_finds_nothing_serious_on_the_dashboard(
    platform: Platform, open_page: Any, faults: Any, scheme: str, device: dict[str, Any]
) -> None:
    await film(platform)
    await send_dead_letter(platform, {"name": "model-upload", "model": "to_be_seen"})
    page = await open_page(
        url=hub(platform), until=LIVE, color_scheme=scheme, reduced_motion="reduce", **device
    )
    await page.get_by_role("region", name="Dead letters").locator("summary").first.click()
    await page.get_by_text("All training reports").click()
    await page.locator(".reports li a").first.wait_for()
    await page.get_by_role("img", name=re.compile("^Images a second")).wait_for()
    assert await faults(page) == []
