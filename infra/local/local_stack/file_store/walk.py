"""Listings, in the order of the keys' bytes, with one folder in memory, and those above it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from local_stack.file_store.facts import Facts
from local_stack.file_store.files import opened
from local_stack.file_store.names import segment

BEYOND = b"\xff"
"""Comes after whatever follows in a key, which is UTF-8."""


@dataclass(slots=True)
class Page:
    """Part of a listing; `more` tells whether keys follow `last`, the last key or folder that is in it."""

    objects: list[tuple[bytes, Facts]] = field(default_factory=list)
    folders: list[bytes] = field(default_factory=list)
    last: bytes = b""
    more: bool = False


def page(folder: Path, *, prefix: bytes, delimiter: bytes, after: bytes, most: int) -> Page:
    """List a bucket's folder: up to `most` keys and common prefixes that come after a key or a prefix."""
    found = Page()
    walk = _Walk(prefix, after)
    for key, path in walk.files(os.fsencode(folder), b""):
        head, cut, _ = key[len(prefix) :].partition(delimiter) if delimiter else (b"", b"", b"")
        common = prefix + head + cut if cut else b""
        if cut and common <= after:
            walk.after = common + BEYOND
            continue
        if len(found.objects) + len(found.folders) == most:
            found.more = most > 0
            break
        if cut:
            found.folders.append(common)
            walk.after = common + BEYOND
        else:
            try:
                fd, about = opened(path)
            except (FileNotFoundError, NotADirectoryError):
                continue  # it went meanwhile
            os.close(fd)
            found.objects.append((key, about))
        found.last = common or key
    return found


class _Walk:
    """Goes through the files whose keys have a prefix and come after `after`, which may be moved on."""

    def __init__(self, prefix: bytes, after: bytes) -> None:
        self._prefix = prefix
        self.after = after

    def files(self, path: bytes, start: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield keys and paths of the files below a folder, whose keys begin with `start`."""
        try:
            with os.scandir(path) as entries:
                names = [
                    (segment(entry.name) + (b"/" if entry.is_dir(follow_symlinks=False) else b""), entry.path)
                    for entry in entries
                ]
        except (FileNotFoundError, NotADirectoryError):
            return  # it went meanwhile
        names.sort()
        for name, place in names:
            key = start + name
            if name.endswith(b"/"):
                if self._may_hold(key):
                    yield from self.files(place, key)
            elif key > self.after and key.startswith(self._prefix):
                yield key, place

    def _may_hold(self, folder: bytes) -> bool:
        fits = folder.startswith(self._prefix) or self._prefix.startswith(folder)
        return fits and self.after < folder + BEYOND
