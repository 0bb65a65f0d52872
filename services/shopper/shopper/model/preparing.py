"""Bringing images into the form that a model takes, beside the event loop and within a memory budget."""

from __future__ import annotations

import asyncio
from typing import Any

from shopper.images.limits import ImageLimits
from shopper.model.inputs import Form, Scale, Size, StringInput, TensorInput
from shopper.model.tensors import string_tensor
from shopper.ports import Photo, Picture, Pixels

AT_ONCE = 2**14
"""Most numbers of an image that is prepared without a thread, if it needs no resizing."""


class Preparing:
    """Makes the input of one model.

    Args:
        limits: bounds on images and on their decoding.
        scale: values of black and white in a tensor of floats.
        size: height and width of the images where the signature leaves them open.

    """

    def __init__(self, limits: ImageLimits, scale: Scale = "0..1", size: Size | None = None) -> None:
        self._limits = limits
        self._scale = scale
        self.size = size

    async def tensor(self, image: Picture | Photo, form: Form) -> Any:
        """Return a TensorProto of the form.

        Raises:
            BadInput: 422 if an encoded image is damaged, or takes too long.
            Unavailable: if there is no memory for it in time.

        """
        if isinstance(image, Photo):
            image = image.jpeg if isinstance(form, StringInput) and not form.as_sent else image.sent
        if isinstance(image, bytes):
            if isinstance(form, StringInput):
                return string_tensor(image, scalar=form.scalar)
            image = await self._limits.resized(image, form.height, form.width, form.channels)
        if _is_quick(image, form):
            return self._made(image, form)
        async with self._limits.holding(image):
            return await asyncio.to_thread(self._made, image, form)

    def _made(self, image: Pixels, form: Form) -> Any:
        # Both load NumPy, which most shops have no use for.
        if isinstance(form, TensorInput):
            from shopper.model.arrays import number_tensor, prepare  # noqa: PLC0415

            return number_tensor(prepare(image, form, self._scale))
        from shopper.images.pixels import jpeg_of  # noqa: PLC0415

        return string_tensor(jpeg_of(image), scalar=form.scalar)


def _is_quick(image: Pixels, form: Form) -> bool:
    if not isinstance(form, TensorInput):
        return False
    fits = image.values.shape == (form.height, form.width, form.channels)
    return fits and image.values.size <= AT_ONCE
