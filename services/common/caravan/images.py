"""What an image is, and the same pixels of it everywhere: decided from its bytes, never from its name.

| form | what is done |
|---|---|
| JPEG, baseline or progressive, grey or YCbCr | taken |
| JPEG of several pictures (MPO) | the first picture, a JPEG |
| JPEG in CMYK or YCCK with Adobe's marker | inverted and made RGB |
| JPEG with four inks and no marker; arithmetic, lossless or 12-bit JPEG | refused |
| PNG, 1 to 8 bits, grey, RGB or palette | taken |
| PNG, 16 bits | the upper 8 bits of each value |
| PNG or WebP with transparency | the alpha is dropped: what lies beneath it counts |
| APNG | its default picture, as a viewer of PNG shows it |
| animated WebP | refused |
| EXIF orientation 1 to 8 (JPEG's APP1; PNG's eXIf before the pixels; WebP's EXIF) | turned upright |

`training.pixels` does the same in TensorFlow; `tests/unit/test_image_forms.py` holds both to this table.
What decodes here may take long on content made for it: services call it by way of `caravan.decoding`.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Literal

from PIL import Image

from caravan.errors import BadInput
from caravan.image_headers import (
    APP0,
    APP14,
    BOUNDS,
    FRAMES,
    MAX_BYTES,
    MAX_PIXELS,
    PNG,
    ImageBounds,
    ImageInfo,
    inspect,
    segments,
)

__all__ = [
    "BOUNDS",
    "MAX_BYTES",
    "MAX_PIXELS",
    "ImageBounds",
    "ImageInfo",
    "as_jpeg",
    "inspect",
    "is_quick",
    "resized",
    "thumbnail",
    "verify",
]

QUALITY = 95
MAX_TURNED = 25_000_000
"""Most pixels of a JPEG that is turned at full size; a larger one is halved."""
JPEG_SIDE = 65_500
"""Most pixels a side that libjpeg writes; a PNG may have more."""
QUICK_PIXELS = 1_000_000
"""Most pixels that are decoded in a thread, within some 15 ms; half as many in a PNG."""
MAX_CHUNKS = 20_000
"""Most chunks of a PNG."""
CHUNK_BYTES = 12
"""Bytes of a PNG chunk without its content."""
PNG_COLOUR_TYPE, PALETTE = 25, 3
"""Offset of a PNG's colour type, and the value of one with a palette."""

