"""What a ZIP with a model contains: one SavedModel, or one `model.onnx`, at the top or in a folder.

    fashion/saved_model.pb                    fashion/model.onnx
    fashion/variables/variables.index         labels.txt
    fashion/variables/variables.data-00000-of-00001
    fashion/labels.txt

Where the one entry file lies, there is the model; how deep, does not matter. The weights that exporters write
beside a `model.onnx` (`model.onnx.data` and the like) belong to it. What does not belong to it is ignored and
counted. Class names are in `labels.txt`, one a line: beside the model, in its `assets/` or in a folder above.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from caravan.contracts import ENTRY_FILES, ONNX_MODEL, SAVED_MODEL
from caravan.errors import BadInput
from caravan.names import CLASS_RULE, as_class, is_class
from caravan.zips import DAMAGE, Entry, check_method, first_words, read_directory, shown

SHAPE = "saved_model.pb with its variables/ and assets/, or model.onnx with its data"

LABELS = "labels.txt"
MAX_LABELS_BYTES = 2**20

_FOLDERS = ("variables", "assets", "assets.extra")
_BESIDE = (SAVED_MODEL, "fingerprint.pb", "keras_metadata.pb")
_NUMBERED = re.compile(r"\s*([0-9]{1,6})(?:[:,]\s*|\s+)(.*\S)\s*")
_LOCATION = re.compile(rb"\n\x08location\x12([\x00-\x7f]|[\x80-\xff][\x00-\x7f])", re.DOTALL)
"""Start of an `external_data` entry in ONNX: its key, and the length of its value."""
_LONGEST_LOCATION = 2**14
_PIECE = 2**20
_BOMB_BYTES = 20 * 2**20
"""Bytes above which a strongly compressed file is rejected; a model has few zeros."""


@dataclass(frozen=True, slots=True)
class ModelZipLimits:
    """What one archive may hold: entries, and bytes of the model once it is unpacked."""

    entries: int
    unpacked_bytes: int


@dataclass(frozen=True, slots=True)
class ModelZip:
    """An archive that holds one model, and no harm.

    Attributes:
        entry: `saved_model.pb` or `model.onnx`.
        files: the model's files, by path within the version.
        labels: class names out of `labels.txt`; empty without one.
        ignored: number of other files.

    """

    entry: str
    files: dict[str, zipfile.ZipInfo]
    labels: tuple[str, ...]
    ignored: int
    _file: zipfile.ZipFile

    def verify(self) -> None:
        """Read every file of the model to its end, so that its checksum is compared; call it in a thread.

        Raises:
            BadInput: 422 if one is damaged.

        """
        for path, info in self.files.items():
            for _ in _pieces(self._file, path, info):
                pass

    def unpack(self, directory: Path) -> None:
        """Write the model's files into a directory; call it in a thread.

        Raises:
            BadInput: 422 if one is damaged.

        """
        for path, info in self.files.items():
            target = directory / path
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as into:
                for piece in _pieces(self._file, path, info):
                    into.write(piece)


def read_model_zip(file: BinaryIO, limits: ModelZipLimits) -> ModelZip:
    """Read an archive's directory and find the model in it; call it in a thread.

    Args:
        file: open for reading, seekable; it must stay open while files are read.
        limits: bounds on the archive.

    Raises:
        BadInput: 400 if it is no ZIP or a truncated one, 413 if it holds too much, 422 if there is no model
            in it, more than one, or an entry that could do harm.

    """
    archive, entries = read_directory(file, limits.entries)
    found = _by_path(entries)
    place, entry = _entry_file(found)
    inside = {path.relative_to(place): info for path, info in found.items() if path.is_relative_to(place)}
    if entry == ONNX_MODEL:
        data = _external_data(archive, inside) if len(inside) > 1 else frozenset()
        files = {path.as_posix(): inside[path] for path in inside if path.as_posix() in {ONNX_MODEL, *data}}
    else:
        files = {path.as_posix(): info for path, info in inside.items() if _belongs(path)}
    _check_names(files)
    unpacked = sum(info.file_size for info in files.values())
    if unpacked > limits.unpacked_bytes:
        raise BadInput(
            f"the model unpacks to {unpacked} bytes; {limits.unpacked_bytes} are allowed",
            status=413,
            reason="model-too-large",
        )
    places = (place / LABELS, place / "assets" / LABELS, *(above / LABELS for above in place.parents))
    named = next((path for path in places if path in found), None)
    labels = () if named is None else _read_labels(archive, found[named])
    used = {place / path for path in files} | {named}
    return ModelZip(entry, files, labels, len(found.keys() - used), archive)


def parse_classes(names: Iterable[str]) -> tuple[str, ...]:
    """Return class names without blanks around them, and without empty ones.

    Raises:
        BadInput: 422 if one is too long, cannot be shown, or is there twice.

    """
    classes = tuple(filter(None, map(as_class, names)))
    seen = set()
    for name in classes:
        if not is_class(name):
            message = f"{shown(name)!r} cannot be the name of a class: {CLASS_RULE}"
            raise BadInput(message, 422, reason="bad-class-name")
        if name in seen:
            message = f"two classes are named {shown(name)!r}: give each a name of its own"
            raise BadInput(message, 422, reason="bad-class-name")
        seen.add(name)
    return classes


def _by_path(entries: Iterable[Entry]) -> dict[PurePosixPath, zipfile.ZipInfo]:
    found: dict[PurePosixPath, zipfile.ZipInfo] = {}
    for entry in entries:
        if entry.name.endswith("/"):
            continue
        path = PurePosixPath(entry.name)
        if path in found:
            raise BadInput(
                f"the ZIP is refused: it has {shown(entry.name)!r} twice", 422, reason="unsafe-zip"
            )
        if entry.shrinks_much and entry.info.file_size > _BOMB_BYTES:
            size = f"{entry.info.file_size} bytes, {entry.info.compress_size} compressed"
            raise BadInput(f"the ZIP is refused: {shown(entry.name)!r} unpacks to {size}", 413, reason="bomb")
        found[path] = entry.info
    return found


def _entry_file(found: Iterable[PurePosixPath]) -> tuple[PurePosixPath, str]:
    """Return the folder of the model, and the name of its entry file."""
    entries = [
        path
        for path in found
        if path.name in ENTRY_FILES and not any(part.startswith((".", "__")) for part in path.parts)
    ]
    # A file that lies deeper, in the folders of a model, is that model's affair.
    highest = min((len(path.parts) for path in entries), default=0)
    top = [path for path in entries if len(path.parts) == highest]
    if not top:
        raise BadInput(f"there is no model in the ZIP: {SHAPE} is taken", 422, reason="no-model")
    if len(top) > 1:
        names = " and ".join(repr(shown(str(path))) for path in sorted(top)[:2])
        raise BadInput(f"the ZIP holds {names}: send one model at a time", 422, reason="several-models")
    return top[0].parent, top[0].name


def _belongs(path: PurePosixPath) -> bool:
    return path.as_posix() in _BESIDE or (len(path.parts) > 1 and path.parts[0] in _FOLDERS)


def _external_data(archive: zipfile.ZipFile, inside: dict[PurePosixPath, zipfile.ZipInfo]) -> frozenset[str]:
    """Return the paths, beside it, that a `model.onnx` names as places of its tensors' data."""
    info = inside[PurePosixPath(ONNX_MODEL)]
    found = set()
    seen = b""
    for piece in _pieces(archive, ONNX_MODEL, info):
        seen = seen[-_LONGEST_LOCATION:] + piece
        for match in _LOCATION.finditer(seen):
            low, *high = match[1]
            size = low if not high else low - 0x80 + (high[0] << 7)
            name = seen[match.end() : match.end() + size].decode(errors="replace")
            found.add(PurePosixPath(name).as_posix())
    return frozenset(found)


