"""Folders that one process has for itself."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

from caravan.errors import Permanent, Transient

log = structlog.get_logger()

FILE = ".lock"


@contextmanager
def held(folder: Path, setting: str) -> Iterator[None]:
    """Keep a folder, made if it is not there, to this process; the system lets it go with the process.

    Args:
        folder: the folder that is to be used by one process alone.
        setting: that named it, for the message.

    Raises:
        Transient: if another process has it.
        Permanent: if it cannot be made, or not be written.

    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        opened = (folder / FILE).open("a")
    except OSError as exc:
        message = f"{setting}: {folder} cannot be written: {exc.strerror}"
        raise Permanent(message) from exc
    with opened as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            message = f"{setting}: another process uses {folder}; each has a folder of its own"
            raise Transient(message) from exc
        except OSError as exc:
            log.warning("a folder cannot be locked", folder=str(folder), error=str(exc))
        yield
