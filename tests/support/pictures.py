"""Pictures for the documentation: small enough to be kept in the repository, and read as a page is."""

from __future__ import annotations

import io

from PIL import Image

SCHEMES = ("light", "dark")
QUALITY = 50
COLOURS = 64
FLAT_COLOURS = 14
"""Of a page's paper, ink and accent, kept as they are; the others are for what photos show."""


def smooth(picture: bytes, width: int) -> bytes:
    """Return a screenshot full of photos and fine lines as WebP, `width` pixels wide: no palette holds it."""
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    height = round(image.height * width / image.width)
    target = io.BytesIO()
    image.resize((width, height), Image.Resampling.LANCZOS).save(target, "WEBP", quality=QUALITY, method=6)
    return target.getvalue()


def small(picture: bytes, width: int | None = None) -> bytes:
    """Return a screenshot as a PNG with a palette, `width` pixels wide where that is said."""
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    counted = image.getcolors(image.width * image.height) or []
    most = sorted(counted, reverse=True, key=lambda one: one[0])[:FLAT_COLOURS]
    flat = [part for _, colour in most if isinstance(colour, tuple) for part in colour]
    if width is not None:
        height = round(image.height * width / image.width)
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    others = image.quantize(COLOURS - FLAT_COLOURS, dither=Image.Dither.NONE).getpalette() or []
    palette = Image.new("P", (1, 1))
    palette.putpalette([*flat, *others][: 3 * COLOURS])
    target = io.BytesIO()
    image.quantize(palette=palette, dither=Image.Dither.NONE).save(target, "PNG", optimize=True)
    return target.getvalue()
