"""Is this an image that we take? Decided from the bytes, never from a name or a declared type."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass

from PIL import Image

from caravan.errors import BadInput

FORMATS = ("JPEG", "PNG", "WEBP")
MAX_BYTES = 20 * 2**20
MAX_PIXELS = 50_000_000
"""About what the largest phone cameras make; decoded, 150 MB."""

DAMAGE = (
    ArithmeticError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""What decoders raise on content made to upset them."""


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """What an encoded image is: `format` is one of FORMATS, sizes are pixels."""

    format: str
    width: int
    height: int


def inspect(encoded: bytes, *, max_bytes: int = MAX_BYTES, max_pixels: int = MAX_PIXELS) -> ImageInfo:
    """Read the header alone: cheap enough for the event loop.

    Raises:
        BadInput: 413 if it has too many bytes or pixels, 422 if it is no JPEG, PNG or WebP.

    """
    info, _ = _open(encoded, max_bytes, max_pixels)
    return info


def verify(encoded: bytes, *, max_bytes: int = MAX_BYTES, max_pixels: int = MAX_PIXELS) -> ImageInfo:
    """Read the image to its end, so that a cut-off one is found; call it in a thread.

    Raises:
        BadInput: as `inspect`, and 422 if the content is damaged.

    """
    info, image = _open(encoded, max_bytes, max_pixels)
    try:
        # A JPEG is then decoded at an eighth of its size: every byte is read, few pixels are made.
        image.draft("RGB", (1, 1))
        image.load()
    except DAMAGE as exc:
        message = f"the {info.format} image is damaged: {exc}"
        raise BadInput(message, status=422, reason="damaged-image") from exc
    return info


def as_jpeg(encoded: bytes) -> bytes:
    """Return the image as JPEG: its own bytes if it is one, else at quality 95; call it in a thread."""
    image = Image.open(io.BytesIO(encoded), formats=FORMATS)
    if image.format == "JPEG":
        return encoded
    target = io.BytesIO()
    image.convert("RGB").save(target, "JPEG", quality=95)
    return target.getvalue()


def _open(encoded: bytes, max_bytes: int, max_pixels: int) -> tuple[ImageInfo, Image.Image]:
    if not encoded:
        raise BadInput("the image is empty", status=422, reason="no-image")
    if len(encoded) > max_bytes:
        message = f"the image has {len(encoded)} bytes; {max_bytes} are allowed"
        raise BadInput(message, status=413, reason="too-large")
    try:
        image = Image.open(io.BytesIO(encoded), formats=FORMATS)
    except Image.DecompressionBombError as exc:
        message = f"the image has too many pixels; {max_pixels} are allowed"
        raise BadInput(message, status=413, reason="too-many-pixels") from exc
    except DAMAGE as exc:
        message = "not an image: JPEG, PNG and WebP are taken"
        raise BadInput(message, status=422, reason="not-an-image") from exc
    width, height = image.size
    if width * height > max_pixels:
        message = f"the image is {width} x {height} pixels; {max_pixels} are allowed"
        raise BadInput(message, status=413, reason="too-many-pixels")
    return ImageInfo(str(image.format), width, height), image
