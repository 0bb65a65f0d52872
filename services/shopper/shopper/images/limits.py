"""What images are taken, and how much memory looking at them may cost."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager

from caravan.decoding import Decoding
from caravan.errors import BadInput
from shopper.images.budget import MemoryBudget
from shopper.ports import Photo, Picture, Pixels
from shopper.quality.drift import LOOK_SIDE

BYTES_PER_PIXEL = 4
"""Bytes of memory per pixel of a baseline JPEG; other images have a weight beside."""
BYTES_PER_VALUE = 12
"""Bytes of memory per value of an image that came decoded: floats, and their copies in other forms."""
THUMBNAIL_SIDE = 320
THUMBNAIL_QUALITY = 80
PICTURE_SIDE = 160
PICTURE_QUALITY = 70
GREY = 1
REVIEW = "review"
"""Name under which the review's pages share in the decoding."""


class ImageLimits:
    """Checks images and brings them into one form.

    Its methods raise BadInput, 413 if an image has too many bytes or pixels, 422 if it is none or is damaged,
    and Unavailable if there is not the memory for it in time.

    Args:
        decoding: decodes encoded images, within its bounds.
        memory: memory for all images that are being decoded.

    """

    def __init__(self, decoding: Decoding, memory: MemoryBudget) -> None:
        self._decoding = decoding
        self._memory = memory

    async def as_jpeg(self, image: Picture, sender: str = "") -> bytes:
        """Return the image as an upright JPEG: what the bucket keeps, and every model can read.

        One that is such a JPEG has only its header read: whether the rest is whole, the model will tell.
        Pixels become a JPEG of the same size, grey or RGB, for the bucket.
        """
        if isinstance(image, Pixels):
            async with self.holding(image):
                from shopper.images.pixels import jpeg_of  # noqa: PLC0415 - NumPy, for cameras that send pixels

                return await asyncio.to_thread(jpeg_of, image)
        if self._decoding.inspect(image).is_upright_jpeg:
            return image
        async with self.holding(image):
            return await self._decoding.as_jpeg(image, sender)

    async def verify(self, image: bytes) -> None:
        """Read the image to its end."""
        async with self.holding(image):
            await self._decoding.verify(image)

    async def thumbnail(self, image: bytes) -> bytes:
        """Return an image as a small upright JPEG, for a grid."""
        async with self.holding(image):
            return await self._decoding.thumbnail(image, THUMBNAIL_SIDE, THUMBNAIL_QUALITY, REVIEW)

    async def picture(self, image: Picture | Photo) -> bytes:
        """Return an image as a JPEG of some 5 kB, for a message."""
        jpeg = image.jpeg if isinstance(image, Photo) else await self.as_jpeg(image)
        async with self.holding(jpeg):
            return await self._decoding.thumbnail(jpeg, PICTURE_SIDE, PICTURE_QUALITY, REVIEW)

    async def look(self, image: bytes) -> bytes:
        """Return an image's pixels as its look is judged by: RGB, uint8 [112, 112, 3]."""
        async with self.holding(image):
            return await self._decoding.resized(image, "RGB", LOOK_SIDE, LOOK_SIDE, REVIEW)

    async def resized(self, image: bytes, height: int, width: int, channels: int) -> Pixels:
        """Return an image's upright pixels, grey or RGB, resized without regard to its aspect."""
        from shopper.images.pixels import pixels_of  # noqa: PLC0415 - for models that take numbers

        async with self.holding(image):
            mode = "L" if channels == GREY else "RGB"
            raw = await self._decoding.resized(image, mode, width, height)
        return pixels_of(raw, height, width, channels)

    def holding(self, image: Picture) -> AbstractAsyncContextManager[None]:
        """Hold the memory that it takes to decode the image, or to bring its pixels into another form."""
        bounds = self._decoding.bounds
        if isinstance(image, Pixels):
            height, width, _ = image.values.shape
            if height * width > bounds.max_pixels:
                message = f"the image is {width} x {height} pixels; {bounds.max_pixels} are allowed"
                raise BadInput(message, status=413, reason="too-large")
            return self._memory.hold(image.values.size * BYTES_PER_VALUE)
        info = self._decoding.inspect(image)
        return self._memory.hold(info.pixels * info.weight * BYTES_PER_PIXEL)
