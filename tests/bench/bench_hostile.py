"""Measure what senders who are slow, many, or never finish cost those who are not.

Run it with `make bench-hostile`, which takes some two minutes. It starts a stack of its own on free ports,
teaches it a few rendered photos, and asks it alone; then again beside, at each of feeder and shopper, 400
senders whose bodies never end, 50 idle connections, and 20 callers with images that take long to decode. All
of them are ordinary bytes, from this machine to this machine, for half a minute. Nothing is asserted.
"""

from __future__ import annotations

import asyncio
import io
import multiprocessing
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
from PIL import Image
from rich.console import Console
from rich.table import Table

from lab.photos import render, render_zip
from local_stack.stack import Stack
from local_stack.state import PartState

SLOW, IDLE, COSTLY = 400, 50, 20
BURST, DROP = 2**18, 2**6
"""Bytes that a slow sender sends at once, and then each second: less than any door wants."""
SECONDS = 30
SETTLE = 6.0
"""Until all of them are there."""
FIRST = {"other": 120, "tea-lemon": 60, "tea-earl-grey": 60}
ORDINARY = {"tea-lemon": 3, "other": 3}
MIB, MB = 2**20, 10**6

console = Console()


@dataclass
class Times:
    """How long ordinary requests took, how many were told to come again, and how the others were answered."""

    taken: dict[str, list[float]]
    told: int = 0
    processes: dict[str, tuple[int, int]] = field(default_factory=dict)
    statuses: Counter[int] = field(default_factory=Counter)


async def main() -> None:
    """Run it all and print two tables."""
    with tempfile.TemporaryDirectory() as folder:
        first, ordinary = Path(folder, "first.zip"), Path(folder, "ordinary.zip")
        render_zip(first, FIRST, 1)
        render_zip(ordinary, ORDINARY, 2)
        console.print("starting a stack")
        async with Stack(Path(folder, "home")) as stack, httpx.AsyncClient(timeout=60) as http:
            console.print("teaching it")
            await _upload(stack, http, await asyncio.to_thread(first.read_bytes))
            photo, archive = render("tea-lemon", 7), await asyncio.to_thread(ordinary.read_bytes)
            await _until(lambda: _known(stack, http, photo))
            console.print(f"asking it alone, for {SECONDS} s")
            alone = await _measured(stack, http, photo, archive)
            console.print(f"asking it beside the others, for {SECONDS} s")
            with _others(stack) as costly:
                await asyncio.sleep(SETTLE)
                beside = await _measured(stack, http, photo, archive)
                beside.statuses = Counter(costly)
    _show(alone, beside)


def _show(alone: Times, beside: Times) -> None:
    table = Table("what, medians", "alone", "beside", "ratio", "longest beside")
    for name, times in alone.taken.items():
        before, after = statistics.median(times), statistics.median(beside.taken[name])
        figures = [f"{one * 1000:.0f} ms" for one in (before, after)]
        table.add_row(name, *figures, f"{after / before:.1f}", f"{max(beside.taken[name]) * 1000:.0f} ms")
    console.print(table)
    processes = Table("process", "most resident alone", "beside", "most open files alone", "beside")
    for name in sorted(alone.processes | beside.processes):
        both = [times.processes.get(name, (0, 0)) for times in (alone, beside)]
        sizes = [f"{size / MB:.0f} MB" if size else "-" for size, _ in both]
        processes.add_row(name, *sizes, *(str(files or "-") for _, files in both))
    console.print(processes)
    console.print("the costly images were answered:", dict(beside.statuses))
    console.print("ordinary requests told to come again:", beside.told)


# --- ordinary -----------------------------------------------------------------------------------------


async def _measured(stack: Stack, http: httpx.AsyncClient, photo: bytes, archive: bytes) -> Times:
    shopper, feeder = stack.url("shopper-edge1"), stack.url("feeder")
    asks: dict[str, tuple[float, Callable[[], Awaitable[httpx.Response]]]] = {
        "detection": (0.1, lambda: http.post(f"{shopper}/binary", content=photo)),
        "upload of six photos": (1.0, lambda: http.put(f"{feeder}/zip?edgeId=edge1", content=archive)),
        "/healthz of the shopper": (0.2, lambda: http.get(f"{shopper}/healthz")),
        "/healthz of the feeder": (0.2, lambda: http.get(f"{feeder}/healthz")),
    }
    times = Times({name: [] for name in asks})
    end = time.perf_counter() + SECONDS

    async def ask(name: str, every: float, what: Callable[[], Awaitable[httpx.Response]]) -> None:
        while (began := time.perf_counter()) < end:
            answer = await what()
            while answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:  # as a client does that is told so
                times.told += 1
                await asyncio.sleep(0.5)
                answer = await what()
            answer.raise_for_status()
            times.taken[name].append(time.perf_counter() - began)
            await asyncio.sleep(every)

    watching = asyncio.create_task(_watch(stack, times.processes))
    await asyncio.gather(*(ask(name, *one) for name, one in asks.items()))
    watching.cancel()
    return times


