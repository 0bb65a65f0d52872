"""ZIPs from strangers: read entry by entry, with no trust in what they say of themselves.

A ZIP is refused whole if any entry could do harm to someone who unpacks it: names that lead out of the
folder, links, encryption. How large its directory is, is counted before it is read.
"""

from __future__ import annotations

import re
import stat
import struct
import zipfile
import zlib
from dataclasses import dataclass
from typing import BinaryIO

from caravan.errors import BadInput
from caravan.names import is_printable

BOMB_RATIO = 100
"""Compression ratio beyond which a large entry is taken for a bomb."""

_ENCRYPTED = 0x0001 | 0x0040 | 0x2000
_UTF8 = 0x0800
_DRIVE = re.compile(r"[A-Za-z]:")
_DIRECTORY_BYTES_PER_ENTRY = 256
_HEADER_SIGNATURE = b"PK\x01\x02"
_HEADER = struct.Struct("<4s24x3H12x")
_SHOWN = 200
_LOCAL_SIGNATURE = b"PK\x03\x04"
_END_SIGNATURE = b"PK\x05\x06"
_END = struct.Struct("<4s4H2LH")
_LONGEST_END = _END.size + 2**16 - 1
_EXTRA = struct.Struct("<HH")
_UNICODE_PATH = 0x7075
_OF_NAME = struct.Struct("<BL")

DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    NotImplementedError,
    OverflowError,
    RuntimeError,
    ValueError,
)
"""Errors that reading a damaged ZIP raises."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry: its name with `/` between folders, and the archive's own record.

    One that is not legible has a name in some code page that the archive does not tell: what is here is how
    the format's own, which is hardly ever meant, reads it.
    """

    name: str
    info: zipfile.ZipInfo
    is_legible: bool = True

    @property
    def shrinks_much(self) -> bool:
        """Tell whether it claims to unpack to more than `BOMB_RATIO` times its size."""
        return self.info.file_size > BOMB_RATIO * max(self.info.compress_size, 1)


