"""Keys and the files that they are: each segment of a key is a name of its own.

A segment that can be no name is escaped: the empty one is `%`, `.` and `..` are written `%.` and `%..`, and
one that begins with `%` gets another. So any key has a place of its own inside its bucket.
"""

from __future__ import annotations

import re

from local_stack.file_store.errors import S3Error

MAX_KEY = 1024
MAX_SEGMENT = 250
_BUCKET = re.compile(r"(?!.*\.\.)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_ESCAPED = (b"", b".", b"..")


def bucket_name(text: str) -> str:
    """Return a bucket's name. Raises S3Error if it can be none."""
    if not _BUCKET.fullmatch(text):
        raise S3Error("InvalidBucketName")
    return text


def file_name(key: bytes) -> bytes:
    """Return where an object's file is below its bucket's folder.

    Raises:
        S3Error: if no file can have that key.

    """
    segments = key.split(b"/")
    if len(key) > MAX_KEY or max(map(len, segments)) > MAX_SEGMENT:
        raise S3Error("KeyTooLongError")
    if not key or b"\0" in key or not _is_text(key):
        raise S3Error("InvalidArgument", "a key is text in UTF-8 without NUL")
    return b"/".join(b"%" + one if one in _ESCAPED or one.startswith(b"%") else one for one in segments)


def segment(name: bytes) -> bytes:
    """Return the segment of a key that a file's or a folder's name stands for."""
    return name.removeprefix(b"%")


def _is_text(key: bytes) -> bool:
    try:
        key.decode()
    except UnicodeDecodeError:
        return False
    return True
