"""Where versions come from: a local directory, or a prefix in an S3 bucket."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import Protocol
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from caravan import tracing
from caravan.contracts import ENTRY_FILES, MANIFEST
from model_server.errors import Code, ServingError
from model_server.settings import S3_SCHEME, S3Access
from model_server.versions import index_versions

LIST_SECONDS = 20.0
FETCH_SECONDS = 600.0


class SourceError(Exception):
    """The base path cannot be read now: nothing is known about its versions."""


class Source(Protocol):
    """A base path. `versions` maps numbers to directory names; `fetch` yields a local directory."""

    async def versions(self) -> dict[int, str]:
        """List the versions. Raises SourceError when the base path cannot be read."""

    async def fetch(self, name: str) -> Path:
        """Return a local directory with the version's files. Raises ServingError."""

    async def discard(self, path: Path) -> None:
        """The directory is not needed any more."""


class Directory:
    """A base path on the local file system."""

    def __init__(self, base_path: str) -> None:
        self._base = Path(base_path)

    async def versions(self) -> dict[int, str]:
        """Directories (or links to one) named by a number."""
        try:
            return await asyncio.to_thread(self._scan)
        except OSError as exc:
            raise SourceError(f"Could not find base path {self._base}: {exc.strerror or exc}") from exc

    def _scan(self) -> dict[int, str]:
        with os.scandir(self._base) as entries:
            return index_versions(entry.name for entry in entries if entry.is_dir())

    async def fetch(self, name: str) -> Path:
        """The version's own directory: nothing is copied."""
        return self._base / name

    async def discard(self, path: Path) -> None:
        """The directory is not ours: nothing is removed."""


class Bucket:
    """A base path in S3. A version counts once its entry file, written last, is there."""

    def __init__(self, url: str, access: S3Access) -> None:
        parts = urlsplit(url)
        self._prefix = parts.path.strip("/")
        self._url = url
        self._complete: set[str] = set()
        self._store = open_store(parts.netloc, access)

    async def versions(self) -> dict[int, str]:
        """The complete versions under the prefix."""
        async with s3_errors(f"Could not list {self._url}"), asyncio.timeout(LIST_SECONDS):
            listing = await obstore.list_with_delimiter_async(self._store, prefix=f"{self._prefix}/")
            names = {PurePosixPath(prefix).name for prefix in listing["common_prefixes"]}
            found = index_versions(names)
            self._complete &= names
            for name in set(found.values()) - self._complete:
                if await self._has_model(name):
                    self._complete.add(name)
        return {number: name for number, name in found.items() if name in self._complete}

    async def _has_model(self, name: str) -> bool:
        for entry in ENTRY_FILES:
            try:
                await obstore.head_async(self._store, f"{self._prefix}/{name}/{entry}")
            except FileNotFoundError:
                continue
            return True
        return False

    async def fetch(self, name: str) -> Path:
        """Download the version into a new private directory, which `discard` removes.

        The task goes on with the trace that the manifest's metadata name.
        """
        target = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="model-server-"))
        prefix = f"{self._prefix}/{name}/"
        try:
            async with s3_errors(f"Could not read {self._url}/{name}"), asyncio.timeout(FETCH_SECONDS):
                async for objects in obstore.list(self._store, prefix=prefix):
                    for item in objects:
                        await self._download(item["path"], item["size"], target, prefix)
        except SourceError as exc:
            await self.discard(target)
            raise ServingError(Code.UNAVAILABLE, str(exc)) from exc
        except BaseException:
            await asyncio.shield(self.discard(target))
            raise
        return target

    async def _download(self, key: str, size: int, target: Path, prefix: str) -> None:
        parts = PurePosixPath(key.removeprefix(prefix)).parts
        if not parts or ".." in parts or key.endswith("/"):
            return
        file = target.joinpath(*parts)
        await asyncio.to_thread(file.parent.mkdir, parents=True, exist_ok=True)
        written = 0
        answer = await obstore.get_async(self._store, key)
        if parts == (MANIFEST,):
            tracing.follow({str(name): str(value) for name, value in answer.attributes.items()})
        with await asyncio.to_thread(file.open, "wb") as out:
            async for chunk in answer.stream(min_chunk_size=4 << 20):
                written += len(chunk)
                await asyncio.to_thread(out.write, chunk)
        if written != size:
            raise SourceError(f"{key} has {size} bytes, of which {written} came")

    async def discard(self, path: Path) -> None:
        """Remove the private copy."""
        await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)


def open_store(bucket: str, access: S3Access) -> S3Store:
    """A client of one bucket; every call of it has a deadline."""
    return S3Store(
        bucket,
        endpoint=access.endpoint,
        access_key_id=access.access_key,
        secret_access_key=access.secret_key,
        skip_signature=not access.access_key,
        region=access.region,
        virtual_hosted_style_request=False,
        client_options={
            "allow_http": True,
            "allow_invalid_certificates": not access.verify_ssl,
            "connect_timeout": timedelta(seconds=5),
            "timeout": timedelta(seconds=60),
        },
        retry_config={"max_retries": 2, "retry_timeout": timedelta(seconds=10)},
    )


@asynccontextmanager
async def s3_errors(doing: str) -> AsyncIterator[None]:
    """Any way in which S3 fails becomes SourceError."""
    try:
        yield
    except TimeoutError as exc:
        raise SourceError(f"{doing}: it took too long") from exc
    except (BaseError, OSError) as exc:
        raise SourceError(f"{doing}: {str(exc).splitlines()[0] if str(exc) else type(exc).__name__}") from exc


def open_source(base_path: str, access: S3Access) -> Source:
    """Choose by the form of the base path."""
    return Bucket(base_path, access) if base_path.startswith(S3_SCHEME) else Directory(base_path)
