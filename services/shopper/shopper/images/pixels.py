"""Images as arrays: loaded only for cameras that send pixels and models that take numbers. Pure."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from shopper.ports import Pixels


def pixels_of(raw: bytes, height: int, width: int, channels: int) -> Pixels:
    """Return an image out of its bytes, row by row."""
    return Pixels(np.frombuffer(raw, np.uint8).reshape(height, width, channels))


def jpeg_of(image: Pixels) -> bytes:
    """Encode pixels as JPEG at quality 95; call it in a thread."""
    values = image.values
    if values.dtype != np.uint8:
        values = np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
    target = io.BytesIO()
    Image.fromarray(values[:, :, 0] if values.shape[2] == 1 else values).save(target, "JPEG", quality=95)
    return target.getvalue()
