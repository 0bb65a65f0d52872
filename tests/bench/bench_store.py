"""What the S3 servers of an edge cost that are here, in turn: 500 photos put, listed and read."""

import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path

import obstore
import psutil

from caravan import s3
from local_stack.engines.versitygw import VERSITYGW
from local_stack.errors import StackError
from local_stack.stack import Stack

PHOTOS, BYTES, AT_ONCE, ROUNDS = 500, 110_000, 8, 3


def family(pid: int) -> list[psutil.Process]:
    leader = psutil.Process(pid)
    return [leader, *leader.children(recursive=True)]


def cpu(pid: int) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in family(pid))


def memory(pid: int) -> float:
    return sum(process.memory_info().rss for process in family(pid)) / 1e6


async def measure(engine: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        stack = Stack(Path(folder), parts=("s3",), environment={"S3": engine}, lasting=False)
        async with stack:
            pid = stack.state.part("s3-edge1").pid
            assert pid is not None
            bucket = s3.open_bucket(stack.s3("s3-edge1"), "data")
            content = bytes(range(256)) * (BYTES // 256)
            places = asyncio.Semaphore(AT_ONCE)

            async def put(number: int) -> None:
                async with places:
                    await s3.put_new(bucket, f"images/tea/{number}.jpg", content + str(number).encode())

            async def get(number: int) -> None:
                async with places:
                    await s3.read(bucket, f"images/tea/{number}.jpg")

            before, began = cpu(pid), time.perf_counter()
            await asyncio.gather(*(put(number) for number in range(PHOTOS)))
            put_cpu, put_wall = cpu(pid) - before, time.perf_counter() - began
            before = cpu(pid)
            listed = [one async for one in s3.listing(bucket, "images/")]
            assert len(listed) == PHOTOS
            list_cpu, before = cpu(pid) - before, cpu(pid)
            await asyncio.gather(*(get(number) for number in range(PHOTOS)))
            get_cpu = cpu(pid) - before
            await obstore.delete_async(bucket, [one["path"] for one in listed])
            return {
                "put_cpu_ms": 1000 * put_cpu / PHOTOS,
                "put_a_second": PHOTOS / put_wall,
                "get_cpu_ms": 1000 * get_cpu / PHOTOS,
                "list_cpu_ms": 1000 * list_cpu,
                "resident_mb": memory(pid),
            }


async def main() -> None:
    engines = ["embedded", "files"]
    try:
        VERSITYGW.found()
        engines.append("versitygw")
    except StackError as exc:
        print(exc)  # noqa: T201
    found: dict[str, list[dict[str, float]]] = {engine: [] for engine in engines}
    for _ in range(ROUNDS):
        for engine in engines:
            found[engine].append(await measure(engine))
    for engine, rounds in found.items():
        medians = {name: round(statistics.median(one[name] for one in rounds), 2) for name in rounds[0]}
        print(json.dumps({"bench": "store", "engine": engine, **medians}))  # noqa: T201


if __name__ == "__main__":
    asyncio.run(main())
