"""How much the images that an edge captured may take: beyond it the oldest go, whatever bucket they are in.

All of this blocks, and is called in threads.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterator, Sequence

from local_stack.file_store.errors import S3Error
from local_stack.file_store.files import Files
from local_stack.file_store.names import segment

AT_ONCE = 1000
"""Objects that are in memory at once."""

Found = tuple[int, int, str, bytes]
"""When an object was written (ns), its size in bytes, its bucket and its key."""


def bound(files: Files, buckets: Sequence[str], most: int) -> int:
    """Remove the oldest objects of some buckets until these have at most so many bytes; return how many."""
    removed = 0
    while (excess := sum(size for _, size, _, _ in _objects(files, buckets)) - most) > 0:
        for _, size, bucket, key in heapq.nsmallest(AT_ONCE, _objects(files, buckets)):
            files.remove(bucket, key)
            removed += 1
            if (excess := excess - size) <= 0:
                break
    return removed


def _objects(files: Files, buckets: Sequence[str]) -> Iterator[Found]:
    for bucket in buckets:
        try:
            folder = os.fsencode(files.bucket(bucket))
        except S3Error:
            continue  # it is not there
        for written, size, key in _below(folder, b""):
            yield written, size, bucket, key


def _below(folder: bytes, start: bytes) -> Iterator[tuple[int, int, bytes]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            key = start + segment(entry.name)
            try:
                if entry.is_dir(follow_symlinks=False):
                    yield from _below(entry.path, key + b"/")
                elif entry.is_file(follow_symlinks=False):
                    about = entry.stat(follow_symlinks=False)
                    yield about.st_mtime_ns, about.st_size, key
            except FileNotFoundError:
                continue  # it went meanwhile
