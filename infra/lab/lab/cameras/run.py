"""All cameras at once, and afterwards the comparison with the hub."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal

import httpx

from lab.cameras import camera, hub
from lab.cameras.camera import Film
from lab.cameras.doors import Doors, check
from lab.cameras.lines import Json, Late, Line, MqttLine, MqttLines, Tensor, connected, http_line
from lab.cameras.pictures import Picture
from lab.cameras.screen import Draw, Screen
from lab.cameras.tally import Answer, Comparison, Tally

Over = Literal["http", "mqtt", "tensor"]
TICK = 0.5
LATE_SECONDS = 5.0
"""How long answers may still come in for images that were given up."""


@dataclass(frozen=True, slots=True)
class Shoot:
    """What is filmed, and how.

    Args:
        cameras: how many.
        film: what each does.
        over: the way to the shopper.
        shared: one MQTT connection for all; a tensor's cameras share theirs in any case.
        model: the model asked for, "" for the shopper's default.
        serves: the model that must serve for that.
        topic: of the tensors.
        replies: topic of their answers.
        threshold: from which score on an answer is certain.
        seed: of every camera's choices.
        patience: seconds that the hub has beyond its window.

    """

    cameras: int
    film: Film
    over: Over
    shared: bool
    model: str
    serves: str
    topic: str
    replies: str
    threshold: float
    seed: int
    patience: float


@dataclass(slots=True)
class Filmed:
    """What came of it. `comparisons` is empty where nobody compared; times in seconds."""

    tallies: Mapping[str, Tally]
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    comparisons: Mapping[str, Comparison] | None = None

    @property
    def good(self) -> bool:
        """Whether there were answers, and the hub counted each of them once."""
        equal = self.comparisons is None or all(each.equal for each in self.comparisons.values())
        return equal and any(tally.answered for tally in self.tallies.values())


def names(cameras: int) -> list[str]:
    """Name so many cameras; no two runs have the same names, so that the hub's counts are this run's."""
    run = secrets.token_hex(3)
    digits = max(2, len(str(cameras)))
    return [f"cam-{run}-{number:0{digits}}" for number in range(1, cameras + 1)]


async def shoot(
    plan: Shoot, doors: Doors, pictures: Sequence[Picture], screen: Screen, *, compare: bool
) -> Filmed:
    """Film with every camera, then compare with the hub.

    Raises:
        StackError: if a door is closed, or no model serves.

    """
    headers = {"authorization": f"Bearer {doors.token}"} if doors.token else {}
    async with httpx.AsyncClient(trust_env=False, headers=headers) as http:  # loopback needs no proxy
        await check(http, doors, plan.serves)
        filmed = Filmed({name: Tally(plan.threshold) for name in names(plan.cameras)})
        await _film(plan, doors, pictures, filmed, screen)
        if compare:
            with screen.comparing(filmed.tallies) as told:
                filmed.comparisons = await hub.settled(
                    http, doors.hub, doors.edge, filmed.tallies, patience=plan.patience, on_poll=told
                )
    return filmed


async def _film(
    plan: Shoot, doors: Doors, pictures: Sequence[Picture], filmed: Filmed, screen: Screen
) -> None:
    tallies = filmed.tallies

    def late(name: str, answer: Answer) -> None:
        if name in tallies:
            tallies[name].take_late(answer)

    async with _line(plan, doors, list(tallies), late) as line:
        began, cpu = time.monotonic(), time.process_time()
        with screen.filming(tallies, plan.film.seconds) as draw:
            async with asyncio.TaskGroup() as group:
                ticking = group.create_task(_tick(draw), name="screen")
                running = [
                    group.create_task(
                        camera.run(name, plan.film, line, pictures, tally=tally, seed=plan.seed), name=name
                    )
                    for name, tally in tallies.items()
                ]
                await asyncio.wait(running)
                filmed.seconds = time.monotonic() - began
                filmed.cpu_seconds = time.process_time() - cpu
                if plan.over != "http":
                    await _late_answers(tallies)
                ticking.cancel()


async def _tick(draw: Draw) -> None:
    while True:
        draw()
        await asyncio.sleep(TICK)


async def _late_answers(tallies: Mapping[str, Tally]) -> None:
    if any(tally.unknown for tally in tallies.values()):
        await asyncio.sleep(LATE_SECONDS)


@asynccontextmanager
async def _line(plan: Shoot, doors: Doors, cameras: Sequence[str], late: Late) -> AsyncIterator[Line]:
    if plan.over == "http":
        async with http_line(doors.shopper, len(cameras), plan.model, doors.token) as line:
            yield line
        return
    language = Tensor(plan.topic, plan.replies, plan.model) if plan.over == "tensor" else Json(plan.model)
    if plan.shared or plan.over == "tensor":
        shared = MqttLine(doors.mqtt, language, cameras, late)
        lines = dict.fromkeys(cameras, shared)
    else:
        lines = {name: MqttLine(doors.mqtt, language, [name], late) for name in cameras}
    async with connected(list({id(line): line for line in lines.values()}.values())):
        yield MqttLines(lines)
