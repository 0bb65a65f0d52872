"""The hub: what cameras sent through any door is counted at central, image by image."""

import asyncio
import base64
import io
import json
from collections import Counter
from typing import Any

import aiomqtt
import httpx
import pytest
from PIL import Image

from lab.photos import render
from support.platform import EDGE, Platform, eventually

pytestmark = pytest.mark.asyncio(loop_scope="session")

KNOWN = [render("tea-lemon", 7_000_000 + n) for n in range(3)]
UNKNOWN = render("tea-licorice", 7_000_000)


async def test_what_cameras_send_is_at_the_hub_image_by_image(platform: Platform) -> None:
    hub, shopper = platform.stack.url("hub"), platform.stack.url(f"shopper-{EDGE}")
    seen: list[tuple[str, dict[str, Any]]] = []
    watching = asyncio.create_task(watch(hub, seen))
    await eventually(lambda: said(seen, "snapshot"), 20)

    answers: dict[str, list[dict[str, Any]]] = {"till-1": [], "till-2": [], "gate/3": []}
    for _ in range(4):
        for camera in ("till-1", "till-2"):
            for photo in (*KNOWN, UNKNOWN):
                answer = await platform.client.post(
                    f"{shopper}/binary", content=photo, headers={"camera": camera}
                )
                answers[camera].append(answer.json())
    async with aiomqtt.Client("127.0.0.1", platform.stack.port(f"mqtt-{EDGE}")) as client:
        await client.subscribe("response/detection/gate/3", qos=1)
        for photo in (*KNOWN, UNKNOWN):
            body = json.dumps({"image": base64.b64encode(photo).decode()})
            await client.publish("detection/gate/3", body, qos=1)
            async with asyncio.timeout(60):
                answers["gate/3"].append(json.loads((await anext(client.messages)).payload))

    expected = {camera: counts_of(replies) for camera, replies in answers.items()}

    async def counted() -> bool:
        shown = (await platform.client.get(f"{hub}/hub")).json()
        found = {c["camera"]: c["totals"] for c in shown["cameras"] if c["camera"] in answers}
        return {name: (t["certain"], t["uncertain"]) for name, t in found.items()} == expected

    await eventually(counted, 30)
    camera = (await platform.client.get(f"{hub}/hub/cameras/{EDGE}/gate/3")).json()
    assert (camera["state"], camera["totals"]["images"]) == ("live", 4)
    assert sum(window["images"] for window in camera["windows"]) == 4
    assert camera["windows"][0]["latency"]["predict"]["max"] > 0

    listed = (await platform.client.get(f"{hub}/hub/uncertain")).json()["uncertain"]
    unsure = Counter(one["camera"] for one in listed)
    assert all(unsure[name] == sum(uncertain.values()) for name, (_, uncertain) in expected.items())
    for one in [one for one in listed if one["camera"] in answers][:1]:
        image = await platform.client.get(f"{hub}{one['image']}")
        assert Image.open(io.BytesIO(image.content)).format == "JPEG"

    told = [data for name, data in seen if name == "window" and data["camera"] == "till-1"]
    assert sum(data["window"]["images"] for data in told) == 16
    watching.cancel()
    await asyncio.wait([watching])


async def test_a_hub_that_is_restarted_shows_the_same(platform: Platform) -> None:
    hub = platform.stack.url("hub")

    async def totals() -> dict[str, Any]:
        shown = (await platform.client.get(f"{hub}/hub")).json()
        return {camera["camera"]: camera["totals"] for camera in shown["cameras"]}

    before = await totals()
    assert before
    await platform.stack.kill("hub")
    await platform.stack.wait_ready("hub")
    assert await totals() == before


def counts_of(replies: list[dict[str, Any]]) -> tuple[dict[str, int], dict[str, int]]:
    """Count replies by the model's first choice: the certain, and the uncertain."""
    choices = [(reply.get("guess", reply["item"]), reply["score"] >= 0.8) for reply in replies]
    return (
        dict(Counter(item for item, certain in choices if certain)),
        dict(Counter(item for item, certain in choices if not certain)),
    )


async def said(seen: list[tuple[str, dict[str, Any]]], name: str) -> bool:
    return any(event == name for event, _ in seen)


async def watch(hub: str, seen: list[tuple[str, dict[str, Any]]]) -> None:
    """Follow the hub's events as a browser does."""
    async with (
        httpx.AsyncClient(timeout=60, trust_env=False) as client,
        client.stream("GET", f"{hub}/hub/events") as answer,
    ):
        event = ""
        async for line in answer.aiter_lines():
            field, _, value = line.partition(": ")
            if field == "event":
                event = value
            elif field == "data":
                seen.append((event, json.loads(value)))