async def _upload(stack: Stack, http: httpx.AsyncClient, archive: bytes) -> None:
    answer = await http.put(f"{stack.url('feeder')}/zip?edgeId=edge1", content=archive)
    answer.raise_for_status()


async def _known(stack: Stack, http: httpx.AsyncClient, photo: bytes) -> bool:
    answer = await http.post(f"{stack.url('shopper-edge1')}/binary", content=photo)
    return answer.is_success and answer.json()["pricetag"] == "Lemon Tea: 4.99"


async def _until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(180):
        while not await holds():
            await asyncio.sleep(0.2)


async def _watch(stack: Stack, most: dict[str, tuple[int, int]]) -> None:
    """Note the most memory and open files of each process and of its largest child."""
    while True:
        for part in stack.state.parts:
            with suppress(psutil.Error):  # a child may have ended
                for name, process in _processes(part):
                    size, files = most.get(name, (0, 0))
                    most[name] = (max(size, process.memory_info().rss), max(files, process.num_fds()))
        await asyncio.sleep(0.5)


def _processes(part: PartState) -> Iterator[tuple[str, psutil.Process]]:
    if part.identity is not None:
        process = psutil.Process(part.identity.pid)
        yield part.name, process
        for child in process.children(recursive=True):
            yield f"{part.name}, a child", child


# --- the others ---------------------------------------------------------------------------------------


@contextmanager
def _others(stack: Stack) -> Iterator[list[int]]:
    """Let the others loose, in a process of their own; yields how the costly images were answered."""
    shopper, feeder = stack.url("shopper-edge1"), stack.url("feeder")
    with multiprocessing.Manager() as manager:
        statuses = manager.list()
        process = multiprocessing.get_context("spawn").Process(
            target=_run_others, args=(shopper, feeder, statuses), daemon=True
        )
        process.start()
        try:
            yield statuses  # type: ignore[misc]  # a list in another process
        finally:
            process.terminate()
            process.join()


def _run_others(shopper: str, feeder: str, statuses: list[int]) -> None:
    image = _costly_image()

    async def run() -> None:
        doors = [(shopper, "POST", "/binary"), (feeder, "PUT", "/zip?edgeId=edge1")]
        await asyncio.gather(
            *(_slow(*door) for door in doors for _ in range(SLOW)),
            *(_idle(url) for url, _, _ in doors for _ in range(IDLE)),
            *(_costly(shopper, image, statuses) for _ in range(COSTLY)),
        )

    asyncio.run(run())


def _costly_image() -> bytes:
    """Return a PNG of 12 megapixels, as any camera's: it has to be decoded, and made a JPEG."""
    picture = Image.radial_gradient("L").resize((4000, 3000)).convert("RGB")
    target = io.BytesIO()
    picture.save(target, "PNG", compress_level=1)
    return target.getvalue()


async def _slow(url: str, method: str, path: str) -> None:
    while True:
        try:
            reader, writer = await _connected(url)
            head = f"{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {8 * MIB}\r\n\r\n"
            writer.write(head.encode() + bytes(BURST))
            reading = asyncio.create_task(reader.read())
            while not reading.done():
                writer.write(bytes(DROP))
                await asyncio.wait([reading], timeout=1)
            writer.close()
            await reading  # raises where the connection was reset
        except OSError:
            await asyncio.sleep(1)


async def _idle(url: str) -> None:
    while True:
        try:
            reader, writer = await _connected(url)
            await reader.read()
            writer.close()
        except OSError:
            await asyncio.sleep(1)


async def _costly(url: str, image: bytes, statuses: list[int]) -> None:
    async with httpx.AsyncClient(timeout=60) as http:
        while True:
            try:
                answer = await http.post(f"{url}/binary", content=image)
                statuses.append(answer.status_code)
                if answer.is_error:
                    await asyncio.sleep(1)
            except httpx.HTTPError:
                await asyncio.sleep(1)


async def _connected(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    where = urlsplit(url)
    return await asyncio.open_connection(where.hostname, where.port)


if __name__ == "__main__":
    asyncio.run(main())
