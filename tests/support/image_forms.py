"""One picture in each form that an image may come in, and what its pixels are."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from caravan import image_headers as headers

Values = NDArray[np.uint8]

HEIGHT, WIDTH = 48, 64
TURNED: dict[int, Callable[[Values], Values]] = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.transpose(1, 0, 2),
    6: lambda upright: upright.transpose(1, 0, 2)[::-1],
    7: lambda upright: upright.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda upright: upright.transpose(1, 0, 2)[:, ::-1],
}
"""By EXIF orientation, how an upright picture is stored."""


@dataclass(frozen=True)
class Form:
    """An encoded image, its format, and its upright RGB pixels `[height, width, 3]`, or why it is refused."""

    encoded: bytes
    format: str
    pixels: Values | None = None
    refused: str = ""


def colours() -> Values:
    """Draw four corners of different colours that run into each other: no turn of it looks like another."""
    down, across = np.mgrid[0:1:48j, 0:1:64j][..., None]
    corners = [(200, 30, 40), (40, 180, 60), (50, 60, 210), (230, 220, 90)]
    weights = [(1 - down) * (1 - across), (1 - down) * across, down * (1 - across), down * across]
    mixed = sum(weight * np.array(corner) for weight, corner in zip(weights, corners, strict=True))
    return np.asarray(np.rint(mixed), np.uint8)


def encode(values: Values, kind: str, **options: Any) -> bytes:
    """Encode pixels; JPEG and WebP nearly without loss."""
    target = io.BytesIO()
    best: dict[str, dict[str, Any]] = {
        "JPEG": {"quality": 95, "subsampling": 0},
        "MPO": {"quality": 95},
        "WEBP": {"lossless": True},
    }
    Image.fromarray(values).save(target, kind, **{**best.get(kind, {}), **options})
    return target.getvalue()


def oriented(orientation: int) -> bytes:
    """Return EXIF with an orientation among other tags."""
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    exif[0x0112] = orientation
    return exif.tobytes()


def chunk(name: bytes, content: bytes) -> bytes:
    """Return a chunk of a PNG."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(depth: int, colour: int, rows: list[bytes], *before: bytes) -> bytes:
    """Write a PNG of WIDTH x HEIGHT, with chunks before its pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, depth, colour, 0, 0, 0))
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"".join((headers.PNG, header, *before, chunk(b"IDAT", pixels), chunk(b"IEND", b"")))


def without_segment(jpeg: bytes, marker: int) -> bytes:
    """Leave a segment out of a JPEG."""
    start, end = next((start, end) for found, start, end in headers.segments(jpeg) if found == marker)
    return jpeg[:start] + jpeg[end:]


def forms() -> dict[str, Form]:
    """Return one of each."""
    rgb = colours()
    picture = Image.fromarray(rgb)
    grey = np.asarray(picture.convert("L"))
    as_rgb = np.repeat(grey[:, :, None], 3, axis=2)
    deep, deep_grey = ((values.astype(np.uint16) * 256 + 200).astype(">u2") for values in (rgb, grey))
    alpha = np.where(np.arange(WIDTH) < WIDTH // 2, 0, 128).astype(np.uint8)
    see_through = np.dstack([rgb, np.broadcast_to(alpha, (HEIGHT, WIDTH))])
    palette = picture.quantize(32)
    black_white = picture.convert("1")
    target = io.BytesIO()
    picture.convert("CMYK").save(target, "JPEG", quality=95)
    inks = target.getvalue()
    blue = Image.new("RGB", picture.size, "blue")
    found = {
        "a baseline JPEG": Form(encode(rgb, "JPEG"), "JPEG", rgb),
        "a progressive JPEG": Form(encode(rgb, "JPEG", progressive=True), "JPEG", rgb),
        "a grey JPEG": Form(encode(grey, "JPEG"), "JPEG", as_rgb),
        "a CMYK JPEG of Adobe's": Form(inks, "JPEG", rgb),
        "a JPEG of several pictures": Form(
            encode(rgb, "MPO", save_all=True, append_images=[blue]), "JPEG", rgb
        ),
        "a PNG": Form(encode(rgb, "PNG"), "PNG", rgb),
        "a grey PNG": Form(encode(grey, "PNG"), "PNG", as_rgb),
        "a PNG of 16 bits": Form(png(16, 2, [row.tobytes() for row in deep]), "PNG", rgb),
        "a grey PNG of 16 bits": Form(png(16, 0, [row.tobytes() for row in deep_grey]), "PNG", as_rgb),
        "a grey PNG of 16 bits with alpha": Form(
            png(16, 4, [np.stack([row, row], 1).astype(">u2").tobytes() for row in deep_grey]), "PNG", as_rgb
        ),
        "a PNG with transparency": Form(encode(see_through, "PNG"), "PNG", rgb),
        "an APNG": Form(encode(rgb, "PNG", save_all=True, append_images=[blue]), "PNG", rgb),
        "a WebP": Form(encode(rgb, "WEBP"), "WEBP", rgb),
        "a lossy WebP": Form(encode(rgb, "WEBP", lossless=False, quality=95), "WEBP", rgb),
        "a WebP with transparency": Form(encode(see_through, "WEBP", exact=True), "WEBP", rgb),
        "a lossy WebP with transparency": Form(
            encode(see_through, "WEBP", lossless=False, quality=95, exact=True), "WEBP", rgb
        ),
        "a CMYK JPEG of nobody's": Form(without_segment(inks, headers.APP14), "JPEG", refused=headers.INKS),
        "an animated WebP": Form(
            encode(rgb, "WEBP", save_all=True, append_images=[blue]), "WEBP", refused=headers.ANIMATED
        ),
        "a JPEG of 12 bits": Form(
            encode(rgb, "JPEG").replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc0\x00\x11\x0c"),
            "JPEG",
            refused=headers.CODING,
        ),
        "a PNG with a long preface": Form(
            png(8, 2, [row.tobytes() for row in rgb], *[chunk(b"tEXt", b"a\0b")] * headers.MAX_PARTS),
            "PNG",
            refused=headers.TOO_MANY_PARTS,
        ),
        "a JPEG with a long preface": Form(
            b"\xff\xd8" + b"\xff\xfe\x00\x03a" * headers.MAX_PARTS + encode(rgb, "JPEG")[2:],
            "JPEG",
            refused=headers.TOO_MANY_PARTS,
        ),
        "a text": Form(b"no image at all", "", refused=headers.NOT_AN_IMAGE),
    }
    for name, image in (("palette", palette), ("one bit", black_white)):
        target = io.BytesIO()
        image.save(target, "PNG", **({"transparency": 3} if name == "palette" else {}))
        found[f"a PNG with a {name}"] = Form(target.getvalue(), "PNG", np.asarray(image.convert("RGB")))
    for kind in ("JPEG", "PNG", "WEBP"):
        for orientation, stored in TURNED.items():
            turned = encode(np.ascontiguousarray(stored(rgb)), kind, exif=oriented(orientation))
            found[f"a {kind} of orientation {orientation}"] = Form(turned, kind, rgb)
    return found
