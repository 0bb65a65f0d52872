"""What an encoded image says of itself before its pixels, read in bounded steps: fit for an event loop.

`training.pixels` reads the same in the graph that a model server runs; limits and reasons are these.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from caravan.errors import BadInput

MAX_BYTES = 20 * 2**20
MAX_PIXELS = 50_000_000
"""Most pixels of an image: about what the largest phone cameras make."""
WHOLE, WEBP = 2, 4
"""What is held whole while it is decoded (PNG, and a JPEG of several scans) may have half of MAX_PIXELS;
a WebP, of which libwebp's decoder of animations keeps two canvases, a quarter: no decoding passes 250 MB."""
MAX_PARTS = 512
"""Most segments or chunks looked at; a photo with a profile and an extended XMP has about a hundred."""
MAX_SCANS = 64
"""Most scans of a JPEG; each walks over all blocks. Progressive encoders make 10 to 20."""
MAX_TAGS = 256
"""Most tags read of the first EXIF directory."""

NOT_AN_IMAGE = "not an image: JPEG, PNG and WebP are taken"
TOO_MANY_PIXELS = "the image has too many pixels"
TOO_MANY_PARTS = f"the image has more than {MAX_PARTS} segments before its pixels"
TOO_MANY_SCANS = f"the JPEG has more than {MAX_SCANS} scans"
ANIMATED = "the image is animated: send one picture"
CODING = "the JPEG is coded in a way that is not taken: it must be baseline or progressive, of 8 bits"
INKS = "the JPEG has four inks and no Adobe marker, so that its colours are unknown"

JPEG, PNG, RIFF = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF"
APP0, APP1, APP14, SCAN = 0xE0, 0xE1, 0xEE, 0xDA
FRAMES = range(0xC0, 0xD0)
NO_FRAMES = (0xC4, 0xC8, 0xCC)
"""JPEG markers in the range of frame headers that begin no frame."""
TAKEN_FRAMES = (0xC0, 0xC1, 0xC2)
PROGRESSIVE = 0xC2
STANDALONE = (0x01, *range(0xD0, 0xDA))
"""JPEG markers without a segment; none belongs before the pixels."""
EXIF = b"Exif\0\0"
ORIENTATION, EXIF_DIRECTORY, TAKEN = 0x0112, 0x8769, 0x9003
ASCII, SHORT = 2, 3
MAX_TEXT = 64
ANIMATION_FLAG = 0x02


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """What an encoded image is.

    Attributes:
        format: `JPEG`, `PNG` or `WEBP`; a phone's JPEG of several pictures (MPO) is a JPEG.
        width: in pixels, as stored.
        height: in pixels, as stored.
        orientation: 1 to 8 as EXIF has it; 1 is upright.
        weight: memory per pixel while it is decoded, relative to a baseline JPEG: 1, 2 or 4.

    """

    format: str
    width: int
    height: int
    orientation: int = 1
    weight: int = 1

    @property
    def pixels(self) -> int:
        """How many there are."""
        return self.width * self.height

    @property
    def is_upright_jpeg(self) -> bool:
        """Whether it needs no change to be shown and kept as a JPEG."""
        return self.format == "JPEG" and self.orientation == 1

    @property
    def media_type(self) -> str:
        """Such as `image/jpeg`."""
        return f"image/{self.format.lower()}"


@dataclass(frozen=True, slots=True)
class ImageBounds:
    """What one image may have: encoded bytes, and pixels, fewer where one weighs more."""

    max_bytes: int = MAX_BYTES
    max_pixels: int = MAX_PIXELS


BOUNDS = ImageBounds()


def inspect(encoded: bytes, bounds: ImageBounds = BOUNDS) -> ImageInfo:
    """Read the header alone: at most a millisecond, or a few for the largest progressive JPEGs.

    Raises:
        BadInput: 413 if it has too many bytes, pixels or scans, 422 if it is no image that is taken.

    """
    if not encoded:
        raise BadInput("the image is empty", status=422, reason="no-image")
    if len(encoded) > bounds.max_bytes:
        message = f"the image has {len(encoded)} bytes; {bounds.max_bytes} are allowed"
        raise BadInput(message, status=413, reason="too-large")
    info = _reader(encoded)(encoded)
    allowed = bounds.max_pixels // info.weight
    if info.pixels > allowed:
        message = (
            f"{TOO_MANY_PIXELS}: {info.width} x {info.height} pixels; a {info.format} may have {allowed}"
        )
        raise BadInput(message, status=413, reason="too-many-pixels")
    return info


