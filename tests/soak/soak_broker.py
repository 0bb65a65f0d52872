"""Carry 200,000 messages in 20,000 batches on the topics that grow, and see that the next one comes at once.

Run it with `make soak`; `COUNT=2000` carries a tenth of it, in three minutes on two busy cores. It starts a
stack of its own on free ports, with a retention of 10,000 messages, and ends with 1 if a promise does not
hold: after the stack was stopped and started, the next message is at the hub, at the bridge's MQTT, or
answered by the shopper, within a second (the median of several), and Kafka's bucket has stopped growing.

Two hundred thousand detections take longer, so a reader of the shopper's group stands in for the shopper.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiomqtt
import httpx
import obstore
import psutil
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from rich.console import Console
from rich.table import Table

from caravan import kafka, kafka_topics
from caravan.contracts import to_json, zipfile_event
from caravan.s3 import open_bucket
from caravan.settings import KafkaSettings
from caravan.times import iso
from lab.photos import render, render_zip
from local_stack.stack import Stack

BATCHES = int(os.environ.get("COUNT") or 20_000)
EACH = 10
"""Messages of a batch."""
KEPT = 10_000
TOPICS = ("edge1", "edge-metrics", "edge1-images")
TRIES = 7
SECONDS = 1.0
PARTS = ("kafka", "kafka-cleaner", "s3-central", "hub", "monitor-edge1", "shopper-edge1")


def _window(camera: str) -> bytes:
    """Return a window of one camera, as a shopper tells of it."""
    times = {"min": 0.0, "max": 0.2, "mean": 0.1, "std": 0.0, "percentiles": [0.1, 0.1, 0.1, 0.2]}
    now = iso(time.time())
    window = {
        "id": camera,
        "edge": "edge1",
        "camera_metrics": {camera: {"certain": [1], "uncertain": [0]}},
        "latency_metrics": {"prep": times, "predict": times},
        "timestamp": now,
        "window_start": now,
        "classes": ["tea-lemon"],
        "config": {"window_size": 10, "threshold": 0.8, "model": "tea_model_b64", "model_version": 1},
    }
    return to_json({"metrics_json": to_json(window).decode()})


MESSAGES = {
    "edge1": to_json(zipfile_event()),
    "edge-metrics": _window("soak"),
    "edge1-images": b"an image that the stand-in does not look at",
}

console = Console()


async def main() -> int:
    """Run it all; return the exit code."""
    table = Table("what", "figure", "promise", "")
    kept = True
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder, "first.zip")
        render_zip(archive, {"other": 80, "tea-lemon": 40, "tea-earl-grey": 40}, 1)
        home, environment = Path(folder, "home"), {"KAFKA_RETENTION_MESSAGES": str(KEPT)}
        async with (
            Stack(home, environment=environment | {"KAFKA_DETECTION": "false"}) as stack,
            httpx.AsyncClient(timeout=120, trust_env=False) as http,
        ):
            await _train(stack, http, archive)
            began, before = time.monotonic(), _cpu(stack)
            disk = await _carry(stack)
            took = time.monotonic() - began
            for part, seconds in _cpu(stack).items():
                table.add_row(f"CPU of {part}", f"{seconds - before[part]:.0f} s in {took:.0f} s", "", "")
            grown = disk[-1] - disk[len(disk) // 2]
            kept &= _row(
                table,
                "the bucket in the second half",
                f"{grown / 2**20:+.1f} MiB",
                "within 2 MiB",
                grown < 2**21,
            )
        for when in ("after stop and start", "after another"):
            async with (
                Stack(home, environment=environment) as stack,
                httpx.AsyncClient(timeout=120, trust_env=False) as http,
            ):
                for name, latency in (await _latencies(stack, http)).items():
                    kept &= _row(
                        table,
                        f"the next message: {name}, {when}",
                        f"{latency:.2f} s",
                        f"within {SECONDS:.0f} s",
                        latency <= SECONDS,
                    )
    console.print(table)
    return 0 if kept else 1


def _row(table: Table, what: str, figure: str, promise: str, holds: bool) -> bool:
    table.add_row(what, figure, promise, "holds" if holds else "[red]does not hold[/red]")
    return holds


async def _train(stack: Stack, http: httpx.AsyncClient, archive: Path) -> None:
    """Have the shopper know some products."""
    console.print("a first model")
    content = await asyncio.to_thread(archive.read_bytes)
    (await http.put(f"{stack.url('feeder')}/zip?edgeId=edge1", content=content)).raise_for_status()
    photo = render("tea-lemon", 7)
    async with asyncio.timeout(300):
        while True:
            answer = await http.post(f"{stack.url('shopper-edge1')}/binary", content=photo)
            if answer.is_success and answer.json().get("known") == "true":
                return
            await asyncio.sleep(1)


# --- the load -------------------------------------------------------------------------------------


async def _carry(stack: Stack) -> list[int]:
    """Send all batches; return the size of Kafka's bucket from time to time."""
    sent = dict.fromkeys(TOPICS, 0)
    sizes: list[int] = []

    async def carry(topic: str) -> None:
        async with _producer(stack) as producer:
            for _ in range(BATCHES):
                batch = producer.create_batch()
                for _ in range(EACH):
                    batch.append(key=None, value=MESSAGES[topic], timestamp=int(time.time() * 1000))
                await (await producer.send_batch(batch, topic, partition=0))
                sent[topic] += 1

    async def tell() -> None:
        began = time.monotonic()
        while True:
            await asyncio.sleep(15)
            objects, size = await _bucket(stack)
            sizes.append(size)
            console.print(
                f"{time.monotonic() - began:4.0f} s  batches {' '.join(f'{n:,}' for n in sent.values())}"
                f"  bucket {objects:,} objects, {size / 2**20:.1f} MiB"
            )

    teller, stand_in = asyncio.create_task(tell()), asyncio.create_task(_stand_in(stack))
    await asyncio.gather(*map(carry, TOPICS))
    await asyncio.wait_for(stand_in, 120)
    await asyncio.sleep(20)  # what was just written is left alone for some seconds
    teller.cancel()
    sizes.append((await _bucket(stack))[1])
    return sizes


