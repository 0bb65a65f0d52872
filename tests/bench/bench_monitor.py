"""What it costs to bridge an event from Kafka to MQTT: `python tests/bench/bench_monitor.py`; see `--help`.

Starts a broker of each kind and an edge's monitor, writes events to its topic in several rounds, and prints
of each how many a second reached a subscriber, what CPU the monitor took for a thousand, and how many were
lost. It uses nothing but the doors, so another build's interpreter runs it too. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import aiomqtt
import psutil
from aiokafka import AIOKafkaProducer

from local_stack.stack import Stack

PATIENCE_SECONDS = 60


async def main(count: int, rounds: int) -> None:
    """Measure, and print a line of JSON for each round and one of the medians."""
    with tempfile.TemporaryDirectory() as home:
        async with Stack(Path(home), parts=("monitor",)) as stack:
            monitor = next(part for part in stack.state.parts if part.name.startswith("monitor"))
            process = psutil.Process(monitor.pid)
            seen: list[int] = []
            listener = asyncio.create_task(_listen(stack.port("mqtt-edge1", "mqtt"), seen))
            figures = []
            async with AIOKafkaProducer(bootstrap_servers=stack.kafka, linger_ms=20) as producer:
                await _send(producer, range(100))
                await _until(seen, 100)
                for number in range(rounds):
                    first = 100 + number * count
                    began, spent = time.perf_counter(), _cpu(process)
                    await _send(producer, range(first, first + count))
                    await _until(seen, first + count)
                    took, spent = time.perf_counter() - began, _cpu(process) - spent
                    figures.append((spent / count * 1000, count / took))
                    _tell(_facts(*figures[-1]) | {"lost": first + count - len(set(seen))})
            listener.cancel()
            medians = [statistics.median(each) for each in zip(*figures, strict=True)]
            resident = process.memory_info().rss / 2**20
            _tell(_facts(*medians) | {"resident_mb": round(resident)})


def _tell(facts: dict[str, float]) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")


def _facts(cpu: float, rate: float) -> dict[str, float]:
    return {"cpu_s_per_1000": round(cpu, 3), "events_per_s": round(rate)}


async def _send(producer: AIOKafkaProducer, numbers: range) -> None:
    events = [
        json.dumps({"name": "detection", "item": "tea-lemon", "score": 0.93, "n": number}).encode()
        for number in numbers
    ]
    await asyncio.gather(*[await producer.send("edge1", event) for event in events])


async def _listen(port: int, seen: list[int]) -> None:
    async with aiomqtt.Client("127.0.0.1", port) as client:
        await client.subscribe("monitor", qos=1)
        async for message in client.messages:
            event = json.loads(message.payload)
            if "n" in event:
                seen.append(event["n"])


async def _until(seen: list[int], count: int) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while len(seen) < count and time.monotonic() < deadline:
        await asyncio.sleep(0.01)


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure what it costs to bridge an event.")
    parser.add_argument("--events", type=int, default=10_000, help="of a round")
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    asyncio.run(main(chosen.events, chosen.rounds))
