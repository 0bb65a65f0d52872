"""What a model wants to be given: an encoded image, or a tensor prepared by its signature. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from shopper.model.stubs import DT_DOUBLE, DT_FLOAT, DT_HALF, DT_INT32, DT_INT64, DT_STRING, DT_UINT8
from shopper.ports import Pixels

Scale = Literal["0..1", "-1..1", "0..255"]
"""What black and white are in a tensor of floats; in one of integers they are always 0 and 255."""
Size = tuple[int, int]
"""Height and width."""

DTYPES = {
    DT_FLOAT: "float32",
    DT_DOUBLE: "float64",
    DT_HALF: "float16",
    DT_UINT8: "uint8",
    DT_INT32: "int32",
    DT_INT64: "int64",
}
GREY, RGB = 1, 3
CHANNELS = (GREY, RGB)
OPEN = -1
"""A dimension that the signature leaves open."""
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""Grey out of red, green and blue (ITU-R 601-2), as Pillow has it."""


@dataclass(frozen=True, slots=True)
class StringInput:
    """One encoded image in a string tensor: `[1]`, or `[]` if scalar.

    `as_sent` tells of a model that it reads, and turns upright, whatever the doors take: it is given that, as
    it is by who asks the model server. Any other is given an upright JPEG.
    """

    scalar: bool = False
    as_sent: bool = False


@dataclass(frozen=True, slots=True)
class TensorInput:
    """One image as numbers.

    Args:
        dtype: by numpy's name.
        height: pixels.
        width: pixels.
        channels: 1 for grey, 3 for RGB.
        shape: as sent, a batch of one: `[1, H, W, C]`, `[1, C, H, W]`, `[1, H, W]` or `[1, H*W*C]`.
        channels_first: whether the channels come before height and width.

    """

    dtype: str
    height: int
    width: int
    channels: int
    shape: tuple[int, ...]
    channels_first: bool = False


Form = StringInput | TensorInput


def form_of(info: Any, size: Size | None = None) -> Form | None:
    """Read from a TensorInfo what the model wants; None if that is not one image.

    Args:
        info: of the signature's input.
        size: height and width where the signature leaves them open.

    """
    shape = info.tensor_shape
    if info.dtype == DT_STRING:
        return StringInput(scalar=not shape.unknown_rank and not shape.dim)
    dtype = DTYPES.get(info.dtype)
    batch, *dims = [int(dim.size) for dim in shape.dim] or [0]
    if dtype is None or batch not in {OPEN, 1}:
        return None
    return _tensor(dtype, dims, size)


def prepare(picture: Pixels, form: TensorInput, scale: Scale) -> NDArray[Any]:
    """Return the tensor for one image; takes milliseconds if the image is large.

    It is made grey or RGB, resized bilinearly without regard to its aspect, as image_dataset_from_directory
    does it, and scaled.
    """
    values = _fitted(picture, form)
    scaled = _scaled(values, np.dtype(form.dtype), scale)
    if form.channels_first:
        scaled = scaled.transpose(2, 0, 1)
    return scaled.reshape(form.shape)


# --- reading shapes -----------------------------------------------------------------------------


def _tensor(dtype: str, dims: list[int], size: Size | None) -> TensorInput | None:
    match dims:
        case [height, width, channels] if channels in CHANNELS:
            return _image(dtype, (height, width), size, channels)
        case [channels, height, width] if channels in CHANNELS:
            return _image(dtype, (height, width), size, channels, channels_first=True)
        case [height, width, channels] if channels == OPEN:
            return _image(dtype, (height, width), size, RGB)
        case [height, width]:
            return _image(dtype, (height, width), size, GREY, plain=True)
        case [numbers] if numbers > 0:
            return _flat(dtype, numbers, size)
    return None


def _image(
    dtype: str,
    declared: Sequence[int],
    size: Size | None,
    channels: int,
    *,
    channels_first: bool = False,
    plain: bool = False,
) -> TensorInput | None:
    if min(declared) < 1:
        if size is None:
            return None
        declared = [own if own > 0 else given for own, given in zip(declared, size, strict=True)]
    height, width = declared
    shape: tuple[int, ...] = (1, height, width) if plain else (1, height, width, channels)
    if channels_first:
        shape = (1, channels, height, width)
    return TensorInput(dtype, height, width, channels, shape, channels_first)


def _flat(dtype: str, numbers: int, size: Size | None) -> TensorInput | None:
    for channels in CHANNELS:
        side = math.isqrt(numbers // channels)
        height, width = size or (side, side)
        if height * width * channels == numbers:
            return TensorInput(dtype, height, width, channels, (1, numbers))
    return None


# --- making tensors -----------------------------------------------------------------------------


def _fitted(picture: Pixels, form: TensorInput) -> NDArray[Any]:
    values: NDArray[Any] = picture.values
    height, width, channels = values.shape
    if channels != form.channels:
        if form.channels == RGB:
            values = np.repeat(values, RGB, axis=2)
        elif values.dtype == np.uint8:
            values = np.asarray(Image.fromarray(values).convert("L"))[:, :, np.newaxis]
        else:
            values = (values @ LUMA)[:, :, np.newaxis]
    if (height, width) == (form.height, form.width):
        return values
    # Pillow resizes floats one channel at a time; bytes go the same way.
    planes = [_resized(Image.fromarray(values[:, :, plane]), form) for plane in range(form.channels)]
    return np.stack([np.asarray(plane) for plane in planes], axis=2)


def _resized(image: Image.Image, form: TensorInput) -> Image.Image:
    size = (form.width, form.height)
    return image if image.size == size else image.resize(size, Image.Resampling.BILINEAR)


def _scaled(values: NDArray[Any], dtype: np.dtype[Any], scale: Scale) -> NDArray[Any]:
    whole = values.dtype == np.uint8
    if dtype.kind != "f":
        return (values if whole else np.rint(np.clip(values, 0, 1) * 255)).astype(dtype, copy=False)
    if scale == "0..255":
        return (values if whole else values * 255).astype(dtype, copy=False)
    unit = values.astype(np.float32) / 255 if whole else values
    return (unit * 2 - 1 if scale == "-1..1" else unit).astype(dtype, copy=False)