async def _stand_in(stack: Stack) -> None:
    """Read the images as the shopper's group."""
    settings = KafkaSettings(kafka_bootstrap_servers=stack.kafka, kafka_gap_seconds=2)
    async with kafka.consumer(settings, "edge1-images", group="shopper-edge1") as source:
        read = 0
        while read < BATCHES * EACH:
            for partition, records in (await source.getmany(timeout_ms=1000, max_records=5000)).items():
                read = records[-1].offset + 1
                await source.commit({partition: read})


async def _bucket(stack: Stack) -> tuple[int, int]:
    """Return how many objects Kafka's bucket has, and their bytes."""
    sizes = [
        entry["size"]
        async for page in obstore.list(open_bucket(stack.s3("s3-central"), "kafka"))
        for entry in page
    ]
    return len(sizes), sum(sizes)


def _cpu(stack: Stack) -> dict[str, float]:
    found = {}
    for part in PARTS:
        pid = stack.state.part(part).pid
        if pid is not None:
            times = psutil.Process(pid).cpu_times()
            found[part] = times.user + times.system
    return found


# --- the next message -----------------------------------------------------------------------------


async def _latencies(stack: Stack, http: httpx.AsyncClient) -> dict[str, float]:
    """Return the median time of the next message, by door: infinite if it does not come in a minute."""
    run, photo = f"{time.time_ns():x}", render("tea-lemon", 7)
    async with (
        _producer(stack) as producer,
        aiomqtt.Client("127.0.0.1", stack.port("mqtt-edge1")) as mqtt,
        _answers(stack) as answers,
    ):
        await mqtt.subscribe("monitor", qos=1)

        async def to_hub(number: int) -> None:
            await producer.send_and_wait("edge-metrics", _window(f"soak-{run}-{number}"))
            address = f"{stack.url('hub')}/hub/cameras/edge1/soak-{run}-{number}"
            while (await http.get(address)).status_code != httpx.codes.OK:
                await asyncio.sleep(0.02)

        async def to_mqtt(number: int) -> None:
            mark = f"{run}-{number}"
            await producer.send_and_wait("edge1", to_json({"name": "soak", "mark": mark}))
            async for message in mqtt.messages:
                if mark.encode() in bytes(message.payload):
                    return

        async def to_shopper(number: int) -> None:
            mark = f"{run}-{number}".encode()
            await producer.send_and_wait("edge1-images", photo, key=mark)
            async for record in answers:
                if record.key == mark:
                    return

        probes: dict[str, Callable[[int], Awaitable[None]]] = {
            "hub": to_hub,
            "bridge, MQTT": to_mqtt,
            "detection through Kafka": to_shopper,
        }
        return {name: await _median(name, probe) for name, probe in probes.items()}


async def _median(name: str, probe: Callable[[int], Awaitable[None]]) -> float:
    times = []
    for number in range(TRIES):
        began = time.monotonic()
        with suppress(TimeoutError):
            await asyncio.wait_for(probe(number), 60)
            times.append(time.monotonic() - began)
    console.print(f"{name}: {' '.join(f'{seconds:.2f}' for seconds in times)} s")
    return statistics.median([*times, *[float("inf")] * (TRIES - len(times))])


@asynccontextmanager
async def _producer(stack: Stack) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(bootstrap_servers=stack.kafka, acks="all", max_request_size=20 * 2**20)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


@asynccontextmanager
async def _answers(stack: Stack) -> AsyncIterator[AIOKafkaConsumer]:
    """Read the shopper's answers, from those that come next."""
    settings = KafkaSettings(kafka_bootstrap_servers=stack.kafka)
    await kafka_topics.ensure_topics(settings, ["edge1-detections"])
    reader = kafka.Consumer(settings, "edge1-detections", group_id=None)
    await reader.start()
    try:
        yield reader
    finally:
        await reader.stop()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
