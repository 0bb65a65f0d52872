"""A directory on a volume shared with the model server: `<directory>/<model>/<version>/…`."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import shutil
import uuid
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

from caravan.contracts import ENTRY_FILES, is_model_name
from caravan.errors import Transient
from caravan.files import sync
from caravan.model_index import version_number
from edge_manager import models_config
from edge_manager.sinks import Held, NoRoom
from edge_manager.versions import Ref, Wanted

T = TypeVar("T")

STAGING = ".staging"
"""Beside the models, so on the same file system, and outside every model server's base path."""


class DirectorySink:
    """Versions in a directory. A version is staged, flushed to the disk, and renamed into place.

    Args:
        root: the directory.
        base_path: the same, as the model server sees it; empty where it sees it here.
        served: how many versions of a model are to be served where none is named, the newest.

    """

    name = "directory"

    def __init__(self, root: Path, base_path: str = "", served: int = 1) -> None:
        self._root = root
        self._base_path = base_path or str(root.absolute())
        self._served = served
        self._staging = root / STAGING

    async def open(self) -> None:
        """Make the directory, and clear away what broke off before."""

        def make() -> None:
            if self._staging.exists():
                shutil.rmtree(self._staging)
            self._staging.mkdir(parents=True)

        await _in_thread("prepare", make)

    async def check(self) -> None:
        """Check that the directory is there and can be written."""

        def look() -> None:
            if not os.access(self._root, os.W_OK | os.X_OK):
                raise Transient(f"{self._root} is missing or not writable")

        await _in_thread("reach", look)

    async def held(self) -> Held:
        """List the versions in place; those being staged are not among them, nor is what cannot be read."""

        def look() -> Held:
            return {
                model.name: {int(version.name): _is_whole(version) for version in _versions(model)}
                for model in self._root.iterdir()
                if is_model_name(model.name) and model.is_dir() and os.access(model, os.R_OK | os.X_OK)
            }

        return await _in_thread("list", look)

    async def room(self, ref: Ref) -> int:
        """Return what is free, with what its stage takes already."""

        def measure() -> int:
            staged = sum(path.stat().st_size for path in self._stage(ref).rglob("*") if path.is_file())
            return shutil.disk_usage(self._root).free + staged

        return await _in_thread("measure", measure)

    async def leftovers(self, ref: Ref) -> frozenset[str]:
        """List what is staged."""
        stage = self._stage(ref)

        def look() -> frozenset[str]:
            return frozenset(
                path.relative_to(stage).as_posix() for path in stage.rglob("*") if not path.is_dir()
            )

        return await _in_thread("list", look)

    async def has(self, ref: Ref, wanted: Wanted) -> bool:
        """Compare by reading the staged file."""
        path = self._stage(ref) / wanted.path

        def compare() -> bool:
            if wanted.sha256 is None or not path.is_file() or path.stat().st_size != wanted.size:
                return False
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == wanted.sha256.lower()

        return await _in_thread("read", compare)

    async def read(self, ref: Ref, path: str, start: int, end: int) -> bytes:
        """Read a range of a file in place; one that cannot be read is as one that is not there."""
        target = self._root / ref.model / str(ref.version) / path

        def read() -> bytes:
            with suppress(OSError), target.open("rb") as file:
                file.seek(start)
                return file.read(end - start)
            return b""

        return await _in_thread("read", read)

    async def put(self, ref: Ref, path: str, size: int, pieces: AsyncIterator[bytes]) -> None:
        """Write a file into the stage and flush it to the disk."""
        del size  # the disk needs no plan
        target = self._stage(ref) / path
        await _in_thread("write", partial(target.parent.mkdir, parents=True, exist_ok=True))
        await _in_thread("write", partial(target.write_bytes, b""))
        async for content in pieces:
            await _in_thread("write", partial(_append, target, content))
        await _in_thread("write", partial(sync, target))

    async def keep_only(self, ref: Ref, paths: Collection[str]) -> None:
        """Remove what else is staged."""

        def remove() -> None:
            stage = self._stage(ref)
            for path in [path for path in stage.rglob("*") if not path.is_dir()]:
                if path.relative_to(stage).as_posix() not in paths:
                    path.unlink()

        await _in_thread("clear", remove)

    async def publish(self, ref: Ref) -> None:
        """Rename the stage into place; a part of the version that somebody else left there gives way.

        Stages of older versions are cleared away: central has removed those that were not brought to an end.
        """

        def publish() -> None:
            stage, target = self._stage(ref), self._root / ref.model / str(ref.version)
            for folder, _, _ in os.walk(stage):
                sync(Path(folder))
            target.parent.mkdir(exist_ok=True)
            if target.exists():
                self._discard(target)
            stage.rename(target)
            sync(target.parent)
            sync(self._root)
            for older in [path for path in _versions(stage.parent) if int(path.name) < ref.version]:
                self._discard(older)

        await _in_thread("publish", publish)

    async def remove(self, ref: Ref) -> None:
        """Rename the version out of sight, then delete it; its stage too."""

        def remove() -> None:
            for path in (self._root / ref.model / str(ref.version), self._stage(ref)):
                if path.exists():
                    self._discard(path)

        await _in_thread("remove", remove)

    async def hide(self, ref: Ref) -> None:
        """Rename the version back to where it is staged."""

        def hide() -> None:
            target, stage = self._root / ref.model / str(ref.version), self._stage(ref)
            if target.exists():
                if stage.exists():
                    self._discard(stage)
                stage.parent.mkdir(parents=True, exist_ok=True)
                target.rename(stage)
                sync(target.parent)

        await _in_thread("hide", hide)

    @property
    def models_config(self) -> str:
        """The model server's path of `models.config`."""
        return f"{self._base_path}/{models_config.NAME}"

    async def configure(self, models: Mapping[str, Collection[int]]) -> None:
        """Write `models.config` beside it and rename it into place, unless it says the same."""
        content = models_config.models_config(self._base_path, models, self._served)

        def write() -> None:
            target, staged = self._root / models_config.NAME, self._staging / models_config.NAME
            if target.is_file() and target.read_bytes() == content:
                return
            staged.write_bytes(content)
            sync(staged)
            staged.replace(target)
            sync(self._root)

        await _in_thread("configure", write)

    def _stage(self, ref: Ref) -> Path:
        return self._staging / ref.model / str(ref.version)

    def _discard(self, path: Path) -> None:
        away = self._staging / f".removed-{uuid.uuid4().hex}"
        path.rename(away)
        sync(path.parent)
        shutil.rmtree(away)


def _versions(model: Path) -> Iterator[Path]:
    for path in model.iterdir():
        if version_number(path.name) is not None and path.is_dir():
            yield path


def _is_whole(version: Path) -> bool:
    with suppress(PermissionError):
        return any((version / name).is_file() for name in ENTRY_FILES)
    return False


def _append(path: Path, content: bytes) -> None:
    with path.open("ab") as file:
        file.write(content)


async def _in_thread(action: str, call: Callable[[], T]) -> T:
    """Call in a thread, and wait for its end even when cancelled: nothing may write behind our back."""
    work = asyncio.ensure_future(asyncio.to_thread(call))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        raise
    except OSError as exc:
        error = NoRoom if exc.errno in (errno.ENOSPC, errno.EDQUOT) else Transient
        raise error(f"the sink directory: could not {action}: {exc}") from exc
