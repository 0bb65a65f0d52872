"""What images are taken, and how much memory looking at them may cost."""

from __future__ import annotations

import asyncio
import io
from contextlib import AbstractAsyncContextManager

import numpy as np
from PIL import Image

from caravan import images
from caravan.errors import BadInput
from caravan.images import ImageInfo
from shopper.images.budget import MemoryBudget
from shopper.ports import Picture, Pixels

BYTES_PER_PIXEL = 7
"""Decoded, RGBA, beside its RGB copy."""
BYTES_PER_VALUE = 12
"""Of an image that came decoded: floats, and their copies in other forms."""


class ImageLimits:
    """Checks images and brings them into one form.

    Args:
        max_bytes: of an encoded image.
        max_pixels: of an image.
        decoding: memory that all images being decoded may take.

    """

    def __init__(self, max_bytes: int, max_pixels: int, decoding: MemoryBudget) -> None:
        self._max_bytes = max_bytes
        self._max_pixels = max_pixels
        self._decoding = decoding

    async def as_jpeg(self, image: Picture) -> bytes:
        """Return the image as JPEG, so that the model sees, and the bucket keeps, the same bytes.

        One that is a JPEG has only its header read: whether the rest is whole, the model will tell. Pixels
        become a JPEG of the same size, grey or RGB, for the bucket.

        Raises:
            BadInput: 413 if it has too many bytes or pixels, 422 if it is not an image or damaged.

        """
        if isinstance(image, Pixels):
            async with self.decoding(image):
                return await asyncio.to_thread(jpeg_of, image)
        info = self._inspect(image)
        if info.format == "JPEG":
            return image
        try:
            async with self.decoding(image):
                return await asyncio.to_thread(images.as_jpeg, image)
        except (OSError, SyntaxError, ValueError) as exc:
            raise BadInput(f"the {info.format} image is damaged", status=422, reason="damaged-image") from exc

    async def verify(self, image: bytes) -> None:
        """Read the image to its end.

        Raises:
            BadInput: as above, and 422 if it is damaged or cut off.

        """
        async with self.decoding(image):
            await asyncio.to_thread(
                images.verify, image, max_bytes=self._max_bytes, max_pixels=self._max_pixels
            )

    def decoding(self, image: Picture) -> AbstractAsyncContextManager[None]:
        """Hold the memory that it takes to decode the image, or to bring its pixels into another form.

        Raises:
            BadInput: 413 if it has too many bytes or pixels, 422 if it is not an image.
            Unavailable: if there is not so much memory in time.

        """
        if isinstance(image, Pixels):
            height, width, _ = image.values.shape
            if height * width > self._max_pixels:
                message = f"the image is {width} x {height} pixels; {self._max_pixels} are allowed"
                raise BadInput(message, status=413, reason="too-large")
            return self._decoding.hold(image.values.size * BYTES_PER_VALUE)
        info = self._inspect(image)
        return self._decoding.hold(info.width * info.height * BYTES_PER_PIXEL)

    def _inspect(self, image: bytes) -> ImageInfo:
        return images.inspect(image, max_bytes=self._max_bytes, max_pixels=self._max_pixels)


def jpeg_of(image: Pixels) -> bytes:
    """Encode pixels as JPEG at quality 95; call it in a thread."""
    values = image.values
    if values.dtype != np.uint8:
        values = np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
    target = io.BytesIO()
    Image.fromarray(values[:, :, 0] if values.shape[2] == 1 else values).save(target, "JPEG", quality=95)
    return target.getvalue()
