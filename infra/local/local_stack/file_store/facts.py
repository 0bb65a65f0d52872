"""What is known of an object beside its content: an extended attribute of its file.

A file that others wrote, or changed since, gets its ETag when someone first asks for it.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from local_stack.file_store.errors import S3Error

ATTRIBUTE = "user.caravan"
MAX_METADATA = 2048
DEFAULT_HEADERS = {"content-type": "binary/octet-stream"}
_READ = 2**18


@dataclass(frozen=True, slots=True)
class Facts:
    """`etag` has no quotes, `size` is in bytes, `modified` in nanoseconds since the epoch."""

    etag: str
    size: int
    modified: int
    headers: Mapping[str, str] = field(default_factory=dict)


def write(fd: int, etag: str, headers: Mapping[str, str]) -> Facts:
    """Keep an object's facts with its file, whose content is whole.

    Raises:
        S3Error: if they are too large.

    """
    if sum(len(name) + len(value) for name, value in headers.items()) > MAX_METADATA:
        raise S3Error("MetadataTooLarge")
    about = os.fstat(fd)
    lines = [f"{etag} {about.st_size} {about.st_mtime_ns}", *(f"{n}:{v}" for n, v in headers.items())]
    os.setxattr(fd, ATTRIBUTE, "\n".join(lines).encode("latin-1"))
    return Facts(etag, about.st_size, about.st_mtime_ns, headers)


def read(fd: int) -> Facts:
    """Return the facts of an open file.

    Raises:
        FileNotFoundError: if it is no plain file.

    """
    about = os.fstat(fd)
    if not stat.S_ISREG(about.st_mode):
        raise FileNotFoundError
    try:
        first, *lines = os.getxattr(fd, ATTRIBUTE).decode("latin-1").split("\n")
        etag, size, modified = first.split(" ")
    except (OSError, ValueError):
        first, lines, etag, size, modified = "", [], "", "", ""
    headers = dict(line.split(":", 1) for line in lines) if lines else DEFAULT_HEADERS
    if (size, modified) == (str(about.st_size), str(about.st_mtime_ns)):
        return Facts(etag, about.st_size, about.st_mtime_ns, headers)
    etag = _md5(fd)
    with suppress(OSError, S3Error):  # it may be written by others alone
        return write(fd, etag, headers)
    return Facts(etag, about.st_size, about.st_mtime_ns, headers)


def _md5(fd: int) -> str:
    digest, at = hashlib.md5(usedforsecurity=False), 0
    while piece := os.pread(fd, _READ, at):
        digest.update(piece)
        at += len(piece)
    return digest.hexdigest()


def need_attributes(folder: Path) -> None:
    """See that a folder is where files have attributes.

    Raises:
        OSError: if it is not.

    """
    trial = folder / ".trial"
    trial.touch()
    try:
        os.setxattr(trial, ATTRIBUTE, b" " * (MAX_METADATA + 512))
    except OSError as exc:
        message = f"{folder} keeps no extended attributes of files (ext4, xfs, btrfs do): {exc.strerror}"
        raise OSError(exc.errno, message) from exc
    finally:
        trial.unlink()
