"""Small pictures of images, for grids."""

from __future__ import annotations

import asyncio
import io

from PIL import Image, ImageOps

from caravan import images
from caravan.errors import BadInput
from shopper.images.limits import ImageLimits

SIDE = 320
QUALITY = 80


async def thumbnail(image: bytes, limits: ImageLimits) -> bytes:
    """Return an image as a JPEG of at most `SIDE` pixels a side, upright.

    Raises:
        BadInput: 413 if it has too many bytes or pixels, 422 if it is not an image or damaged.
        Unavailable: if there is not the memory to decode it in time.

    """
    async with limits.decoding(image):
        return await asyncio.to_thread(_small, image)


def _small(image: bytes) -> bytes:
    try:
        encoded = Image.open(io.BytesIO(image), formats=images.FORMATS)
        encoded.draft("RGB", (SIDE, SIDE))  # a JPEG is decoded no larger than it need be
        picture = ImageOps.exif_transpose(encoded).convert("RGB")
        picture.thumbnail((SIDE, SIDE))
    except images.DAMAGE as exc:
        raise BadInput("the image is damaged", 422, reason="damaged-image") from exc
    target = io.BytesIO()
    picture.save(target, "JPEG", quality=QUALITY)
    return target.getvalue()
