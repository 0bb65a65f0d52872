"""What a training ZIP contains, and what is refused: `images/<class>/<name>.(jpg|jpeg|png|webp)`.

Everything here is decided from the archive's directory, or from one entry at a time; nothing is unpacked to
disk and no declared size is trusted.
"""

from __future__ import annotations

import threading
import zipfile
from dataclasses import dataclass
from typing import BinaryIO

from caravan.contracts import image_key
from caravan.errors import BadInput
from caravan.names import FOLDER_RULE, is_file_name, is_folder, is_image_name, normal
from caravan.zips import DAMAGE, Entry, check_method, first_words, read_directory, shown

SHAPE = "images/<class>/<name>.(jpg|jpeg|png|webp)"
BOMB_BYTES = 4 * 2**20
"""An entry larger than this that shrinks much is no photo: images are compressed already."""


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
        key: where the image belongs in the bucket.
        info: the archive's own entry; `file_size` is what is read of it at most.

    """

    name: str
    key: str
    info: zipfile.ZipInfo


@dataclass(frozen=True, slots=True)
class Rejected:
    """An image that is not taken, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Archive:
    """An archive whose directory was read and found harmless.

    Attributes:
        candidates: the images by name, in the archive's order.
        rejected: entries in an image's place whose class or file name cannot be a key.
        ignored: how many other entries there are, folders too.

    """

    candidates: tuple[Candidate, ...]
    rejected: tuple[Rejected, ...]
    ignored: int
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
        limits: what it may hold.

    Raises:
        BadInput: 400 if it is no ZIP or a truncated one, 413 if it holds too much, 422 if an entry is unsafe.

    """
    archive, entries = read_directory(file, limits.entries)
    candidates: list[Candidate] = []
    rejected: list[Rejected] = []
    ignored = total = 0
    for entry in entries:
        place = _place(entry.name)
        _refuse_bomb(entry, limits.entry_bytes, is_image=place is not None)
        if place is None:
            ignored += 1
        elif isinstance(place, Rejected):
            rejected.append(place)
        else:
            candidates.append(Candidate(shown(entry.name), place, entry.info))
            total += entry.info.file_size
    if total > limits.unpacked_bytes:
        raise BadInput(f"the images unpack to {total} bytes; {limits.unpacked_bytes} are allowed", status=413)
    return Archive(tuple(candidates), tuple(rejected), ignored, archive, threading.Lock())


def _refuse_bomb(entry: Entry, entry_bytes: int, *, is_image: bool) -> None:
    info = entry.info
    if (is_image and info.file_size > entry_bytes) or (
        entry.shrinks_much and info.file_size > (BOMB_BYTES if is_image else entry_bytes)
    ):
        size = f"{info.file_size} bytes, {info.compress_size} compressed"
        raise BadInput(f"the ZIP is refused: {shown(entry.name)!r} unpacks to {size}", status=413)


def _place(name: str) -> str | Rejected | None:
    """Return the key of an entry, a rejection if it cannot have one, or None if it is in no image's place."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if len(parts) != 3 or parts[0].lower() != "images" or name.endswith("/"):  # noqa: PLR2004 - as in SHAPE
        return None
    item, file = (normal(part) for part in parts[1:])
    if file.startswith(".") or not is_image_name(file):
        return None
    if not is_folder(item):
        return Rejected(shown(name), f"the folder's name cannot be a class: {FOLDER_RULE}")
    if not is_file_name(file):
        return Rejected(shown(name), "the file's name is too long, or has unprintable characters")
    return image_key(item, file)
