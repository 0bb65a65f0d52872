"""What it costs to bridge an event from Kafka to MQTT: `python -m bench.bench_monitor` in tests/.

Starts a broker of each kind, an edge's monitor, and Bento twice: with one event on its way to MQTT, which
keeps the order as the monitor does, and with 64, its default, which does not. All acknowledge alike: at QoS
1, then to Kafka. Bento is built from the pins in `tests/bench/peers`, or passed over in a line that says so.
In turns, round by round, events are written to a topic of each. It prints of each how many a second reached
a subscriber, what CPU the process took for a thousand, how many were lost and how many came after a later one
of their partition, and medians at the end. It uses nothing but the doors, so another build's interpreter
runs it too. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import aiomqtt
import psutil
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from bench.peers.build import built

from local_stack.stack import Stack

PATIENCE_SECONDS = 60
WARMING = 100
EDGE = "edge1"
PEERS = {"Bento in order": 1, "Bento in any order": 64}
"""How many events each has on their way to MQTT."""


@dataclass
class Bridge:
    """A process that brings what is written to a topic of Kafka to one of MQTT.

    `figures` are of each round the CPU seconds for a thousand events and the events a second.
    """

    process: psutil.Process
    source: str
    facts: dict[str, str]
    seen: list[int] = field(default_factory=list)
    figures: list[tuple[float, float]] = field(default_factory=list)


async def main(count: int, rounds: int) -> None:
    """Measure, and print a line of JSON for each round and one of the medians."""
    async with AsyncExitStack() as running:
        home = Path(running.enter_context(tempfile.TemporaryDirectory()))
        stack = await running.enter_async_context(Stack(home, parts=("monitor",)))
        monitor = next(part for part in stack.state.parts if part.name.startswith("monitor"))
        bridges = {"monitor": Bridge(psutil.Process(monitor.pid), EDGE, {})}
        if program := await asyncio.to_thread(built, "bento"):
            for name, in_flight in PEERS.items():
                topic = f"bento-{in_flight}"
                bento = await running.enter_async_context(_bento(program, stack, topic, in_flight))
                bridges[topic] = Bridge(bento, topic, {"by": name})
        producer = AIOKafkaProducer(bootstrap_servers=stack.kafka, linger_ms=20)
        await running.enter_async_context(producer)
        listener = asyncio.create_task(_listen(stack.port("mqtt-edge1", "mqtt"), bridges))
        for bridge in bridges.values():
            await _carried(producer, bridge, WARMING)
        for _ in range(rounds):
            for bridge in bridges.values():
                await _round(producer, bridge, count)
        listener.cancel()
        for bridge in bridges.values():
            medians = [statistics.median(each) for each in zip(*bridge.figures, strict=True)]
            resident = bridge.process.memory_info().rss / 2**20
            _tell(bridge, {**_facts(*medians), "resident_mb": round(resident, 1)})


@asynccontextmanager
async def _bento(program: Path, stack: Stack, topic: str, in_flight: int) -> AsyncIterator[psutil.Process]:
    """Run Bento from a topic of Kafka, with as many partitions as the monitor's, to MQTT's of that name."""
    admin = AIOKafkaAdminClient(bootstrap_servers=stack.kafka)
    await admin.start()
    (edge,) = await admin.describe_topics([EDGE])
    await admin.create_topics([NewTopic(topic, len(edge["partitions"]), 1)])
    await admin.close()
    source = {"seed_brokers": [stack.kafka], "topics": [topic], "consumer_group": topic}
    urls = [f"tcp://127.0.0.1:{stack.port('mqtt-edge1', 'mqtt')}"]
    sink = {"urls": urls, "topic": topic, "client_id": topic, "qos": 1, "max_in_flight": in_flight}
    config = {
        "http": {"enabled": False},
        "logger": {"level": "WARN"},
        "metrics": {"none": {}},
        "input": {"kafka_franz": source},
        "output": {"mqtt": sink},
    }
    file = stack.settings.home / f"{topic}.json"
    await asyncio.to_thread(file.write_text, json.dumps(config))
    process = await asyncio.create_subprocess_exec(program, "-c", file, stdout=sys.stderr)
    try:
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        await process.wait()


async def _round(producer: AIOKafkaProducer, bridge: Bridge, count: int) -> None:
    before = len(bridge.seen)
    began, spent = time.perf_counter(), _cpu(bridge.process)
    partitions = await _carried(producer, bridge, count)
    took, spent = time.perf_counter() - began, _cpu(bridge.process) - spent
    bridge.figures.append((spent / count * 1000, count / took))
    seen = bridge.seen[before:]
    late = sum(
        after < first
        for partition in range(partitions)
        for first, after in pairwise(number for number in seen if number % partitions == partition)
    )
    _tell(bridge, {**_facts(*bridge.figures[-1]), "lost": count - len(set(seen)), "late": late})


def _tell(bridge: Bridge, facts: dict[str, float]) -> None:
    sys.stdout.write(json.dumps(bridge.facts | facts) + "\n")


def _facts(cpu: float, rate: float) -> dict[str, float]:
    return {"cpu_s_per_1000": round(cpu, 3), "events_per_s": round(rate)}


async def _carried(producer: AIOKafkaProducer, bridge: Bridge, count: int) -> int:
    """Write events to the partitions in turns, and wait until as many came out; return the partitions."""
    first = len(bridge.seen)
    partitions = len(await producer.partitions_for(bridge.source))
    numbers = range(first, first + count)
    events = [{"name": "detection", "item": "tea-lemon", "score": 0.93, "n": number} for number in numbers]
    sent = [
        await producer.send(bridge.source, json.dumps(event).encode(), partition=number % partitions)
        for number, event in zip(numbers, events, strict=True)
    ]
    await asyncio.gather(*sent)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while len(bridge.seen) < first + count and time.monotonic() < deadline:
        await asyncio.sleep(0.01)
    return partitions


async def _listen(port: int, bridges: dict[str, Bridge]) -> None:
    async with aiomqtt.Client("127.0.0.1", port) as client:
        for topic in bridges:
            await client.subscribe(topic, qos=1)
        async for message in client.messages:
            event = json.loads(message.payload)
            if "n" in event:
                bridges[message.topic.value].seen.append(event["n"])


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure what it costs to bridge an event.")
    parser.add_argument("--events", type=int, default=10_000, help="of a round")
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    asyncio.run(main(chosen.events, chosen.rounds))
