"""Files that are written whole or not at all, and are on the disk when a call returns."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

OWNER_ALONE = 0o600


def write_file(path: Path, content: bytes, *, mode: int = OWNER_ALONE, durable: bool = True) -> None:
    """Write a file, in folders that are made if they are not there, whole or not at all.

    Args:
        path: what is there already is replaced in one step.
        content: all that will be in it.
        mode: who may use it, from the first byte on.
        durable: whether content and name are on the disk when this returns.

    Raises:
        OSError: then what was there is as it was.

    """
    make_folder(path.parent, durable=durable)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    if durable:
        sync(path.parent)


def make_folder(path: Path, mode: int = 0o777, *, durable: bool = True) -> None:
    """Make a folder and those above it, if they are not there; `mode` is of the last one."""
    if not path.is_dir():
        make_folder(path.parent, durable=durable)
        path.mkdir(mode, exist_ok=True)
        if durable:
            sync(path.parent)


def sync(path: bytes | Path) -> None:
    """Bring a file, or the names in a folder, to the disk."""
    is_windows = os.name == "nt"
    if is_windows and os.path.isdir(path):  # noqa: PTH112 - it may be bytes
        return  # NTFS journals names, and opens no folder
    number = os.open(path, os.O_RDWR if is_windows else os.O_RDONLY)  # it syncs what can be written alone
    try:
        os.fsync(number)
    finally:
        os.close(number)
