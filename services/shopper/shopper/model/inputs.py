"""What a model wants to be given: an encoded image, or a tensor that is prepared by its signature. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from shopper.model.stubs import DT_DOUBLE, DT_FLOAT, DT_HALF, DT_INT32, DT_INT64, DT_STRING, DT_UINT8

Scale = Literal["0..1", "-1..1", "0..255"]
"""Values of black and white in a tensor of floats; in one of integers they are 0 and 255."""
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
SMALLEST = 8
"""Pixels of the shortest side of a picture that no channels tell from rows of a table: digits have 8 x 8."""


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
        info: the signature's entry for the input.
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


def _tensor(dtype: str, dims: list[int], size: Size | None) -> TensorInput | None:
    match dims:
        case [height, width, channels] if channels in CHANNELS:
            return _image(dtype, (height, width), size, channels)
        case [channels, height, width] if channels in CHANNELS:
            return _image(dtype, (height, width), size, channels, channels_first=True)
        case [height, width, channels] if channels == OPEN:
            return _image(dtype, (height, width), size, RGB)
        case [height, width] if not 0 < min(height, width) < SMALLEST:
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
        if height * width * channels == numbers and (size or side >= SMALLEST):
            return TensorInput(dtype, height, width, channels, (1, numbers))
    return None