def orientation(exif: bytes) -> int:
    """Return the orientation, 1 to 8, of an EXIF block (with or without its `Exif` prefix); else 1."""
    order, tiff, directory = _tiff(exif)
    for tag, kind, count, value in _tags(order, tiff, directory):
        if (tag, kind, count) == (ORIENTATION, SHORT, 1):
            (turned,) = struct.unpack_from(f"{order}H", value)
            return turned if 1 <= turned <= 8 else 1  # noqa: PLR2004 - as EXIF has it
    return 1


def taken(encoded: bytes) -> str:
    """Return when a JPEG was taken by its EXIF, `YYYY:MM:DD HH:MM:SS`; empty where it does not say."""
    try:
        parts = segments(encoded) if encoded.startswith(JPEG) else []
    except BadInput:
        return ""
    for marker, start, end in parts:
        if marker == APP1 and encoded.startswith(EXIF, start + 4):
            order, tiff, directory = _tiff(encoded[start + 4 : end])
            for tag, _, _, value in _tags(order, tiff, directory):
                if tag == EXIF_DIRECTORY:
                    (inner,) = struct.unpack(f"{order}I", value)
                    return _text(order, tiff, inner, TAKEN)
    return ""


def _tiff(exif: bytes) -> tuple[str, bytes, int]:
    """Return the byte order of an EXIF block, the block, and where its first directory is."""
    tiff = exif.removeprefix(EXIF)
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None or len(tiff) < 8:  # noqa: PLR2004 - order, version, offset
        return "<", b"", 0
    (directory,) = struct.unpack_from(f"{order}I", tiff, 4)
    return order, tiff, directory


