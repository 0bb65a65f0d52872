"""An image made small enough for a message."""

from __future__ import annotations

import io

from PIL import Image

QUALITY = 85
SMALLEST = 16
"""Pixels of the longer side, below which an image is of no use."""


def fitting(image: bytes, room: int) -> bytes | None:
    """Return a JPEG of at most `room` bytes: the image itself, or a smaller one, or None if there is none.

    It may read the whole image: call it in a thread.
    """
    if len(image) <= room:
        return image
    try:
        opened = Image.open(io.BytesIO(image), formats=["JPEG"])
        # Encoded sizes go with the number of pixels: the first step is about right, the next ones are sure.
        side = max(opened.size) * (max(room, 0) / len(image)) ** 0.5
        while side >= SMALLEST:
            smaller = opened.convert("RGB")
            smaller.thumbnail((int(side), int(side)))
            target = io.BytesIO()
            smaller.save(target, "JPEG", quality=QUALITY)
            if target.tell() <= room:
                return target.getvalue()
            side /= 2
    except (OSError, SyntaxError, ValueError):
        return None  # damaged: the model took it, but it cannot be made smaller
    return None
