"""An image made small enough for a message."""

from __future__ import annotations

from caravan import images
from caravan.errors import BadInput

QUALITY = 85
SMALLEST = 16
"""Least pixels of the longer side; a smaller image is left out."""


def fitting(image: bytes, room: int) -> bytes | None:
    """Return a JPEG of at most `room` bytes: the image itself, or a smaller one, or None if there is none.

    It may read the whole image: call it in a thread.
    """
    if len(image) <= room:
        return image
    try:
        info = images.inspect(image)
        # Encoded sizes go with the number of pixels: the first step is about right, the next ones are sure.
        side = max(info.width, info.height) * (max(room, 0) / len(image)) ** 0.5
        while side >= SMALLEST:
            smaller = images.thumbnail(image, int(side), QUALITY)
            if len(smaller) <= room:
                return smaller
            side /= 2
    except BadInput:
        return None  # damaged: the model took it, but it cannot be made smaller
    return None
