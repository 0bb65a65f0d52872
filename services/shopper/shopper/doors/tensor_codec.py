"""The other language of the MQTT door, msgpack with an image's pixels: loaded only where a topic has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shopper import detection
from shopper.doors import tensor_message
from shopper.doors.codecs import Asked
from shopper.doors.tensor_message import BYTES_PER_NUMBER, MAX_NUMBERS
from shopper.routes import DETECT_TENSOR


class Tensor:
    """A msgpack map: see `tensor_message`.

    Args:
        max_bytes: of a message.
        max_pixels: of an image.

    """

    route = DETECT_TENSOR
    answer = staticmethod(detection.tensor_answer)

    def __init__(self, max_bytes: int, max_pixels: int) -> None:
        self._max_bytes = max_bytes
        self._max_pixels = max_pixels

    def cost(self, size: int) -> int:
        """What its numbers would take if all of it were lists."""
        return min(size, MAX_NUMBERS) * BYTES_PER_NUMBER

    def read(self, payload: bytes) -> Asked:
        """Read a message's form; its image is looked at later."""
        message = tensor_message.unpack(payload, self._max_bytes)
        return Asked(lambda: message.pixels(self._max_pixels), message.model, message.camera, message.echo)

    def write(self, reply: Mapping[str, Any]) -> bytes:
        """Return a msgpack map."""
        return tensor_message.pack(reply)
