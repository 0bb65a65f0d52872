"""How well a model does where it serves: a data set's pictures sent as tensors over MQTT, many at once."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import httpx

from caravan.settings import MqttSettings
from lab.cameras import camera
from lab.cameras.doors import Doors, check
from lab.cameras.lines import Line, MqttLine, Tensor, connected
from lab.cameras.pictures import Picture
from lab.cameras.tally import Tally

CERTAIN = 0.8
"""From which probability on an answer is certain; the shopper's default."""

OnAnswer = Callable[[int, int], None]
"""Told how many pictures are done, of how many."""


@dataclass(frozen=True, slots=True)
class Way:
    """How pictures are asked about.

    Args:
        requests: topic on which they are published.
        replies: topic of the answers.
        model: the one to name; "" for the topic's own.
        serves: the one that must serve for that.
        at_once: pictures on their way.
        deadline: seconds until one is given up.

    """

    requests: str
    replies: str
    model: str
    serves: str
    at_once: int
    deadline: float


@dataclass(slots=True)
class Score:
    """What became of all pictures, by their class. `seconds` is how long it took."""

    classes: Mapping[str, Tally]
    seconds: float = field(default=0.0)

    @classmethod
    def of(cls, classes: Sequence[str]) -> Score:
        """Return the score of nothing yet."""
        return cls({name: Tally(CERTAIN) for name in classes})

    @property
    def sent(self) -> int:
        """Pictures that were sent."""
        return sum(tally.sent for tally in self.classes.values())

    @property
    def answered(self) -> int:
        """Pictures that were answered."""
        return sum(tally.answered for tally in self.classes.values())

    @property
    def right(self) -> int:
        """Pictures that were answered with their class."""
        return sum(tally.right for tally in self.classes.values())

    @property
    def missing(self) -> int:
        """Pictures without an answer."""
        return self.sent - self.answered

    @property
    def accuracy(self) -> float:
        """The share of all pictures that were named rightly; those without an answer were not."""
        return self.right / self.sent if self.sent else 0.0

    @property
    def errors(self) -> list[str]:
        """What was said of pictures that were not answered: each class's first."""
        return sorted({tally.first_error for tally in self.classes.values() if tally.first_error})


async def score(
    doors: Doors, way: Way, pictures: Sequence[Picture], *, classes: Sequence[str], on_answer: OnAnswer
) -> Score:
    """Ask about every picture once, and count.

    Raises:
        StackError: if the model does not serve, or an ExceptionGroup with one if MQTT is not there.

    """
    async with httpx.AsyncClient(trust_env=False) as http:  # loopback needs no proxy
        await check(http, doors, way.serves)
    name = f"score-{secrets.token_hex(3)}"
    line = _line(doors.mqtt, way, name)
    async with connected([line]):
        return await ask_all(line, name, way, pictures, classes=classes, on_answer=on_answer)


def _line(mqtt: MqttSettings, way: Way, name: str) -> MqttLine:
    # An answer that comes when its picture was given up stays missing: too late is not well done.
    return MqttLine(mqtt, Tensor(way.requests, way.replies, way.model), [name], lambda *_: None)


async def ask_all(
    line: Line,
    name: str,
    way: Way,
    pictures: Sequence[Picture],
    *,
    classes: Sequence[str],
    on_answer: OnAnswer,
) -> Score:
    """Ask about every picture, so many at once, in the name of one camera."""
    found = Score.of(classes)
    began = time.monotonic()
    waiting = iter(pictures)

    async def work() -> None:
        for picture in waiting:
            await camera.shoot(name, line, picture, found.classes[picture.label], way.deadline)
            on_answer(found.answered, len(pictures))

    async with asyncio.TaskGroup() as group:
        for number in range(min(way.at_once, len(pictures))):
            group.create_task(work(), name=f"score-{number}")
    found.seconds = time.monotonic() - began
    return found
