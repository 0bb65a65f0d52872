"""The steps of the demo. Each claims only what a real answer has shown, and raises `NotShown` otherwise."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

from caravan.contracts import OTHER, Event
from lab.demo.doors import Answer, Doors
from lab.demo.errors import BadAnswer, NotShown
from lab.demo.prober import Tally
from lab.demo.screen import Screen, Step
from lab.demo.supply import Supply

TRAINING_SECONDS = 600.0
SERVING_SECONDS = 120.0
POLL = 0.1
ENOUGH_PROBES = 10
GENERALISES = 2 / 3
"""The share of held-out photos that must be answered rightly in the end."""


def claim(holds: object, otherwise: str) -> None:
    """Go on only if something holds."""
    if not holds:
        raise NotShown(otherwise)


async def upload(screen: Screen, doors: Doors, zipped: Path, images: int, title: str) -> None:
    """Send a ZIP to the feeder, as `curl -T` does; every image must be accounted for."""
    route = f"curl -T → feeder, which checks every entry → S3 {doors.edge}-data → Kafka trigger"
    with screen.step("upload", title, route) as step:
        account = await doors.upload(
            zipped, lambda sent, of: step.update(sent, of, f"{sent / 2**20:.0f} of {of / 2**20:.0f} MiB")
        )
        stored, duplicates = int(account.get("stored", 0)), int(account.get("duplicates", 0))
        rejected = len(account.get("rejected", ()))
        claim(stored > 0, f"the feeder stored nothing: {account}")
        claim(
            stored + duplicates + rejected == images,
            f"of {images} images the feeder accounts for {stored} + {duplicates} + {rejected}",
        )
        more = [f"{n} {what}" for n, what in ((duplicates, "duplicates"), (rejected, "rejected")) if n]
        step.end(", ".join([f"{stored} photos stored", *more]))


async def train(screen: Screen, doors: Doors, events: AsyncIterator[Event], above: int) -> int:
    """Follow the training by the edge's events, until a version above `above` has passed the gate."""
    route = "Kafka trigger → delivery → EventListener → pipeline: acquire, train, evaluate, publish"
    with screen.step("training", "Training, told by events on Kafka", route) as step:
        version = await _passed(events, above, step)
        manifest = await doors.manifest(version)
        accuracy = manifest.lineage.metrics.get("accuracy")
        if not isinstance(accuracy, int | float):
            raise NotShown(f"the manifest of version {version} tells no accuracy")
        step.end(f"version {version} passed the gate", version, accuracy)
    return version


async def _passed(events: AsyncIterator[Event], above: int, step: Step) -> int:
    stage, begun = "none", False
    try:
        async with asyncio.timeout(TRAINING_SECONDS):
            async for event in events:
                match event:
                    case {"name": "pipeline"}:
                        begun = True  # what came before belongs to an earlier run
                    case {"name": "training", "stage": str(now), "progress": int() | float() as progress} if (
                        begun
                    ):
                        stage = now
                        step.update(progress, 1, stage)
                    case {"name": "model-ready", "version": int(version)} if version > above:
                        return version
                    case {"name": "model-rejected", "reason": reason}:
                        raise NotShown(f"the pipeline rejected the new model: {reason}")
    except TimeoutError as exc:
        waited = f"{TRAINING_SECONDS:.0f} s"
        raise NotShown(
            f"no version passed the gate within {waited}; the last stage told was {stage}"
        ) from exc
    raise NotShown("Kafka's events ended")


async def serve(screen: Screen, doors: Doors, version: int, photo: bytes) -> None:
    """Wait until the model server has a version, and the shopper answers with it."""
    route = f"S3 {doors.edge}-ready → edge-manager, which verifies every byte → S3 production → model server"
    with screen.step("serving", "The edge takes the new model", route) as step:

        async def loaded() -> bool:
            return version in await doors.available()

        async def answering() -> bool:
            return (await doors.detect(photo)).version == version

        await _until(loaded, f"the model server has version {version}")
        step.update(1, 2, "loaded by the model server")
        await _until(answering, f"the shopper answers with version {version}")
        step.end(f"model server and shopper answer with version {version}", version)


