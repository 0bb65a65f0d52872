"""Pictures for the documentation: small enough to be kept in the repository, and read as a page is."""

from __future__ import annotations

import io

from PIL import Image

from support.files import as_file

SCHEMES = ("light", "dark")
QUALITY = 50
MOST_BYTES = 40_000
COLOURS = (64, 48, 32, 24)
FLAT_COLOURS = 14
"""Of a page's paper and ink, the most of it, kept as they are; the others are for what photos show."""
ACCENTS = (0x96, 0x43, 0x1F, 0xEC, 0x9B, 0x72)
"""Of light and dark pages: small, but what one looks at."""


def smooth(picture: bytes, width: int) -> bytes:
    """Return a screenshot full of photos and fine lines as WebP, `width` pixels wide: no palette holds it."""
    return as_file(_resized(_opened(picture), width), "WEBP", quality=QUALITY, method=6)


def small(picture: bytes, width: int) -> bytes:
    """Return a screenshot as a PNG, `width` pixels wide, with as many colours as fit into `MOST_BYTES`."""
    image = _opened(picture)
    counted = image.getcolors(image.width * image.height) or []
    common = sorted(counted, reverse=True, key=lambda one: one[0])[:FLAT_COLOURS]
    flat = [*ACCENTS, *(part for _, colour in common if isinstance(colour, tuple) for part in colour)]
    image = _resized(image, width)
    packed = b""
    for colours in COLOURS:
        packed = _packed(image, flat, colours)
        if len(packed) <= MOST_BYTES:
            break
    return packed


def _opened(picture: bytes) -> Image.Image:
    return Image.open(io.BytesIO(picture)).convert("RGB")


def _resized(image: Image.Image, width: int) -> Image.Image:
    height = round(image.height * width / image.width)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def _packed(image: Image.Image, flat: list[int], colours: int) -> bytes:
    others = image.quantize(colours - len(flat) // 3, dither=Image.Dither.NONE).getpalette() or []
    palette = Image.new("P", (1, 1))
    palette.putpalette([*flat, *others][: 3 * colours])
    return as_file(image.quantize(palette=palette, dither=Image.Dither.NONE), "PNG", optimize=True)
