"""One camera: an image at each tick of its clock, and what became of it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass

from lab.cameras.lines import ImageRefused, Line, NoAnswer, NotSent
from lab.cameras.pictures import Picture
from lab.cameras.tally import Tally

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
"""Seconds before an image that was turned away is sent again; doubled each time."""


@dataclass(frozen=True, slots=True)
class Film:
    """What a camera does: `rate` images a second for so many `seconds`, each given up after `deadline`."""

    rate: float
    seconds: float
    deadline: float


async def run(
    name: str, film: Film, line: Line, pictures: Sequence[Picture], *, tally: Tally, seed: int
) -> None:
    """Film until the time is over. The next image waits until the last one is answered.

    Its images, and when in its first interval it begins, depend on `seed` and its name's last part alone.
    """
    rng = random.Random(f"{seed} {name.rpartition('-')[2]}")  # noqa: S311  no secret
    loop = asyncio.get_running_loop()
    began = loop.time()
    interval = 1 / film.rate
    phase = rng.random() * interval
    for number in range(round(film.rate * film.seconds)):
        wait = began + phase + number * interval - loop.time()
        if wait > 0:
            await asyncio.sleep(wait)
        elif loop.time() - began > film.seconds:
            return
        await shoot(name, line, rng.choice(pictures), tally, film.deadline)


async def shoot(name: str, line: Line, picture: Picture, tally: Tally, deadline: float) -> None:
    """Send an image until it is taken or `deadline` seconds are over, and note what became of it."""
    loop = asyncio.get_running_loop()
    began, pause = loop.time(), FIRST_PAUSE
    tally.sent += 1
    while True:
        try:
            answer = await line.ask(name, picture, deadline)
        except NotSent as exc:
            if loop.time() + pause > began + deadline:
                tally.fail(str(exc), unknown=False)
                return
            tally.retried += 1
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        except (ImageRefused, NoAnswer) as exc:
            tally.fail(str(exc), unknown=isinstance(exc, NoAnswer))
            return
        else:
            tally.take(answer, picture.label, loop.time() - began)
            return