async def recognise(screen: Screen, doors: Doors, supply: Supply, version: int) -> None:
    """Ask about products that it was taught."""
    route = "photo → shopper → model server, over gRPC → catalogue"
    with screen.step("known", "Photos of what it was taught", route) as step:
        answers = [(photo.product, await doors.detect(photo.data)) for photo in supply.known]
        right = [answer for product, answer in answers if answer.known and answer.item == product]
        claim(right, f"version {version} recognises none of {', '.join(product for product, _ in answers)}")
        tags = ", ".join(f"“{answer.pricetag}”" for answer in right)
        step.end(f"{len(right)} of {len(answers)} right: {tags}", version)


async def not_known_yet(screen: Screen, doors: Doors, supply: Supply, version: int) -> None:
    """Ask about the new product: it must be answered `other`."""
    route = "photo → shopper → model server → not known → S3 unclassified"
    with screen.step("before", f"A photo of {supply.product}, which nobody has taught it", route) as step:
        answers = await _ask_all(doors, supply, step)
        first = answers[0]
        claim(
            not first.known and first.item == OTHER,
            f"{supply.shown.name} was not answered 'other' but {_told(first)}, before anyone taught it that",
        )
        claim(first.version == version, f"version {first.version} answered, not {version}")
        others = sum(not answer.known for answer in answers)
        step.end(f"“{first.pricetag}”; {others} of {len(answers)} held-out photos are not known", version)
    screen.picture(supply.shown.data, f"“{first.pricetag}”")


async def now_known(screen: Screen, doors: Doors, supply: Supply, version: int, uploaded: float) -> None:
    """Ask about the same photos again: name and price must be right. `uploaded` is a monotonic time."""
    route = "the same photo → shopper → model server → catalogue → S3 valid"
    with screen.step("after", "The same photo, once more", route) as step:
        price = await doors.price(supply.product)
        answers = await _ask_all(doors, supply, step)
        first = answers[0]
        claim(
            first.known and first.item == supply.product,
            f"{supply.shown.name} is not answered {supply.product!r} but {_told(first)}",
        )
        waited = time.monotonic() - uploaded
        claim(
            (first.label, first.price) == (price.label, price.price),
            f"it is answered {_told(first)}; the catalogue says {price.label}: {price.price}",
        )
        claim(first.version == version, f"version {first.version} answered, not {version}")
        right = sum(answer.known and answer.item == supply.product for answer in answers)
        claim(
            right >= GENERALISES * len(answers),
            f"of {len(answers)} held-out photos of {supply.product} only {right} are recognised",
        )
        held = f"{right} of {len(answers)} held-out photos right"
        tag = f"“{first.pricetag}”, score {first.score:.2f}"
        step.end(f"{tag}, {waited:.0f} s after the upload; {held}", version)
    screen.picture(supply.shown.data, f"“{first.pricetag}”")


def swapped(screen: Screen, tally: Tally, before: int, after: int) -> None:
    """Count what a customer saw who never stopped asking while models were swapped."""
    route = "detections all the while, one after the other"
    with screen.step("swap", "A customer who never stopped asking", route) as step:
        claim(
            tally.errors == 0,
            f"{tally.errors} of {tally.asked} detections failed, the first: {tally.first_error}",
        )
        claim(tally.asked >= ENOUGH_PROBES, f"there were only {tally.asked} detections")
        claim(
            tally.answers[before] and tally.answers[after],
            f"versions {before} and {after} did not both answer: {dict(tally.answers)}",
        )
        counts = ", ".join(f"{n} by version {version}" for version, n in sorted(tally.answers.items()))
        what = f"{tally.asked} detections, 0 errors: {counts}; the slowest {tally.slowest:.1f} s"
        step.end(what, after, seconds=tally.seconds)


async def _ask_all(doors: Doors, supply: Supply, step: Step) -> Sequence[Answer]:
    answers = []
    for photo in supply.held_out:
        answers.append(await doors.detect(photo.data))
        step.update(len(answers), len(supply.held_out), answers[-1].pricetag)
    return answers


async def _until(holds: Callable[[], Awaitable[bool]], what: str) -> None:
    """Ask again and again; a door that does not answer well yet is asked again too."""
    last = ""
    try:
        async with asyncio.timeout(SERVING_SECONDS):
            while True:
                try:
                    if await holds():
                        return
                except BadAnswer as exc:
                    last = f"; {exc}"
                await asyncio.sleep(POLL)
    except TimeoutError as exc:
        raise NotShown(f"{SERVING_SECONDS:.0f} s went by without this: {what}{last}") from exc


def _told(answer: Answer) -> str:
    return f"“{answer.pricetag}” (score {answer.score:.2f}, version {answer.version})"
