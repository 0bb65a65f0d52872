"""Brushes for printed matter: colours, lettering, small motifs, and the grain that surfaces have."""

import colorsys
import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]
Rng = np.random.Generator

WHITE: Colour = (250, 248, 242)
INK: Colour = (34, 30, 34)


PALE = 390
"""A colour is pale where its channels add up to more."""
SMALLEST, BOLD_FROM = 9, 24
"""Sizes of lettering in pixels."""


def chance(rng: Rng, share: float) -> bool:
    """Tell whether this is one of the cases that come up with the given probability."""
    return bool(rng.random() < share)


def pale(colour: Colour) -> bool:
    """Tell whether dark ink reads on the colour."""
    return sum(colour) > PALE


def hsv(hue: float, saturation: float, value: float) -> Colour:
    """Return an 8-bit colour from hue (turns), saturation and value (0 to 1)."""
    r, g, b = colorsys.hsv_to_rgb(hue % 1, min(max(saturation, 0), 1), min(max(value, 0), 1))
    return round(r * 255), round(g * 255), round(b * 255)


def any_colour(
    rng: Rng, saturation: tuple[float, float] = (0.15, 0.9), value: tuple[float, float] = (0.3, 0.95)
) -> Colour:
    """Draw a colour of any hue."""
    return hsv(rng.random(), rng.uniform(*saturation), rng.uniform(*value))


def mixed(first: Colour, second: Colour, share: float) -> Colour:
    """Return a colour that is `share` of the second and the rest of the first."""
    r, g, b = (round(f + (s - f) * share) for f, s in zip(first, second, strict=True))
    return r, g, b


def readable_on(colour: Colour) -> Colour:
    """Return dark or light ink, whichever reads on the colour."""
    return INK if pale(colour) else WHITE


@lru_cache(maxsize=64)
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return Pillow's own typeface in a size."""
    return ImageFont.load_default(size)


def lettering(
    pen: ImageDraw.ImageDraw, centre: tuple[float, float], words: str, *, width: float, size: int, ink: Colour
) -> None:
    """Write words around a point, no wider than `width` pixels."""
    fitted = size
    while fitted > SMALLEST and pen.textlength(words, font=font(fitted)) > width:
        fitted -= 2
    pen.text(
        centre,
        words,
        font=font(fitted),
        fill=ink,
        anchor="mm",
        stroke_width=1 if fitted > BOLD_FROM else 0,
        stroke_fill=ink,
    )


def small_print(
    pen: ImageDraw.ImageDraw, area: tuple[int, int, int, int], rng: Rng, ink: Colour, leading: int = 10
) -> None:
    """Fill an area (left, top, right, bottom) with lines that read as text too small to read."""
    left, top, right, bottom = area
    for y in range(top, bottom - 3, leading):
        x = left
        end = right - int(rng.integers(0, max((right - left) // 3, 1)))
        while x < end:
            word = int(rng.integers(6, 26))
            pen.rectangle((x, y, min(x + word, right), y + 3), fill=ink)
            x += word + 4


def barcode(pen: ImageDraw.ImageDraw, area: tuple[int, int, int, int], rng: Rng) -> None:
    """Draw a barcode into an area (left, top, right, bottom)."""
    left, top, right, bottom = area
    pen.rectangle(area, fill=WHITE)
    x = left + 4
    while x < right - 5:
        bar = int(rng.integers(1, 4))
        pen.rectangle((x, top + 4, x + bar - 1, bottom - 8), fill=INK)
        x += bar + int(rng.integers(1, 4))


def around(centre: tuple[float, float], radius: float, angle: float) -> tuple[float, float]:
    """Return the point at a radius and an angle (radians) around a centre."""
    return centre[0] + radius * math.cos(angle), centre[1] + radius * math.sin(angle)


def petal(
    pen: ImageDraw.ImageDraw,
    root: tuple[float, float],
    length: float,
    width: float,
    *,
    angle: float,
    fill: Colour,
) -> None:
    """Draw a pointed leaf or petal that grows from its root at an angle (radians)."""
    steps = np.linspace(0, 1, 9)
    side = np.sin(steps * math.pi) * width / 2
    along = steps * length
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    outline = np.concatenate([np.column_stack([along, side]), np.column_stack([along, -side])[::-1]])
    pen.polygon([(root[0] + x, root[1] + y) for x, y in (outline @ turn.T).tolist()], fill=fill)


def grain(rng: Rng, size: tuple[int, int], cells: tuple[int, int], octaves: int = 3) -> NDArray[np.float32]:
    """Return smooth random relief `[height, width]` float32 between 0 and 1, coarse to fine."""
    width, height = size
    relief = np.zeros((height, width), dtype=np.float32)
    weight, total = 1.0, 0.0
    for octave in range(octaves):
        columns, rows = (max(min(c * 2**octave, s), 2) for c, s in zip(cells, size, strict=True))
        coarse = Image.fromarray(rng.random((rows, columns), dtype=np.float32))
        relief += np.asarray(coarse.resize(size, Image.Resampling.BICUBIC)) * weight
        total += weight
        weight *= 0.55
    return np.asarray(np.clip(relief / total, 0, 1), np.float32)


def toned(relief: NDArray[np.float32], dark: Colour, light: Colour) -> Image.Image:
    """Colour a relief `[height, width]` from dark to light."""
    low, high = np.array(dark, np.float32), np.array(light, np.float32)
    return Image.fromarray((low + relief[..., None] * (high - low)).clip(0, 255).astype(np.uint8))
