"""One group of 1, 2 and 4 consumers on a topic of four partitions: `bench_consumers.py [messages] [rounds]`.

A broker of its own keeps a topic that the services' own call makes with `KAFKA_PARTITIONS=4`. Each member is
a process that joins, waits until the topic is filled, then reads by our consumer and commits. It prints a
line of JSON for each size of the group, medians of the rounds: messages a second from the word to begin until
the last one is read, CPU of all members in ms a thousand messages, how many members had a share, how many
messages nobody read, and how many came twice.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from caravan import kafka, kafka_topics
from caravan.settings import KafkaSettings
from local_stack.stack import Stack

PARTITIONS = 4
MEMBERS = (1, 2, 4)
BYTES = 200
AT_ONCE = 200
QUIET_SECONDS = 5.0
"""So long after its last message a member takes the topic for read."""


async def main(messages: int, rounds: int) -> None:
    """Measure each size of the group in turns, and print the medians."""
    rows: dict[int, list[dict[str, float]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as home:
        async with Stack(Path(home), parts=("s3-central", "kafka"), lasting=False) as stack:
            for number in range(rounds):
                for members in MEMBERS:
                    topic = f"shared-{number}-{members}"
                    rows[members].append(await _shared(stack.kafka, topic, members, messages))
    for members, figures in rows.items():
        medians = {name: round(statistics.median(one[name] for one in figures), 3) for name in figures[0]}
        _say({"members": members, "messages": messages, "rounds": rounds, **medians})


async def _shared(address: str, topic: str, members: int, messages: int) -> dict[str, float]:
    settings = KafkaSettings(kafka_bootstrap_servers=address, kafka_partitions=str(PARTITIONS))
    await kafka_topics.ensure_topics(settings, [topic])
    command = (sys.executable, __file__, "member", address, topic)
    pipe = asyncio.subprocess.PIPE
    processes = [
        await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe) for _ in range(members)
    ]
    for process in processes:
        assert process.stdout is not None
        await process.stdout.readline()  # It has joined.
    async with kafka.Producer(settings) as producer:
        for start in range(0, messages, AT_ONCE):
            numbers = range(start, min(start + AT_ONCE, messages))
            await asyncio.gather(
                *(producer.send(topic, f"{n:0{BYTES}}".encode(), key=str(n).encode()) for n in numbers)
            )
    began = time.time()
    ends = await asyncio.gather(*(process.communicate(b"begin\n") for process in processes))
    told = [json.loads(output) for output, _ in ends]
    seen = {number for one in told for number in one["numbers"]}
    busy = [one for one in told if one["numbers"]]
    return {
        "a second": len(seen) / (max(one["last"] for one in busy) - began),
        "CPU ms a thousand": sum(one["cpu"] for one in told) / len(seen) * 1e6,
        "members with a share": len(busy),
        "unread": messages - len(seen),
        "read twice": sum(len(one["numbers"]) for one in told) - len(seen),
    }


async def member(address: str, topic: str) -> None:
    """Read as one of a group until nothing comes any more, and tell what came."""
    settings = KafkaSettings(kafka_bootstrap_servers=address)
    numbers: list[int] = []
    async with kafka.consumer(settings, topic, group=f"{topic}-readers") as source:
        _say({"joined": True})
        await asyncio.to_thread(sys.stdin.readline)
        last, cpu, began = time.time(), 0.0, time.process_time()
        while time.time() < last + QUIET_SECONDS:
            batch = await source.getmany(timeout_ms=500)
            if batch:
                numbers += [int(record.value) for records in batch.values() for record in records]
                await source.commit({part: records[-1].offset + 1 for part, records in batch.items()})
                last, cpu = time.time(), time.process_time() - began
    _say({"numbers": numbers, "last": last, "cpu": cpu})


def _say(facts: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    if sys.argv[1:2] == ["member"]:
        asyncio.run(member(*sys.argv[2:4]))
    else:
        asyncio.run(main(*(int(word) for word in [*sys.argv[1:3], "8000", "3"][:2])))
