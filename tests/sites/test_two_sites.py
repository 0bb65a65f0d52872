"""Central and an edge on machines of their own: nothing crosses but the link, and the link may be cut."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from lab.photos import render
from local_stack.settings import port_settings
from support.namespaces import CENTRAL, EDGE, missing
from support.platform import eventually
from support.shop import Shop, ports
from support.sites import LINK, Site

if lacking := missing():
    pytest.skip(lacking, allow_module_level=True)

pytestmark = pytest.mark.asyncio(loop_scope="session")

LEMON = render("tea-lemon", 5_000_000)
CATCH_UP = 90.0
"""Seconds that an edge has after a cut, however long that was."""


async def test_three_doors_lead_from_the_edge_to_central_and_none_leads_back(shop: Shop) -> None:
    at_central, at_edge, defaults = ports(shop.central), ports(shop.edge), port_settings()
    crossing = {defaults[name] for name in LINK}
    asked = [f"{CENTRAL}:{port}" for port in at_central.values()]
    asked += [f"127.0.0.1:{defaults[name]}" for name in (*LINK, "DELIVERY_PORT", "TRAINING_PORT", "HUB_PORT")]
    seen = await knocked(shop.edge, asked)
    assert {address for address, said in seen.items() if said == "open"} == {
        f"{host}:{port}" for host in (CENTRAL, "127.0.0.1") for port in crossing
    }
    back = await knocked(shop.central, [f"{EDGE}:{port}" for port in {*at_edge.values(), *crossing}])
    assert set(back.values()) == {"ECONNREFUSED"}
    for path in ("9000/healthz", "8081/healthz"):
        code, said = await shop.edge.run("curl", "--silent", "--fail", f"http://127.0.0.1:{path}")
        assert code == 0, said
    await eventually(lambda: linked(shop), 60)


async def test_photos_uploaded_at_central_are_known_at_the_edge(shop: Shop) -> None:
    answer = await shop.upload(1, other=40, tea_lemon=24, tea_earl_grey=24)
    assert answer["stored"] == 88
    await shop.wait_serving(1)
    assert (await shop.detect(LEMON))["pricetag"] == "Lemon Tea: 4.99"
    assert (await shop.detect_by_mqtt(LEMON))["pricetag"] == "Lemon Tea: 4.99"
    await eventually(lambda: all_heard(shop), 60)
    assert sum(b'"zipfile"' in event for event in shop.events) == 88


async def test_what_is_taught_at_the_edge_comes_back_as_a_version(shop: Shop) -> None:
    version = await shop.serving()
    await shop.teach([render("tea-green", 6_000_000 + n) for n in range(24)], "Green Tea")
    assert await shop.push() == "done"
    assert await shop.images_at_central() == 88 + 24
    assert await shop.waiting_at_the_edge() == 0
    await shop.wait_serving(version + 1)
    assert (await shop.detect(render("tea-green", 5_000_000)))["pricetag"] == "Green Tea: 2.99"


async def test_an_edge_that_was_cut_off_goes_on_by_itself_and_catches_up_by_itself(shop: Shop) -> None:
    await eventually(shop.at_rest, 60)
    version, images = await shop.serving(), await shop.images_at_central()
    async with answered_throughout(shop):
        async with shop.sites.cut():
            await eventually(lambda: cut_off(shop), 60)
            assert await knocked(shop.edge, [f"{CENTRAL}:9000"]) == {f"{CENTRAL}:9000": "silent"}
            await shop.teach([render("tea-licorice", 6_000_000 + n) for n in range(12)], "Licorice Tea")
            assert await shop.push() == "queued"
            assert (await shop.upload(2, tea_licorice=20))["stored"] == 20
            sent = await shop.central.run(
                "python", "-m", "support.topic", "send", "edge1-images", given=LEMON
            )
            assert sent[0] == 0, sent[1]
            await eventually(lambda: offered(shop, version + 1), 120)
            assert await shop.serving() == version
            assert await shop.waiting_at_the_edge() == 12
            await eventually(lambda: shown_as_cut_off(shop), 60)
        await shop.wait_serving(version + 1, CATCH_UP)
        await eventually(lambda: sent_everything(shop, images + 32), CATCH_UP)
        await eventually(lambda: linked(shop), CATCH_UP)
    await eventually(shop.at_rest, 60)
    await eventually(lambda: all_heard(shop), CATCH_UP)
    replies = [json.loads(text)["pricetag"] for text in await shop.topic("edge1-detections")]
    assert set(replies) == {"Lemon Tea: 4.99"}
    shop.answered += len(replies)  # one, unless a commit was lost with the link
    await eventually(lambda: all_counted(shop), CATCH_UP)
    await eventually(lambda: all_up(shop), CATCH_UP)


async def test_a_link_that_comes_and_goes_never_leaves_half_a_version(shop: Shop) -> None:
    await eventually(shop.at_rest, 60)
    version, images = await shop.serving(), await shop.images_at_central()
    rng = random.Random(7)
    await shop.teach([render("tea-green", 7_000_000 + n) for n in range(16)], "Green Tea")
    async with answered_throughout(shop):
        pushing = asyncio.create_task(shop.push())
        for _ in range(3):
            await flap(shop, rng)
        assert await pushing in {"done", "queued"}
        await eventually(lambda: sent_everything(shop, images + 16), CATCH_UP)
        await eventually(shop.copying, 120)
        for _ in range(3):
            await flap(shop, rng)
            await shop.assert_versions_are_whole()
        await shop.wait_serving(version + 1, CATCH_UP)
        await shop.assert_versions_are_whole()
    await eventually(shop.at_rest, 60)
    await eventually(lambda: all_heard(shop), CATCH_UP)
    await eventually(lambda: all_counted(shop), CATCH_UP)


async def test_every_image_is_accounted_for_as_seen_from_either_site(shop: Shop) -> None:
    for site in (shop.edge, shop.central):
        code, said = await site.run(
            "python", "-m", "local_stack", "exec", "--", "python", "-m", "caravan", "account"
        )
        assert code == 0, said
        assert "It adds up." in said
        assert ("out of reach" in said) == (site is shop.central)


# --- what is waited for -----------------------------------------------------------------------------


async def knocked(site: Site, addresses: list[str]) -> dict[str, str]:
    code, said = await site.run("python", "-m", "support.knock", *addresses)
    assert code == 0, said
    found: dict[str, str] = json.loads(said)
    return found


async def linked(shop: Shop) -> bool:
    return {
        *(await shop.checks("EDGE_MANAGER_PORT")).values(),
        *(await shop.checks("MONITOR_PORT")).values(),
    } == {"ok"}


async def cut_off(shop: Shop) -> bool:
    s3 = (await shop.checks("EDGE_MANAGER_PORT"))["s3-central"]
    kafka = (await shop.checks("MONITOR_PORT"))["kafka"]
    return "ok" not in {s3, kafka}


async def all_up(shop: Shop) -> bool:
    return (await shop.edge.run("python", "-m", "local_stack", "status"))[0] == 0


async def shown_as_cut_off(shop: Shop) -> bool:
    code, table = await shop.edge.run("python", "-m", "local_stack", "status")
    return code == 1 and "cut off" in table


async def offered(shop: Shop, version: int) -> bool:
    return (await shop.offered())[-1] >= version


async def sent_everything(shop: Shop, images: int) -> bool:
    return await shop.waiting_at_the_edge() == 0 and await shop.images_at_central() == images


async def all_heard(shop: Shop) -> bool:
    return not await shop.unheard()


async def all_counted(shop: Shop) -> bool:
    counted = await shop.counted()
    assert counted <= shop.answered
    return counted == shop.answered


async def flap(shop: Shop, rng: random.Random) -> None:
    """Cut the link for a moment, and mend it for another."""
    async with shop.sites.cut():
        await asyncio.sleep(rng.uniform(0.2, 3.0))
    await asyncio.sleep(rng.uniform(0.2, 2.0))


@asynccontextmanager
async def answered_throughout(shop: Shop) -> AsyncIterator[None]:
    """Ask again and again, by both ways: each gets its answer."""

    enough = asyncio.Event()

    async def ask() -> None:
        while not enough.is_set():
            await shop.detect(LEMON)
            await shop.detect_by_mqtt(LEMON)
            await asyncio.sleep(0.2)

    asking = asyncio.create_task(ask())
    try:
        yield
    finally:
        enough.set()  # and not cancelled: what is asked is counted, here as at the hub
        await asking