_DAMAGE = (
    ArithmeticError,
    AssertionError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""Errors that decoders raise on hostile content."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = range(5, 9)
_NEEDED_SEGMENTS = (APP0, APP14, 0xC4, 0xDA, 0xDB, 0xDD, *FRAMES)
_NEEDED_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT")


def is_quick(info: ImageInfo) -> bool:
    """Tell whether decoding takes a moment and little memory: of a small baseline JPEG, or a small PNG."""
    is_plain = info.format == "PNG" or (info.format == "JPEG" and info.weight == 1)
    return is_plain and info.pixels * info.weight <= QUICK_PIXELS


def verify(encoded: bytes, bounds: ImageBounds = BOUNDS) -> ImageInfo:
    """Read the image to its end, so that a cut-off one is found.

    Raises:
        BadInput: as `inspect`, and 422 if the content is damaged.

    """
    info = inspect(encoded, bounds)
    try:
        # A JPEG is then decoded at an eighth of its size: every byte is read, few pixels are made.
        _opened(encoded, info, (1, 1)).load()
    except _DAMAGE as exc:
        raise _damaged(info, exc) from exc
    return info


def as_jpeg(encoded: bytes, bounds: ImageBounds = BOUNDS) -> bytes:
    """Return the image as an upright JPEG: its own bytes if it is one, else at quality 95.

    One that is longer than a JPEG can be is made smaller.

    Raises:
        BadInput: as `verify`.

    """
    info = inspect(encoded, bounds)
    if info.is_upright_jpeg:
        return encoded
    half = min(info.width, info.height) // 2
    size = (half, half) if info.pixels > MAX_TURNED else None
    upright = _decoded(encoded, info, "RGB", size)
    upright.thumbnail((JPEG_SIDE, JPEG_SIDE))
    return _encoded(upright, QUALITY, "JPEG")


def thumbnail(
    encoded: bytes,
    side: int,
    quality: int,
    bounds: ImageBounds = BOUNDS,
    form: Literal["JPEG", "WEBP"] = "JPEG",
) -> bytes:
    """Return the image upright, and of at most `side` pixels a side.

    Raises:
        BadInput: as `verify`.

    """
    small = _decoded(encoded, inspect(encoded, bounds), "RGB", (2 * side, 2 * side))
    small.thumbnail((side, side))
    return _encoded(small, quality, form)


def resized(encoded: bytes, mode: str, width: int, height: int, bounds: ImageBounds = BOUNDS) -> bytes:
    """Return the image's pixels, upright, resized bilinearly without regard to its aspect.

    Args:
        encoded: the image.
        mode: `L` for grey, `RGB`.
        width: in pixels.
        height: in pixels.
        bounds: bounds on the image.

    Returns:
        uint8, [height, width, 1 or 3].

    Raises:
        BadInput: as `verify`.

    """
    image = _decoded(encoded, inspect(encoded, bounds), mode, (2 * width, 2 * height))
    return image.resize((width, height), Image.Resampling.BILINEAR).tobytes()


def _decoded(encoded: bytes, info: ImageInfo, mode: str, size: tuple[int, int] | None = None) -> Image.Image:
    """Return the upright pixels in a mode, at full size or, of a JPEG, not much above `size`."""
    sideways = size is not None and info.orientation in _SIDEWAYS
    try:
        image = _opened(encoded, info, size[::-1] if size and sideways else size)
        if image.mode == "I;16":
            # Pillow would clip to 255; the upper of two bytes is what every other 16-bit form is made of.
            image = Image.frombytes("L", image.size, image.tobytes()[1::2])
        image = image.convert(mode)
    except _DAMAGE as exc:
        raise _damaged(info, exc) from exc
    turn = _TURNS.get(info.orientation)
    return image if turn is None else image.transpose(turn)


def _opened(encoded: bytes, info: ImageInfo, size: tuple[int, int] | None) -> Image.Image:
    if info.format == "JPEG":
        encoded = _bare_jpeg(encoded)
    elif info.format == "PNG":
        encoded = b"".join(_bare_png(encoded))
    image = Image.open(io.BytesIO(encoded), formats=[info.format])
    if size is not None:
        image.draft("L" if image.mode == "L" else "RGB", size)
    return image


def _bare_jpeg(encoded: bytes) -> bytes:
    """Leave out what has no part in the pixels: Pillow reads profiles and EXIF when it opens an image."""
    found = segments(encoded)
    kept = [encoded[start:end] for marker, start, end in found if marker in _NEEDED_SEGMENTS]
    return b"".join((b"\xff\xd8", *kept, encoded[found[-1][2] :]))


def _bare_png(encoded: bytes) -> Iterator[bytes]:
    """Leave out what has no part in the pixels, and see that the rest is whole: Pillow reads no checksums.

    Raises:
        ValueError: if a chunk is damaged, the palette or the end is missing, or if there are too many.

    """
    yield PNG
    at = len(PNG)
    lacks_palette = encoded[PNG_COLOUR_TYPE] == PALETTE
    for _ in range(MAX_CHUNKS):
        if len(encoded) - at < CHUNK_BYTES:
            raise ValueError("it ends too early")
        length, name = struct.unpack_from(">I4s", encoded, at)
        end = at + CHUNK_BYTES + length
        if end > len(encoded):
            raise ValueError("it ends too early")
        if name == b"PLTE":
            lacks_palette = False
        elif name == b"IDAT" and lacks_palette:
            raise ValueError("it has no palette")
        if name == b"IEND" or name in _NEEDED_CHUNKS:
            (checksum,) = struct.unpack_from(">I", encoded, end - 4)
            if checksum != zlib.crc32(memoryview(encoded)[at + 4 : end - 4]):
                message = f"the checksum of {name.decode()} is wrong"
                raise ValueError(message)
            yield encoded[at:end]
        if name == b"IEND":
            return
        at = end
    message = f"it has more than {MAX_CHUNKS} chunks"
    raise ValueError(message)


def _encoded(image: Image.Image, quality: int, form: str) -> bytes:
    target = io.BytesIO()
    image.save(target, form, quality=quality)
    return target.getvalue()


def _damaged(info: ImageInfo, exc: Exception) -> BadInput:
    return BadInput(f"the {info.format} image is damaged: {exc}", status=422, reason="damaged-image")
