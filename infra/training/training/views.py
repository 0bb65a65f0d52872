"""Views of a photo as a shop might give them: turned, nearer, smaller, in other light, blurred, recompressed.

A view is drawn from the image's SHA-256 and its number alone, so the same image always has the same views
and their embeddings can be kept. Odd views are turned (and mirrored half of the time), even ones stand
nearly upright: not every product may be turned (a 6 becomes a 9), and `training.fit` leaves out the kind
that a class does not bear.
"""

import io
import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from training.dataset import Member

Pixels = NDArray[np.uint8]
"""[S, S, 3], RGB."""

MOST = 2
"""Most views of an image."""
PER_CLASS = 200
"""Views that a class aims at: many images show its product in many ways already."""

TURN, LEAN = 30.0, 8.0
"""Most degrees by which a turned and an upright view lean, beside quarter turns."""
CROP = (0.5, 0.9)
SHRINK = (0.4, 0.8)
"""Shares of the side that a nearer and a farther view keep."""
DARKER, BRIGHTER = -0.8, 0.5
"""Logarithms of the factors of brightness."""
CONTRAST = 0.3
BLUR = (0.25, 1.7)
"""Radii of a Gaussian blur, in pixels of 224."""
QUALITY = (10, 60)
"""JPEG qualities of a recompressed view."""


def views_of(members: Sequence[Member]) -> dict[str, int]:
    """Return how many views each image has, by SHA-256.

    What an image gets depends on its SHA-256 and on how many images its class has: as that grows, fewer
    are asked for.
    """
    counts = Counter(name for name, _ in members)
    return {
        sha: min(MOST, int(PER_CLASS / counts[name] + int(sha[8:16], 16) / 2**32)) for name, sha in members
    }


def is_turned(view: int) -> bool:
    """Tell whether a view, numbered from 1, may be turned and mirrored."""
    return view % 2 == 1


def view_of(pixels: Pixels, sha256: str, view: int) -> Pixels:
    """Return a view, numbered from 1, of an image's pixels; both [S, S, 3] uint8."""
    rng = np.random.default_rng([int(sha256[:8], 16), view])
    image = _framed(_turned(Image.fromarray(pixels), rng, is_turned=is_turned(view)), rng)
    image = ImageEnhance.Brightness(image).enhance(float(np.exp(rng.uniform(DARKER, BRIGHTER))))
    image = ImageEnhance.Contrast(image).enhance(float(np.exp(rng.uniform(-CONTRAST, CONTRAST))))
    return np.asarray(_worsened(image, rng))


def _turned(image: Image.Image, rng: np.random.Generator, *, is_turned: bool) -> Image.Image:
    if is_turned:
        image = image.rotate(90 * int(rng.integers(4)))
        if rng.random() < 0.5:  # noqa: PLR2004 - even odds
            image = ImageOps.mirror(image)
    lean = rng.uniform(-1, 1) * (TURN if is_turned else LEAN)
    if rng.random() < 0.5:  # noqa: PLR2004 - as above
        return image
    side = image.width
    margin = side // 2
    wide = Image.fromarray(np.pad(np.asarray(image), ((margin, margin), (margin, margin), (0, 0)), "reflect"))
    # Only the middle is needed: turning all of it would take four times as long.
    cos, sin, middle = math.cos(math.radians(lean)), math.sin(math.radians(lean)), side / 2
    turn = (cos, -sin, margin + middle * (1 - cos + sin), sin, cos, margin + middle * (1 - cos - sin))
    return wide.transform((side, side), Image.Transform.AFFINE, turn, Image.Resampling.BILINEAR)


def _framed(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Go nearer to about the middle, or farther away onto a ground of another colour, or stay."""
    side, way = image.width, rng.random()
    if way < 0.4:  # noqa: PLR2004 - share of views
        kept = rng.uniform(*CROP)
        # Half as far from the middle as may be: what is shown mostly stands there.
        x, y = (1 - kept) * (0.5 + rng.uniform(-0.25, 0.25, 2))
        box = (x * side, y * side, (x + kept) * side, (y + kept) * side)
        return image.resize((side, side), Image.Resampling.BILINEAR, box)
    if way < 0.7:  # noqa: PLR2004 - as above
        small = max(1, round(side * rng.uniform(*SHRINK)))
        ground = rng.uniform(40, 220, (1, 1, 3)) + rng.normal(0, 25, (8, 8, 3))
        canvas = Image.fromarray(ground.clip(0, 255).astype(np.uint8)).resize((side, side))
        place = (side - small) // 2
        canvas.paste(image.resize((small, small), Image.Resampling.BILINEAR), (place, place))
        return canvas
    return image


def _worsened(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Blur it, or compress it hard, or leave it."""
    way = rng.random()
    if way < 0.3:  # noqa: PLR2004 - share of views
        return image.filter(ImageFilter.GaussianBlur(float(rng.uniform(*BLUR))))
    if way < 0.55:  # noqa: PLR2004 - as above
        target = io.BytesIO()
        image.save(target, "JPEG", quality=int(rng.integers(*QUALITY)))
        with Image.open(target) as compressed:
            return compressed.convert("RGB")
    return image
