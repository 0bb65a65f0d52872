"""Every image is counted at the hub, once, though Kafka stops and processes are killed."""

import asyncio
import signal
from collections import Counter

import pytest

from support.platform import EDGE, Platform, eventually

pytestmark = pytest.mark.asyncio(loop_scope="session")

CAMERAS = ("aisle-1", "aisle-2", "aisle-3")


async def test_the_hub_counts_each_image_once_though_kafka_stops_and_the_shopper_is_killed(
    platform: Platform, photo: bytes
) -> None:
    shopper, hub = platform.stack.url(f"shopper-{EDGE}"), platform.stack.url("hub")
    sent: Counter[str] = Counter()

    async def film(camera: str, images: int) -> None:
        for _ in range(images):
            answer = await platform.client.post(
                f"{shopper}/binary", content=photo, headers={"camera": camera}
            )
            assert answer.status_code == 200
            sent[camera] += 1
            await asyncio.sleep(0.1)

    async def film_all(images: int) -> None:
        await asyncio.gather(*(film(camera, images) for camera in CAMERAS))

    async def counted() -> dict[str, int]:
        shown = (await platform.client.get(f"{hub}/hub")).json()
        return {c["camera"]: c["totals"]["images"] for c in shown["cameras"] if c["camera"] in CAMERAS}

    await film_all(20)
    broker = platform.stack.state.part("kafka").identity
    assert broker is not None
    broker.signal(signal.SIGSTOP)
    try:
        await film_all(25)  # some of them go to Kafka, and their acknowledgements are not heard
        await platform.stack.kill(f"shopper-{EDGE}")
        await platform.stack.wait_ready(f"shopper-{EDGE}")  # it starts, and serves, without Kafka
        await film_all(10)
    finally:
        broker.signal(signal.SIGCONT)
    await film_all(5)
    await platform.stack.kill("kafka")
    await film_all(5)

    async def all_counted() -> bool:
        return await counted() == sent

    await eventually(all_counted, 60)
    assert set(sent.values()) == {65}
    await platform.stack.kill("hub")
    await platform.stack.wait_ready("hub")
    assert await counted() == sent