_FORMATS = (
    (0, b"\x1f\x8b", "packed by gzip, as a .tar.gz is"),
    (257, b"ustar", "a tar archive"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (0, b"Rar!", "a RAR archive"),
    (0, b"\xff\xd8\xff", "a JPEG"),
    (0, b"\x89PNG", "a PNG"),
)
"""What is sent in place of a ZIP, by the bytes at a place."""


def _format(file: BinaryIO) -> str:
    """Return what a file is that is no ZIP; empty if that is not known."""
    file.seek(0)
    head = file.read(512)
    return next((name for at, mark, name in _FORMATS if head.startswith(mark, at)), "")


def read_directory(file: BinaryIO, max_entries: int) -> tuple[zipfile.ZipFile, tuple[Entry, ...]]:
    """Read a ZIP's directory and check that unpacking by its names does no harm; call it in a thread.

    Args:
        file: open for reading, seekable; it must stay open while entries are read.
        max_entries: most entries.

    Raises:
        BadInput: 400 if it is no whole ZIP, 413 if it has too many entries, 422 if one is unsafe.

    """
    guard = _Guard(file, max_entries)
    try:
        archive = zipfile.ZipFile(guard)
    except DAMAGE as exc:
        found = _format(file)
        words = (
            f"the body is {found}: send a ZIP"
            if found
            else f"the body is not a whole ZIP: {first_words(exc)}"
        )
        raise BadInput(words, reason="not-a-zip") from exc
    guard.passed = True
    _refuse_glued(file, archive)
    entries = tuple(map(_entry, archive.infolist()))
    for entry in entries:
        _refuse_harm(entry)
    return archive, entries


def check_method(info: zipfile.ZipInfo) -> None:
    """Take only the ways of packing that every archiver has.

    Raises:
        BadInput: 422 for any other.

    """
    method = info.compress_type
    if method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise BadInput(f"compressed by method {method}: only stored and deflated entries are taken", 422)


def shown(name: str) -> str:
    """Return a sender's text as it can be shown: printable, and not too long."""
    text = "".join(
        letter if is_printable(letter) else "\N{REPLACEMENT CHARACTER}" for letter in name[:_SHOWN]
    )
    return text if len(name) <= _SHOWN else f"{text}…"


def first_words(exc: BaseException) -> str:
    """Return what an error says, in one line that can be shown."""
    return shown(next(iter(str(exc).splitlines()), "")) or type(exc).__name__


def _refuse_harm(entry: Entry) -> None:
    name, info, fault = entry.name, entry.info, None
    # A program that unpacks it may know one of its names alone.
    names = (name, info.orig_filename.replace("\\", "/"))
    if any(each.startswith("/") or _DRIVE.match(each) for each in names):
        fault = "has an absolute name"
    elif any(".." in each.split("/") for each in names):
        fault = "has a name that leads out of its folder"
    elif stat.S_ISLNK(info.external_attr >> 16):
        fault = "is a symbolic link"
    elif info.flag_bits & _ENCRYPTED:
        fault = "is encrypted"
    if fault is not None:
        raise BadInput(f"the ZIP is refused: {shown(name)!r} {fault}", status=422, reason="unsafe-zip")


def _refuse_glued(file: BinaryIO, archive: zipfile.ZipFile) -> None:
    """Refuse a file that is more than one ZIP: only the last one's entries would be seen."""
    file.seek(0)
    begins = file.read(len(_LOCAL_SIGNATURE)) == _LOCAL_SIGNATURE
    size = file.seek(0, 2)
    file.seek(max(0, size - _LONGEST_END))
    tail = file.read()
    end = tail.rfind(_END_SIGNATURE)
    after = tail[end + _END.size + _END.unpack_from(tail, end)[-1] :] if end >= 0 else b""
    if (begins and all(info.header_offset for info in archive.infolist())) or _LOCAL_SIGNATURE in after:
        message = "the ZIP is refused: it is several that were put together; send each by itself"
        raise BadInput(message, status=422, reason="several-zips")


def _entry(info: zipfile.ZipInfo) -> Entry:
    name = info.orig_filename if info.flag_bits & _UTF8 else _unicode_name(info)
    # Backslashes as some archivers on Windows write them.
    return Entry((name or info.orig_filename).replace("\\", "/"), info, is_legible=name is not None)


def _unicode_name(info: zipfile.ZipInfo) -> str | None:
    """Return the name of an entry that does not say that it is UTF-8; None if nothing tells it.

    WinRAR and others write it in the local code page, and in UTF-8 in the extra field 0x7075, with the CRC-32
    of the former (APPNOTE 4.6.9); archivers that write UTF-8 do not always say so.
    """
    try:
        raw = info.orig_filename.encode("cp437")  # as zipfile has decoded it
    except UnicodeError:
        return None
    for text in (_unicode_path(info.extra, raw), raw):
        try:
            return text.decode()
        except UnicodeDecodeError:
            continue
    return None


def _unicode_path(extra: bytes, name: bytes) -> bytes:
    """Return the content of the extra field 0x7075, if it is about this name; else the name."""
    while len(extra) >= _EXTRA.size:
        kind, size = _EXTRA.unpack_from(extra)
        field, extra = extra[_EXTRA.size :][:size], extra[_EXTRA.size + size :]
        if kind == _UNICODE_PATH and len(field) == size > _OF_NAME.size:
            version, crc = _OF_NAME.unpack_from(field)
            if version == 1 and crc == zlib.crc32(name):
                return field[_OF_NAME.size :]
    return name


class _Guard:
    """Wraps a file so that zipfile refuses an oversized central directory.

    zipfile reads the whole directory at once and makes an object of some hundred bytes for each entry; what
    it is about to read is counted here first, whatever the archive claims of itself.
    """

    def __init__(self, file: BinaryIO, entries: int) -> None:
        self._file = file
        self._entries = entries
        self.passed = False
        self.seek = file.seek
        self.tell = file.tell
        self.seekable = file.seekable

    def read(self, size: int = -1) -> bytes:
        if self.passed:
            return self._file.read(size)
        if size > self._entries * _DIRECTORY_BYTES_PER_ENTRY:
            raise BadInput(f"the ZIP's directory has {size} bytes: too many", status=413)
        content = self._file.read(size)
        if content.startswith(_HEADER_SIGNATURE) and self._holds_too_many(content):
            raise BadInput(f"the ZIP has more than {self._entries} entries", status=413)
        return content

    def _holds_too_many(self, directory: bytes) -> bool:
        at = 0
        for _ in range(self._entries):
            if len(directory) - at < _HEADER.size:
                return False
            _, name, extra, comment = _HEADER.unpack_from(directory, at)
            at += _HEADER.size + name + extra + comment
        return len(directory) - at >= _HEADER.size
