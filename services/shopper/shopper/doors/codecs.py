"""The two languages of the MQTT door: JSON with an image in base64, and msgpack with its pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from caravan import http
from caravan.contracts import to_json
from caravan.route import Route
from shopper import detection
from shopper.catalogue import Catalogue
from shopper.detection import Recognition
from shopper.doors.encoding import ImageMessage, decode_image
from shopper.ports import Picture, Sender
from shopper.routes import DETECT_MQTT, DETECT_TENSOR


@dataclass(frozen=True, slots=True)
class DetectionRequest:
    """What a message asks for.

    Args:
        picture: returns the image, or raises BadInput; blocks for as long as that takes.
        model: the model that is to answer; empty where the message does not say.
        camera: the sender by its own word; empty where it does not say.
        echo: facts that its reply repeats, even if the image is refused.

    """

    picture: Callable[[], Picture]
    model: str
    camera: str
    echo: Mapping[str, Any]

    def sender(self, by_topic: Sender) -> Sender:
        """Return who sent it: what the message says comes before what its topic says."""
        return Sender(by_topic.origin, self.camera or by_topic.camera, self.model or by_topic.model)


class Codec(Protocol):
    """One language: a route's id, and how its messages are read and written."""

    route: Route

    def answer(self, recognition: Recognition, catalogue: Catalogue) -> dict[str, Any]:
        """Return the reply to a recognition."""
        ...

    def cost(self, size: int, /) -> int:
        """Return the bytes that reading a message of this size may take, beside twice its own."""
        ...

    def read(self, payload: bytes) -> DetectionRequest:
        """Read a message; blocks for as long as that takes. Raises BadInput."""
        ...

    def write(self, reply: Mapping[str, Any]) -> bytes:
        """Return a reply as a payload."""
        ...


class Json:
    """`{"image": "<base64>"[, "model": "<name>"]}`."""

    route = DETECT_MQTT
    answer = staticmethod(detection.answer)

    def cost(self, _size: int) -> int:
        """Nothing: twice its size is what it takes."""
        return 0

    def read(self, payload: bytes) -> DetectionRequest:
        """Read a message; its image is decoded with it."""
        message = http.decode_json(ImageMessage, payload)
        image = decode_image(message.image)
        return DetectionRequest(lambda: image, message.model, "", {})

    def write(self, reply: Mapping[str, Any]) -> bytes:
        """Return JSON."""
        return to_json(reply)


class Tensor:
    """A msgpack map: see `tensor_message`, which is loaded, and NumPy with it, once one has come.

    Args:
        max_bytes: most bytes of a message.
        max_pixels: most pixels of an image.

    """

    route = DETECT_TENSOR
    answer = staticmethod(detection.tensor_answer)

    def __init__(self, max_bytes: int, max_pixels: int) -> None:
        self._max_bytes = max_bytes
        self._max_pixels = max_pixels

    def cost(self, size: int) -> int:
        """What its numbers would take if all of it were lists."""
        from shopper.doors import tensor_message  # noqa: PLC0415

        return min(size, tensor_message.MAX_NUMBERS) * tensor_message.BYTES_PER_NUMBER

    def read(self, payload: bytes) -> DetectionRequest:
        """Read a message's form; its image is looked at later."""
        from shopper.doors import tensor_message  # noqa: PLC0415

        message = tensor_message.unpack(payload, self._max_bytes)
        return DetectionRequest(
            lambda: message.pixels(self._max_pixels), message.model, message.camera, message.echo
        )

    def write(self, reply: Mapping[str, Any]) -> bytes:
        """Return a msgpack map."""
        from shopper.doors import tensor_message  # noqa: PLC0415

        return tensor_message.pack(reply)
