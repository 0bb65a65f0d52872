"""The main job of the product, told from top to bottom: a shop learns a product that it did not know."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import httpx

from caravan.settings import CentralS3Settings, KafkaSettings
from caravan.tokens import TokenSettings
from lab.demo import steps
from lab.demo.doors import Doors
from lab.demo.errors import NotShown
from lab.demo.events import followed
from lab.demo.prober import probing
from lab.demo.screen import Screen
from lab.demo.supply import Supply, held_out_of, rendered
from lab.zips import photos
from local_stack.launch import clean
from local_stack.stack import Stack
from local_stack.state import Phase, StackState

T = TypeVar("T")
Progress = Callable[[int, int], None]

EDGE = "edge1"
START_SECONDS = 300.0
PHOTO_SECONDS = 600.0
LINGER_SECONDS = 2.0
"""How long the customer goes on asking after the last step."""


@dataclass(frozen=True, slots=True)
class Zips:
    """The user's own photos: what is known first, and what is new."""

    first: Path
    new: Path


async def tell(screen: Screen, home: Path, zips: Zips | None) -> None:
    """Do everything in a folder that is empty before, and stop everything that was started.

    Raises:
        NotShown: at the first claim that does not hold.
        CaravanError: if something cannot be done at all.

    """
    await clean(home)
    folder = home / "data" / "photos"
    await asyncio.to_thread(folder.mkdir, parents=True)
    supply = await gather(screen, folder, zips)
    async with (
        started(screen, home) as stack,
        doors_of(stack) as doors,
        followed(KafkaSettings(kafka_bootstrap_servers=stack.kafka), EDGE) as events,
    ):
        customer = [photo.data for photo in supply.known]

        await steps.upload(screen, doors, supply.first, supply.first_images, "Uploading the first photos")
        one = await steps.train(screen, doors, events, above=0)
        await steps.serve(screen, doors, one, customer[0])
        await steps.recognise(screen, doors, supply, one)
        await steps.not_known_yet(screen, doors, supply, one)

        async with probing(doors.detect, customer) as tally:
            title = f"Uploading photos of {supply.product}"
            await steps.upload(screen, doors, supply.new, supply.new_images, title)
            uploaded = time.monotonic()
            two = await steps.train(screen, doors, events, above=one)
            await steps.serve(screen, doors, two, customer[0])
            await steps.now_known(screen, doors, supply, two, uploaded)
            await asyncio.sleep(LINGER_SECONDS)
        steps.swapped(screen, tally, one, two)


async def gather(screen: Screen, folder: Path, zips: Zips | None) -> Supply:
    """Render the photos, or read the user's, and hold some of the new product out."""
    title = "Rendering photos of packages" if zips is None else "Reading the photos"
    route = "some photos of the new product are held out: no model will train on them"
    with screen.step("photos", title, route) as step:

        def make(tell: Progress) -> Supply:
            supply = rendered(folder, tell) if zips is None else held_out_of(zips.first, zips.new, folder)
            check_held_out(supply)
            return supply

        supply = await in_thread(make, lambda done, of: step.update(done, of, f"{done} of {of} photos"))
        held = len(supply.held_out)
        step.end(
            f"{supply.first_images} photos to begin with, {supply.new_images} of what is new; "
            f"{held} of {supply.product} held out"
        )
    return supply


def check_held_out(supply: Supply) -> None:
    """Read both ZIPs again: neither may contain a photo that is held out."""
    held = {photo.sha256 for photo in supply.held_out}
    for zipped in (supply.first, supply.new):
        for photo in photos(zipped):
            steps.claim(photo.sha256 not in held, f"{photo.name} is held out, but {zipped.name} has it")


@asynccontextmanager
async def started(screen: Screen, home: Path) -> AsyncIterator[Stack]:
    """Run a stack of its own on free ports, and stop it at the end, however that comes."""
    async with AsyncExitStack() as ends:
        route = (
            "central: S3, Kafka, feeder, delivery, training; edge1: S3, MQTT, model server, three services"
        )
        with screen.step("stack", "Starting Caravan on free ports", route) as step:

            def progress(state: StackState) -> None:
                waiting = [part.name for part in state.parts if part.phase is not Phase.READY]
                note = f"waiting for {waiting[0]}" if waiting else ""
                step.update(len(state.parts) - len(waiting), len(state.parts), note)

            try:
                async with asyncio.timeout(START_SECONDS):
                    stack = await ends.enter_async_context(Stack(home, edges=(EDGE,), on_change=progress))
            except TimeoutError as exc:
                raise NotShown(f"the stack was not ready within {START_SECONDS:.0f} s") from exc
            step.end(f"{len(stack.names)} parts are ready")
        yield stack


@asynccontextmanager
async def doors_of(stack: Stack) -> AsyncIterator[Doors]:
    """Open the doors of a stack."""
    central = CentralS3Settings(s3_central_endpoint=stack.url("s3-central", "s3")).central
    token = await asyncio.to_thread(lambda: TokenSettings().door.first)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    # Loopback needs no proxy.
    async with httpx.AsyncClient(trust_env=False, headers=headers) as http:
        yield Doors(
            http,
            EDGE,
            feeder=stack.url("feeder"),
            shopper=stack.url(f"shopper-{EDGE}"),
            model_server=stack.url(f"model-server-{EDGE}", "rest"),
            central=central,
        )


async def in_thread(work: Callable[[Progress], T], on_progress: Progress) -> T:
    """Do long work in a thread that tells its progress; cancelled, it ends when it next tells."""
    loop = asyncio.get_running_loop()
    ended = threading.Event()

    def tell(done: int, of: int) -> None:
        if ended.is_set():
            raise InterruptedError
        loop.call_soon_threadsafe(on_progress, done, of)

    try:
        async with asyncio.timeout(PHOTO_SECONDS):
            return await asyncio.to_thread(work, tell)
    except TimeoutError as exc:
        raise NotShown(f"the photos were not there within {PHOTO_SECONDS:.0f} s") from exc
    finally:
        ended.set()
