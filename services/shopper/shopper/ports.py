"""What the routes need from outside, and the values that pass between."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, Protocol

from caravan.contracts import Event
from caravan.errors import Unavailable
from caravan.names import camera_name

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from shopper.scoring.values import Message

Ends = Sequence[BaseException | None]
"""How each of several messages ended: None for one that was sent, or its error."""
Origin = Literal["http", "mqtt", "kafka"]
Post = Callable[[Event], None]
"""Takes an event for the dashboard. It never waits and never fails."""


@dataclass(frozen=True, slots=True)
class Sender:
    """Where a message came from, and what it asked for.

    Args:
        origin: its door.
        camera: the camera or client behind it, if it said so.
        model: the model that is to answer; empty for the door's default.

    """

    origin: Origin
    camera: str = ""
    model: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "camera", camera_name(self.camera))


@dataclass(frozen=True, slots=True, eq=False)
class Pixels:
    """An image that came decoded.

    Args:
        values: `[height, width, channels]`, with one channel (grey) or three (RGB); uint8 0..255 or
            float32 0..1.

    """

    values: NDArray[np.uint8] | NDArray[np.float32]


Picture = bytes | Pixels
"""An image as a camera sends it: encoded (JPEG, PNG, WebP), or its pixels."""


@dataclass(frozen=True, slots=True)
class Photo:
    """An encoded image that was no upright JPEG: as it was sent, and made one."""

    sent: bytes
    jpeg: bytes


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model says of one image.

    Args:
        item: the class with the highest score.
        score: its probability, 0..1.
        model: name of the model.
        version: its version, a positive integer; 0 where the server does not say.
        probabilities: by class, in the model's own order; empty where the model does not give them.
        classes: all that the model knows, in its own order; empty where it does not say.
        prep_seconds: seconds of preparing the input.
        predict_seconds: seconds of the model's call.
        digest: SHA-256 of the image as it was sent; empty unless it was needed to choose the version.

    """

    item: str
    score: float
    model: str
    version: int
    probabilities: Mapping[str, float]
    classes: tuple[str, ...] = ()
    prep_seconds: float = 0.0
    predict_seconds: float = 0.0
    digest: bytes = b""


@dataclass(frozen=True, slots=True)
class Capture:
    """An image to be kept as `images/<item>/<time>.jpg` of a bucket, with facts about it as metadata."""

    bucket: str
    item: str
    image: bytes
    at: datetime
    facts: Mapping[str, str]


class NotServed(Unavailable):
    """The model server has no version of a model."""

    def __init__(self) -> None:
        super().__init__("no model serves yet: upload training images")


class Silent(Unavailable):
    """The model server answers, and the model does not.

    Attributes:
        seconds: since when it has not.

    """

    def __init__(self, model: str, seconds: float) -> None:
        super().__init__(f"the model {model} did not answer in time: try again")
        self.seconds = seconds


class Classifier(Protocol):
    """Recognises one image."""

    async def classify(self, image: Picture | Photo, model: str = "") -> Prediction:
        """Return a model's opinion of an image; of the default model where none is named."""
        ...


class ImageStore(Protocol):
    """Makes images durable."""

    async def keep(self, capture: Capture) -> str:
        """Return the image's key once it will survive a crash."""
        ...


class Push(Protocol):
    """Sends training images to central."""

    async def __call__(self) -> dict[str, Any]:
        """Send all images, or keep the request as pending; return the account."""
        ...


class CountImages(Protocol):
    """Counts training images."""

    async def __call__(self) -> Counter[str]:
        """Return how many wait, by item."""
        ...


class Outbox(Protocol):
    """Messages on the disk that wait for Kafka."""

    def batches(self) -> AsyncIterator[Sequence[Message]]:
        """Yield the oldest messages, as soon as there are some, until they are settled."""
        ...

    async def send(self, messages: Sequence[Message]) -> Ends:
        """Send messages; return how each ended."""
        ...

    async def settle(self, messages: Sequence[Message], ends: Ends) -> None:
        """Remove the messages that Kafka has; raise Transient if it was away."""
        ...


def now() -> datetime:
    """Return the time in UTC."""
    return datetime.now(UTC)
