"""Buckets and objects in a folder: `objects/<bucket>/<key>`, and in `drafts/` what is being written.

All of this blocks, and is called in threads. An object is written beside, synced to the disk and renamed:
after any end of the process or of the machine it is there as it was before, or as it was acknowledged.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from caravan.files import sync
from local_stack.file_store import facts
from local_stack.file_store.errors import S3Error
from local_stack.file_store.facts import Facts
from local_stack.file_store.names import bucket_name, file_name

Condition = Callable[[Facts | None], None]
"""Sees what is there, None being nothing, and raises S3Error if that is not what a request asks for."""


class Draft:
    """A file that is being written; nobody sees it yet."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._etag = ""

    @property
    def etag(self) -> str:
        """The MD5 of what was written, or what it was set to."""
        return self._etag or self._md5.hexdigest()

    @etag.setter
    def etag(self, etag: str) -> None:
        self._etag = etag

    def write(self, pieces: Iterable[bytes]) -> None:
        """Write on."""
        for piece in pieces:
            self._md5.update(piece)
            rest = memoryview(piece)
            while rest:
                rest = rest[os.write(self.fd, rest) :]

    def copy(self, source: int) -> None:
        """Write on all that another file holds, whose ETag has to be set: none is made of it."""
        at, end = 0, os.fstat(source).st_size
        while at < end and (sent := os.sendfile(self.fd, source, at, end - at)):
            at += sent

    def discard(self) -> None:
        """Close it, and remove it where it was not kept."""
        os.close(self.fd)
        self.path.unlink(missing_ok=True)


class Files:
    """The folder of a store; one process alone has it at a time."""

    def __init__(self, root: Path) -> None:
        self._objects, self._drafts = root / "objects", root / "drafts"
        self._changing = threading.Lock()
        self._lock = -1

    def __enter__(self) -> Self:
        """Take the folder. Raises OSError if another process has it, or its files can have no attributes."""
        self._objects.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self._objects, os.O_RDONLY)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(self._drafts, ignore_errors=True)
        self._drafts.mkdir()
        facts.need_attributes(self._drafts)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._lock)

    # --- buckets ------------------------------------------------------------------------------------

    def buckets(self) -> list[tuple[str, int]]:
        """Return the buckets' names, and since when each is as it is, in nanoseconds."""
        with os.scandir(self._objects) as entries:
            return sorted((entry.name, entry.stat().st_mtime_ns) for entry in entries if entry.is_dir())

    def bucket(self, name: str) -> Path:
        """Return a bucket's folder. Raises S3Error if it is not there."""
        folder = self._objects / bucket_name(name)
        if not folder.is_dir():
            raise S3Error("NoSuchBucket")
        return folder

    def make_bucket(self, name: str) -> None:
        """Make a bucket. Raises S3Error if it is there."""
        try:
            (self._objects / bucket_name(name)).mkdir()
        except FileExistsError as exc:
            raise S3Error("BucketAlreadyOwnedByYou") from exc
        sync(self._objects)

    def remove_bucket(self, name: str) -> None:
        """Remove an empty bucket. Raises S3Error if it is not."""
        try:
            with self._changing:
                self.bucket(name).rmdir()
        except OSError as exc:
            raise S3Error("BucketNotEmpty") from exc
        sync(self._objects)

    # --- objects ------------------------------------------------------------------------------------

    @contextmanager
    def open(self, bucket: str, key: bytes) -> Iterator[tuple[int, Facts]]:
        """Open an object to read; what is read is one version, also if another is put meanwhile.

        Raises:
            S3Error: if it is not there.

        """
        fd, about = self.opened(bucket, key)
        try:
            yield fd, about
        finally:
            os.close(fd)

    def opened(self, bucket: str, key: bytes) -> tuple[int, Facts]:
        """Do as `open` does; the caller closes the file."""
        try:
            return opened(self._path(bucket, key))
        except (FileNotFoundError, NotADirectoryError) as exc:
            raise S3Error("NoSuchKey") from exc

    def draft(self) -> Draft:
        """Begin to write an object."""
        return Draft(self._drafts / secrets.token_hex(16))

    def keep(
        self, draft: Draft, bucket: str, key: bytes, headers: Mapping[str, str], condition: Condition
    ) -> Facts:
        """Put what was written in its place, if the condition holds; then it is on the disk.

        Raises:
            S3Error: if not, or if it has no place there.

        """
        written = facts.write(draft.fd, draft.etag, headers)
        os.fsync(draft.fd)
        with self._changing:
            path = self._path(bucket, key)
            condition(self._there(path))
            folder = os.path.dirname(path)  # noqa: PTH120 - of bytes
            try:
                self._make(folder)
                os.replace(draft.path, path)  # noqa: PTH105
            except (FileExistsError, NotADirectoryError) as exc:
                raise S3Error("ObjectParentIsFile") from exc
            except IsADirectoryError as exc:
                raise S3Error("ExistingObjectIsDirectory") from exc
            sync(folder)
        return written

    def remove(self, bucket: str, key: bytes, condition: Condition = lambda _: None) -> None:
        """Remove an object, and the folders that are empty then; one that is not there is no fault."""
        with self._changing:
            path = self._path(bucket, key)
            condition(self._there(path))
            try:
                os.unlink(path)  # noqa: PTH108
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                return
            top = os.fsencode(self._objects / bucket)
            folder = os.path.dirname(path)  # noqa: PTH120
            with suppress(OSError):  # one that is not empty stays, with all above it
                while folder != top:
                    os.rmdir(folder)  # noqa: PTH106
                    folder = os.path.dirname(folder)  # noqa: PTH120
            sync(folder)

    def _path(self, bucket: str, key: bytes) -> bytes:
        return os.path.join(os.fsencode(self.bucket(bucket)), file_name(key))  # noqa: PTH118

    def _make(self, folder: bytes) -> None:
        """Make a folder and those above it, on the disk too."""
        if os.path.isdir(folder):  # noqa: PTH112
            return
        above = os.path.dirname(folder)  # noqa: PTH120
        self._make(above)
        os.mkdir(folder)  # noqa: PTH102
        sync(above)

    def _there(self, path: bytes) -> Facts | None:
        try:
            fd, about = opened(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        os.close(fd)
        return about


def opened(path: bytes) -> tuple[int, Facts]:
    """Open a plain file to read, with its facts. Raises FileNotFoundError if it is none."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as exc:
        if isinstance(exc, NotADirectoryError):
            raise
        raise FileNotFoundError from exc
    try:
        return fd, facts.read(fd)
    except BaseException:
        os.close(fd)
        raise