def _check_names(files: dict[str, zipfile.ZipInfo]) -> None:
    for path in files:
        parents = map(str, PurePosixPath(path).parents)
        if not path.isprintable() or any(parent in files for parent in parents):
            raise BadInput(f"the ZIP is refused: {shown(path)!r} cannot be a file", 422, reason="unsafe-zip")


def _read_labels(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> tuple[str, ...]:
    if info.file_size > MAX_LABELS_BYTES:
        raise BadInput(f"{LABELS} has {info.file_size} bytes: too many", 413, reason="bad-labels")
    try:
        raw = b"".join(_pieces(archive, LABELS, info))
        return parse_classes(_unnumbered(raw.decode("utf-8-sig").splitlines()))
    except UnicodeDecodeError as exc:
        raise BadInput(f"{LABELS} is not UTF-8", 422, reason="bad-labels") from exc


def _unnumbered(lines: list[str]) -> list[str]:
    """Return lines without the number of the output before each, as Teachable Machine writes it."""
    found = [_NUMBERED.fullmatch(line) for line in filter(str.strip, lines)]
    numbers = [int(match[1]) for match in found if match]
    return [match[2] for match in found if match] if numbers == [*range(len(found))] else lines


def _pieces(archive: zipfile.ZipFile, path: str, info: zipfile.ZipInfo) -> Iterator[bytes]:
    """Read a file in pieces; its damage is the sender's affair."""
    check_method(info)
    try:
        with archive.open(info) as source:
            while piece := source.read(_PIECE):
                yield piece
    except DAMAGE as exc:
        raise BadInput(f"{path} is damaged in the ZIP: {first_words(exc)}", 422, reason="damaged") from exc
