"""Inputs that a model could be given: what stands for a picture, a text or numbers in a trial. Pure.

A signature seldom says all that a model wants. What is open is filled in one plausible way after another; a
model need only answer one of them.
"""

import base64
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

MAX_VALUES = 2**26
"""Most values of one input: a quarter of a gigabyte of floats."""

_IMAGE_RANK = 4
_RANKS = (4, 2, 1, 0, 3)
"""Ranks that are tried for an input of unknown rank."""
_CHANNELS = (3, 1)
_SIDES = (224, 28, 32, 64, 96, 128, 160, 192, 240, 256, 299, 300, 320, 384, 448, 512, 640)
"""Heights and widths in pixels that are tried for an image input."""
_LENGTHS = (16, *range(1, 16), 20, 30, 32, 50, 64, 100, 128, 256, 512, 768, 784, 1024, 2048)
"""Lengths that are tried for features and sequences."""
_COLOUR = {1, 3, 4}
_CHANNEL_NAME = re.compile(r"chan|^c$", re.IGNORECASE)
_SIDE_NAME = re.compile(r"height|width|^[hw]$", re.IGNORECASE)


@dataclass(frozen=True)
class Input:
    """An input of a signature.

    Attributes:
        name: name of the input.
        dtype: NumPy's type; object for strings.
        dims: the batch first; None, or a name, where one is open; None as a whole if it does not say.

    """

    name: str
    dtype: Any
    dims: tuple[int | str | None, ...] | None


class _Plan(NamedTuple):
    """What open dimensions become."""

    first: bool
    channels: int
    side: int
    length: int


def shapes(inputs: Sequence[Input], *, channels_first: bool) -> Iterator[dict[str, tuple[int, ...]]]:
    """Yield shapes of one example of all inputs, the most plausible ones first.

    Args:
        inputs: inputs of one signature.
        channels_first: how images are laid out where nothing tells: [N, C, H, W], not [N, H, W, C].

    """
    seen = set()
    for rank in _RANKS if any(one.dims is None for one in inputs) else (0,):
        dims = {one.name: (None,) * rank if one.dims is None else one.dims for one in inputs}
        for plan in _plans(channels_first):
            made = {name: _filled(each, plan) for name, each in dims.items()}
            key = tuple(made.values())
            if key not in seen and all(math.prod(shape) <= MAX_VALUES for shape in key):
                seen.add(key)
                yield made


def examples(
    inputs: Sequence[Input], shape: Mapping[str, tuple[int, ...]], texts: Sequence[bytes]
) -> Iterator[dict[str, NDArray[Any]]]:
    """Yield values of these shapes: for numbers a picture, noise, zeros; for strings each of `texts`."""
    has_strings = any(one.dtype == object for one in inputs)
    for turn in range(max(len(texts) if has_strings else 0, len(_NUMBERS))):
        text = texts[min(turn, len(texts) - 1)]
        numbers = _NUMBERS[min(turn, len(_NUMBERS) - 1)]
        yield {
            one.name: np.full(shape[one.name], text, object)
            if one.dtype == object
            else _typed(numbers(shape[one.name]), one.dtype)
            for one in inputs
        }


def texts() -> list[bytes]:
    """Return what a string may be: an encoded picture, another, one in base64, words, a number, nothing."""
    picture = encoded_picture()
    blank = _encoded(Image.new("RGB", (64, 64), (128, 128, 128)))
    return [picture, blank, base64.urlsafe_b64encode(picture), b"a cup of green tea", b"0.5", b"1", b""]


def encoded_picture() -> bytes:
    """Return a JPEG of 224 x 224 pixels with something on it."""
    return _encoded(_drawn(224, 224))


def _plans(channels_first: bool) -> Iterator[_Plan]:
    for side in _SIDES:
        for first in (channels_first, not channels_first):
            for channels in _CHANNELS:
                yield _Plan(first, channels, side, _LENGTHS[0])
    for length in _LENGTHS:
        yield _Plan(channels_first, _CHANNELS[0], _SIDES[0], length)


def _filled(dims: Sequence[int | str | None], plan: _Plan) -> tuple[int, ...]:
    channel = _channel_place(dims, plan)
    sizes = []
    for place, size in enumerate(dims):
        if isinstance(size, int):
            sizes.append(size)
        elif place == 0:
            sizes.append(1)
        elif len(dims) != _IMAGE_RANK:
            sizes.append(plan.length)
        else:
            sizes.append(plan.channels if place == channel else plan.side)
    return tuple(sizes)


def _channel_place(dims: Sequence[int | str | None], plan: _Plan) -> int:
    """Return which dimension of an image holds its colours: by size, else by name, else as planned."""
    if len(dims) != _IMAGE_RANK:
        return -1
    second, last = dims[1], dims[3]
    if (second in _COLOUR) != (last in _COLOUR):
        return 1 if second in _COLOUR else 3
    if _is_named(second, _CHANNEL_NAME) or _is_named(last, _SIDE_NAME):
        return 1
    if _is_named(last, _CHANNEL_NAME) or _is_named(second, _SIDE_NAME):
        return 3
    return 1 if plan.first else 3


def _is_named(size: int | str | None, pattern: re.Pattern[str]) -> bool:
    return isinstance(size, str) and pattern.search(size) is not None


def _picture(shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return something like a photo, 0..1; a ramp where the shape is none of an image."""
    if len(shape) != _IMAGE_RANK:
        return np.linspace(0, 1, max(math.prod(shape), 1))[: math.prod(shape)].reshape(shape)
    first = shape[3] not in _COLOUR
    height, width, channels = (shape[2], shape[3], shape[1]) if first else shape[1:]
    pixels = np.asarray(_drawn(width, height), np.float64) / 255
    pixels = np.resize(pixels.transpose(2, 0, 1), (channels, height, width))
    return np.broadcast_to(pixels if first else pixels.transpose(1, 2, 0), shape)


def _noise(shape: tuple[int, ...]) -> NDArray[np.float64]:
    return np.random.default_rng(0).random(shape)


def _blank(shape: tuple[int, ...]) -> NDArray[np.float64]:
    return np.zeros(shape)


_NUMBERS = (_picture, _noise, _blank)


def _typed(values: NDArray[np.float64], dtype: Any) -> NDArray[Any]:
    """Return numbers of 0..1 as a type: of uint8 they are pixels, of other integers the indices 0 and 1."""
    if np.dtype(dtype) == np.uint8:
        values = values * 255
    elif np.issubdtype(dtype, np.integer) or np.dtype(dtype) == np.bool_:
        values = np.round(values)
    return np.ascontiguousarray(values.astype(dtype))


def _encoded(image: Image.Image) -> bytes:
    target = io.BytesIO()
    image.save(target, "JPEG")
    return target.getvalue()


def _drawn(width: int, height: int) -> Image.Image:
    image = Image.linear_gradient("L").resize((max(width, 1), max(height, 1))).convert("RGB")
    draw = ImageDraw.Draw(image)
    draw.rectangle((width * 0.2, height * 0.2, width * 0.8, height * 0.8), fill=(30, 120, 60))
    draw.ellipse((width * 0.4, height * 0.3, width * 0.6, height * 0.7), fill=(250, 240, 90))
    return image
