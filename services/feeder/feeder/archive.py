"""What a training ZIP contains, and what is refused: `images/<class>/<name>.(jpg|jpeg|png|webp)`.

Everything here is decided from the archive's directory, or from one entry at a time; nothing is unpacked to
disk and no declared size is trusted.
"""

from __future__ import annotations

import threading
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import BinaryIO

from caravan.contracts import image_key
from caravan.errors import BadInput
from caravan.names import FOLDER_RULE, as_class, is_file_name, is_folder, is_image_name, normal
from caravan.zips import DAMAGE, Entry, check_method, first_words, read_directory, shown

SHAPE = "images/<class>/<name>.(jpg|jpeg|png|webp)"
OTHER_IMAGES = frozenset(
    {".heic", ".heif", ".avif", ".gif", ".bmp", ".tif", ".tiff", ".jxl", ".jp2", ".svg", ".dng"}
)
"""Suffixes of images that are not accepted. The answer names such files: their senders count on them."""
OTHER_JPEGS = frozenset({".jfif", ".jpe"})
"""Suffixes that Windows and old programs give to JPEGs: named as well, and told apart."""
ILLEGIBLE = (
    "its name is in a code page that the ZIP does not tell: make the ZIP with UTF-8 names, "
    "as macOS, Linux and 7-Zip do"
)
_MAC = "__MACOSX"
"""The folder in which macOS keeps each file's extra attributes."""

BOMB_BYTES = 4 * 2**20
"""Bytes above which a strongly compressed entry is rejected: photos are compressed already."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one archive may hold: entries, bytes of an unpacked image, bytes of all of them."""

    entries: int
    entry_bytes: int
    unpacked_bytes: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """An entry that is an image by its name.

    Attributes:
        name: its name in the archive, fit to be shown.
        key: key of the image in the bucket.
        info: the archive's own entry; `file_size` is what is read of it at most.

    """

    name: str
    key: str
    info: zipfile.ZipInfo


@dataclass(frozen=True, slots=True)
class RejectedEntry:
    """An image that is not taken, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Archive:
    """An archive whose directory was read and found harmless.

    Attributes:
        candidates: the images by name, in the archive's order.
        rejected: entries in an image's place whose class or file name cannot be a key.
        ignored: number of other entries, folders included.
        misplaced: the name of one of these that is an image by its name; empty if there is none.

    """

    candidates: tuple[Candidate, ...]
    rejected: tuple[RejectedEntry, ...]
    ignored: int
    misplaced: str
    _file: zipfile.ZipFile
    # Opening and closing an entry changes a count in the archive; reading is guarded by itself.
    _opening: threading.Lock

    def read(self, candidate: Candidate) -> bytes:
        """Return an entry's content, of at most its declared size; call it in a thread.

        Raises:
            BadInput: 422 if it is damaged or compressed in a way that is not taken.

        """
        check_method(candidate.info)
        try:
            with self._opening:
                entry = self._file.open(candidate.info)
            try:
                return entry.read(candidate.info.file_size + 1)
            finally:
                with self._opening:
                    entry.close()
        except DAMAGE as exc:
            raise BadInput(f"damaged in the ZIP: {first_words(exc)}", status=422) from exc


def read_archive(file: BinaryIO, limits: Limits) -> Archive:
    """Read an archive's directory and check all of it; call it in a thread.

    Args:
        file: open for reading, seekable; it must stay open while entries are read.
        limits: bounds on the archive.

    Raises:
        BadInput: 400 if it is no ZIP or a truncated one, 413 if it holds too much, 422 if an entry is unsafe.

    """
    archive, entries = read_directory(file, limits.entries)
    candidates: list[Candidate] = []
    rejected: list[RejectedEntry] = []
    ignored = total = 0
    misplaced = ""
    wrapper = _wrapper(entries)
    for entry in entries:
        place = _place(entry, wrapper)
        _refuse_bomb(entry, limits.entry_bytes, is_image=place is not None)
        if place is None:
            ignored += 1
            misplaced = misplaced or _misplaced(entry)
        elif isinstance(place, RejectedEntry):
            rejected.append(place)
        else:
            candidates.append(Candidate(shown(entry.name), place, entry.info))
            total += entry.info.file_size
    if total > limits.unpacked_bytes:
        raise BadInput(f"the images unpack to {total} bytes; {limits.unpacked_bytes} are allowed", status=413)
    return Archive(tuple(candidates), tuple(rejected), ignored, misplaced, archive, threading.Lock())


def _refuse_bomb(entry: Entry, entry_bytes: int, *, is_image: bool) -> None:
    info = entry.info
    if (is_image and info.file_size > entry_bytes) or (
        entry.shrinks_much and info.file_size > (BOMB_BYTES if is_image else entry_bytes)
    ):
        size = f"{info.file_size} bytes, {info.compress_size} compressed"
        raise BadInput(f"the ZIP is refused: {shown(entry.name)!r} unpacks to {size}", status=413)


def _misplaced(entry: Entry) -> str:
    parts = _parts(entry)
    is_image = is_image_name(entry.name) and not parts[-1].startswith(".") and _MAC not in parts
    return shown(entry.name) if is_image else ""


def _parts(entry: Entry) -> list[str]:
    return [part for part in entry.name.split("/") if part not in ("", ".")]


def _wrapper(entries: Iterable[Entry]) -> list[str]:
    """Return the folder, if it is one, that all of `images/` was packed in: its path, else an empty one."""
    images = [parts[:-3] for parts in map(_parts, entries) if _is_placed(parts[-3:]) and _MAC not in parts]
    return images[0] if images and all(parts == images[0] for parts in images) else []


def _is_placed(parts: list[str]) -> bool:
    return len(parts) == 3 and parts[0].lower() == "images" and not parts[2].startswith(".")  # noqa: PLR2004


def _place(entry: Entry, wrapper: list[str]) -> str | RejectedEntry | None:
    """Return the key of an entry, a rejection if it cannot have one, or None if it is in no image's place."""
    name, parts = entry.name, _parts(entry)
    if not entry.is_legible and is_image_name(name):
        return RejectedEntry(shown(name), ILLEGIBLE)
    if parts[: len(wrapper)] != wrapper or not _is_placed(parts[len(wrapper) :]) or name.endswith("/"):
        return None
    item, file = as_class(parts[-2]), normal(parts[-1])
    other = PurePosixPath(file).suffix.lower()
    if other in OTHER_IMAGES:
        fault = f"{other[1:].upper()} is not taken: JPEG, PNG and WebP are"
    elif other in OTHER_JPEGS:
        fault = f"a JPEG's name ends in .jpg or .jpeg here, not in {other}"
    elif not is_image_name(file):
        return None
    elif not is_folder(item):
        fault = f"the folder's name cannot be a class: {FOLDER_RULE}"
    elif not is_file_name(file):
        fault = "the file's name is too long, or has unprintable characters"
    else:
        return image_key(item, file)
    return RejectedEntry(shown(name), fault)
