"""The photos of the study: what they show, when and where they were taken, and how they are damaged."""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from support.files import as_file

OTHER = "other"
ARCHIVES = ("teas.zip", "bali-tea.zip")
PAUSE_SECONDS = 7.0
"""A longer pause between two photos of a product begins another moment."""
_TIME = re.compile(r"_(\d\d)-?(\d\d)-?(\d\d)-?(\d{3})")
"""In a camera's file name: hours, minutes, seconds, thousandths."""


@dataclass(frozen=True)
class Photo:
    """A photo of the study.

    Attributes:
        name: its class.
        file: where it is.
        sha256: of its content.
        moment: what it shares with those taken within seconds of it.
        place: 0 or 1: before or after the longest pause between photos of its class.

    """

    name: str
    file: Path
    sha256: str
    moment: str
    place: int


def unpack(data: Path, target: Path) -> list[Photo]:
    """Unpack the archives and return their photos, by class and file name."""
    for archive in ARCHIVES:
        with zipfile.ZipFile(data / archive) as zipped:
            zipped.extractall(target)  # our own data
    photos: list[Photo] = []
    for folder in sorted((target / "images").iterdir()):
        files = sorted(folder.iterdir(), key=lambda file: (_seconds(file), file.name))
        times = np.array([_seconds(file) for file in files])
        pauses = np.diff(times, prepend=times[0])
        is_timed = bool(times.any())
        moments = np.cumsum(pauses > PAUSE_SECONDS) if is_timed else np.arange(len(files))
        places = np.arange(len(files)) >= pauses.argmax() if is_timed else np.zeros(len(files), bool)
        photos += [
            Photo(folder.name, file, _sha256(file), f"{folder.name} {moment}", int(place))
            for file, moment, place in zip(files, moments, places, strict=True)
        ]
    return photos


def _seconds(file: Path) -> float:
    found = _TIME.search(file.name)
    if found is None:
        return 0.0
    hours, minutes, seconds, thousandths = map(int, found.groups())
    return hours * 3600 + minutes * 60 + seconds + thousandths / 1000


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


# --- damage -------------------------------------------------------------------------------------------


def _middle_half(image: Image.Image) -> Image.Image:
    width, height = image.size
    return image.crop((width // 4, height // 4, width * 3 // 4, height * 3 // 4))


def _on_grey(image: Image.Image) -> Image.Image:
    ground = Image.new("RGB", image.size, (128, 128, 128))
    small = image.resize((image.width * 2 // 5, image.height * 2 // 5))
    ground.paste(small, ((image.width - small.width) // 2, (image.height - small.height) // 2))
    return ground


def _blurred(image: Image.Image) -> Image.Image:
    """Two pixels of 224, whatever the photo's size."""
    return image.filter(ImageFilter.GaussianBlur(2 * max(image.size) / 224))


def _jpeg(image: Image.Image, quality: int = 95) -> bytes:
    return as_file(image, quality=quality)


DAMAGE: dict[str, Callable[[Image.Image], bytes]] = {
    "as it is": _jpeg,
    "turned": lambda image: _jpeg(image.rotate(90, expand=True)),
    "blurred": lambda image: _jpeg(_blurred(image)),
    "JPEG 15": lambda image: _jpeg(image, 15),
    "middle half": lambda image: _jpeg(_middle_half(image)),
    "small on grey": lambda image: _jpeg(_on_grey(image)),
}


def damaged(photo: Photo, how: str, target: Path) -> Path:
    """Write a damaged copy of a photo and return where it is."""
    with Image.open(photo.file) as image:
        upright = ImageOps.exif_transpose(image).convert("RGB")
    upright.thumbnail((1024, 1024))
    file = target / f"{photo.sha256}-{how.replace(' ', '-')}.jpg"
    file.write_bytes(DAMAGE[how](upright))
    return file
