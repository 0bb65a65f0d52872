"""Scikit-learn's 1,797 handwritten digits as a training ZIP: `images/<0-9>/<number>.png`.

Each is a bitmap of 32 x 32 in blocks of 4 x 4, of which the inked pixels were counted: 8 x 8 values of
0..16 (Alpaydin and Kaynak, 1998). As pictures they are dark ink on white paper, with a margin, enlarged
smoothly: of the forms tried what the model's frozen backbone, which has seen photographs, tells apart best.
On a held-out fifth a softmax on its features is right for 98 of 100; without the margin it loses four of
these, with white ink on black three; size and sort of smoothing make less than one.
The page where digits are drawn repeats `picture` in JavaScript, to the pixel.
"""

from __future__ import annotations

import io
import zipfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MOST = 16
"""Inked pixels in a full block."""
MARGIN = 2
"""Blocks of paper around the ink."""
SIDE = 96
"""Side of a picture, in pixels: eight for each block."""
HELD_OUT_EVERY = 5
EPOCH = (1980, 1, 1, 0, 0, 0)


class Digit(NamedTuple):
    """A picture's name inside the ZIP, and the encoded picture."""

    name: str
    png: bytes


def digits() -> list[Digit]:
    """Return every digit, in the data set's order; their bytes depend on the installed Pillow alone."""
    # Imported here: scikit-learn takes a second, which the other commands should not wait for.
    from sklearn.datasets import load_digits  # type: ignore[import-untyped] # noqa: PLC0415

    found = load_digits()
    return [
        Digit(f"images/{label}/{number:04d}.png", encoded(picture(ink)))
        for number, (ink, label) in enumerate(zip(found.images, found.target, strict=True))
    ]


def picture(ink: NDArray[np.floating]) -> Image.Image:
    """Return 8 x 8 values of ink, 0..16, as a grey picture of 96 x 96."""
    paper = np.pad(np.asarray(ink, np.float64), MARGIN)
    grey = 255 - np.rint(paper * 255 / MOST).astype(np.uint8)
    return Image.fromarray(grey).resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def encoded(image: Image.Image) -> bytes:
    """Return a picture as PNG."""
    target = io.BytesIO()
    image.save(target, "PNG")
    return target.getvalue()


def split(found: Iterable[Digit]) -> tuple[list[Digit], list[Digit]]:
    """Return what to learn from and what to hold out: every fifth of each class."""
    seen: Counter[str] = Counter()
    learned: list[Digit] = []
    held_out: list[Digit] = []
    for digit in found:
        folder = digit.name.rpartition("/")[0]
        seen[folder] += 1
        (learned if seen[folder] % HELD_OUT_EVERY else held_out).append(digit)
    return learned, held_out


def write_zip(path: Path, found: Iterable[Digit]) -> None:
    """Write a ZIP whose bytes depend on its entries alone."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for digit in found:
            archive.writestr(zipfile.ZipInfo(digit.name, EPOCH), digit.png)
