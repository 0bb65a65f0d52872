"""Uploads in parts: `uploads/<id>/<number>.<ETag>`, joined into one object when they are all there."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import secrets
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from local_stack.file_store.errors import S3Error
from local_stack.file_store.facts import Facts
from local_stack.file_store.files import Condition, Draft, Files
from local_stack.file_store.names import file_name

MAX_NUMBER = 10_000
MAX_AGE_SECONDS = 86_400
"""An upload of which nothing was heard for so long is removed when the store starts."""
_ID = re.compile("[0-9a-f]{32}")
_ABOUT = "about"


class Uploads:
    """The uploads of a store that are not completed."""

    def __init__(self, root: Path, files: Files) -> None:
        self._root = root / "uploads"
        self._files = files

    def prepare(self) -> None:
        """Make the folder, and remove what was given up long ago."""
        self._root.mkdir(exist_ok=True)
        oldest = time.time() - MAX_AGE_SECONDS
        for upload in self._root.iterdir():
            if upload.stat().st_mtime < oldest:
                shutil.rmtree(upload)

    def begin(self, bucket: str, key: bytes, headers: Mapping[str, str]) -> str:
        """Begin an upload, and return its id. Raises S3Error if its object could not be."""
        self._files.bucket(bucket)
        file_name(key)
        upload = secrets.token_hex(16)
        (self._root / upload).mkdir()
        lines = [bucket, key.hex(), *(f"{name}:{value}" for name, value in headers.items())]
        (self._root / upload / _ABOUT).write_text("\n".join(lines), "latin-1")
        return upload

    def keep(self, upload: str, bucket: str, key: bytes, number: int, draft: Draft) -> None:
        """Keep what was written as a part. Raises S3Error if there is no such upload."""
        folder, _ = self._find(upload, bucket, key)
        draft.path.replace(folder / f"{number}.{draft.etag}")

    def complete(
        self, upload: str, bucket: str, key: bytes, parts: Sequence[tuple[int, str]], condition: Condition
    ) -> Facts:
        """Join parts, given by number and ETag, into the object.

        Raises:
            S3Error: if there is no such upload or part, or the condition does not hold.

        """
        folder, headers = self._find(upload, bucket, key)
        if not parts or any(a >= b for (a, _), (b, _) in itertools.pairwise(parts)):
            raise S3Error("InvalidPartOrder" if parts else "MalformedXML")
        digest = hashlib.md5(usedforsecurity=False)
        draft = self._files.draft()
        try:
            for number, etag in parts:
                if not _ID.fullmatch(etag):
                    raise S3Error("InvalidPart")
                self._join(draft, folder / f"{number}.{etag}")
                digest.update(bytes.fromhex(etag))
            draft.etag = f"{digest.hexdigest()}-{len(parts)}"
            kept = self._files.keep(draft, bucket, key, headers, condition)
        finally:
            draft.discard()
        shutil.rmtree(folder)
        return kept

    def abort(self, upload: str, bucket: str, key: bytes) -> None:
        """Forget an upload. Raises S3Error if there is none."""
        shutil.rmtree(self._find(upload, bucket, key)[0])

    def _join(self, draft: Draft, part: Path) -> None:
        try:
            fd = os.open(part, os.O_RDONLY)
        except FileNotFoundError as exc:
            raise S3Error("InvalidPart") from exc
        try:
            draft.copy(fd)
        finally:
            os.close(fd)

    def _find(self, upload: str, bucket: str, key: bytes) -> tuple[Path, dict[str, str]]:
        folder = self._root / upload
        try:
            lines = (folder / _ABOUT).read_text("latin-1").split("\n") if _ID.fullmatch(upload) else []
        except FileNotFoundError:
            lines = []
        if lines[:2] != [bucket, key.hex()]:
            raise S3Error("NoSuchUpload")
        return folder, dict(line.split(":", 1) for line in lines[2:])