def _tags(order: str, tiff: bytes, directory: int) -> Iterator[tuple[int, int, int, bytes]]:
    """Yield tag, type, count and the four bytes of the value of each entry of a directory."""
    if directory + 2 > len(tiff):
        return
    (tags,) = struct.unpack_from(f"{order}H", tiff, directory)
    entry = struct.Struct(f"{order}HHI4s")
    entries = tiff[directory + 2 : directory + 2 + min(tags, MAX_TAGS) * entry.size]
    yield from entry.iter_unpack(entries[: len(entries) // entry.size * entry.size])


def _text(order: str, tiff: bytes, directory: int, wanted: int) -> str:
    for tag, kind, count, value in _tags(order, tiff, directory):
        if (tag, kind) == (wanted, ASCII) and 4 < count <= MAX_TEXT:  # noqa: PLR2004 - shorter ones are the value
            (at,) = struct.unpack(f"{order}I", value)
            return tiff[at : at + count].rstrip(b"\0 ").decode("ascii", "replace")
    return ""


def segments(encoded: bytes) -> list[tuple[int, int, int]]:
    """Return marker, start and end of each segment of a JPEG up to its first scan, whose header is the last.

    Raises:
        BadInput: 422 if they are damaged, or too many.

    """
    found: list[tuple[int, int, int]] = []
    at = 2
    for _ in range(MAX_PARTS):
        fill, marker, length = _unpacked(">BBH", encoded, at)
        if fill == marker == 0xFF:  # noqa: PLR2004 - markers may be padded with 0xFF
            at += 1
            continue
        end = at + 2 + length
        if fill != 0xFF or marker in STANDALONE or length < 2 or end > len(encoded):  # noqa: PLR2004
            raise _not_an_image()
        found.append((marker, at, end))
        if marker == SCAN:
            return found
        at = end
    raise BadInput(TOO_MANY_PARTS, status=422, reason="too-many-parts")


def _jpeg(encoded: bytes) -> ImageInfo:
    frame, adobe, exif = b"", False, b""
    for marker, start, end in segments(encoded):
        if marker == APP1 and not exif and encoded.startswith(EXIF, start + 4):
            exif = encoded[start + 4 : end]
        elif marker == APP14 and encoded.startswith(b"Adobe", start + 4):
            adobe = True
        elif marker in FRAMES and marker not in NO_FRAMES and not frame:
            frame = encoded[start + 1 : end]
    kind, _, bits, height, width, components = _unpacked(">BHBHHB", frame, 0)
    if kind not in TAKEN_FRAMES or bits != 8 or components not in {1, 3, 4}:  # noqa: PLR2004
        raise BadInput(CODING, status=422, reason="unknown-coding")
    if components == 4 and not adobe:  # noqa: PLR2004 - cyan, magenta, yellow, black
        raise BadInput(INKS, status=422, reason="unknown-colours")
    # A baseline scan that has all components is the only one that a decoder reads.
    (in_scan,) = _unpacked("B", encoded, start + 4)
    several = kind == PROGRESSIVE or in_scan < components
    if several and encoded.count(b"\xff\xda", start) > MAX_SCANS:
        raise BadInput(TOO_MANY_SCANS, status=413, reason="too-many-scans")
    return _sized("JPEG", width, height, orientation(exif), weight=WHOLE if several else 1)


def _png(encoded: bytes) -> ImageInfo:
    length, name, width, height = _unpacked(">I4sII", encoded, 8)
    if (length, name) != (13, b"IHDR"):
        raise _not_an_image()
    at, exif = 33, b""
    for _ in range(MAX_PARTS):
        length, name = _unpacked(">I4s", encoded, at)
        if name == b"IDAT":
            return _sized("PNG", width, height, orientation(exif), weight=WHOLE)
        if name == b"eXIf" and not exif:
            exif = encoded[at + 8 : at + 8 + length]
        at += 12 + length
    raise BadInput(TOO_MANY_PARTS, status=422, reason="too-many-parts")


def _webp(encoded: bytes) -> ImageInfo:
    kind = encoded[12:16]
    if kind == b"VP8 ":
        width, height = _unpacked("<HH", encoded, 26)
        return _sized("WEBP", width % 2**14, height % 2**14, weight=WEBP)
    if kind == b"VP8L":
        (bits,) = _unpacked("<I", encoded, 21)
        return _sized("WEBP", bits % 2**14 + 1, (bits >> 14) % 2**14 + 1, weight=WEBP)
    if kind != b"VP8X":
        raise _not_an_image()
    flags, width, width_high, height, height_high = _unpacked("<B3xHBHB", encoded, 20)
    if flags & ANIMATION_FLAG:
        raise BadInput(ANIMATED, status=422, reason="animated")
    at, exif = 12, b""
    for _ in range(MAX_PARTS):
        if at + 8 > len(encoded):
            size = width + (width_high << 16) + 1, height + (height_high << 16) + 1
            return _sized("WEBP", *size, orientation(exif), weight=WEBP)
        name, length = _unpacked("<4sI", encoded, at)
        if name == b"EXIF" and not exif:
            exif = encoded[at + 8 : at + 8 + length]
        at += 8 + length + length % 2
    raise BadInput(TOO_MANY_PARTS, status=422, reason="too-many-parts")


def _reader(encoded: bytes) -> Callable[[bytes], ImageInfo]:
    if encoded.startswith(JPEG):
        return _jpeg
    if encoded.startswith(PNG):
        return _png
    if encoded.startswith(RIFF) and encoded[8:12] == b"WEBP":
        return _webp
    raise _not_an_image()


def _sized(format_: str, width: int, height: int, turned: int = 1, *, weight: int) -> ImageInfo:
    if not width or not height:
        raise _not_an_image()
    return ImageInfo(format_, width, height, turned, weight)


def _unpacked(layout: str, encoded: bytes, at: int) -> tuple[Any, ...]:
    try:
        return struct.unpack_from(layout, encoded, at)
    except struct.error as exc:
        raise _not_an_image() from exc


def _not_an_image() -> BadInput:
    return BadInput(NOT_AN_IMAGE, status=422, reason="not-an-image")
