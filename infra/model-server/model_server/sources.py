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
import structlog
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import ObjectStore, S3Store
from pydantic import SecretStr

from caravan import s3, tracing
from caravan.contracts import ENTRY_FILES, MANIFEST
from caravan.errors import CaravanError, Permanent
from caravan.settings import S3Address
from model_server.errors import Code, ServingError
from model_server.settings import S3_SCHEME, S3Access
from model_server.versions import Policy, index_versions

log = structlog.get_logger()

READ_SECONDS = 20.0
_ANSWERS = (FileNotFoundError, PermissionDeniedError, UnauthenticatedError, Permanent, s3.Declined)


class SourceError(Exception):
    """The base path cannot be read now: nothing is known about its versions."""


class SourceRefusedError(SourceError):
    """So it was answered: the base path is missing, or we may not read it."""


class Source(Protocol):
    """A base path. `versions` maps numbers to directory names; `fetch` yields a local directory."""

    async def versions(self, policy: Policy) -> dict[int, str]:
        """List the versions; those that the policy chooses among them are there.

        Raises SourceError when the base path cannot be read.
        """

    async def fetch(self, name: str) -> Path:
        """Return a local directory with the version's files. Raises ServingError."""

    async def discard(self, path: Path) -> None:
        """The directory is not needed any more."""


class Directory:
    """A base path on the local file system."""

    def __init__(self, base_path: str) -> None:
        self._base = Path(base_path)

    async def versions(self, policy: Policy) -> dict[int, str]:
        """Directories (or links to one) named by a number."""
        del policy  # a directory that is listed is there
        try:
            return await asyncio.to_thread(self._scan)
        except OSError as exc:
            words = f"Could not find base path {self._base}: {exc.strerror or exc}"
            raise SourceRefusedError(words) from exc

    def _scan(self) -> dict[int, str]:
        with os.scandir(self._base) as entries:
            return index_versions(entry.name for entry in entries if entry.is_dir())

    async def fetch(self, name: str) -> Path:
        """The version's own directory: nothing is copied."""
        return self._base / name

    async def discard(self, path: Path) -> None:
        """The directory is not ours: nothing is removed."""


class Bucket:
    """A base path in S3. A version is there as long as its entry file, written last, is."""

    def __init__(self, url: str, store: ObjectStore, scratch: Path) -> None:
        self._prefix = urlsplit(url).path.strip("/")
        self._url = url
        self._there: set[str] = set()
        self._store = store
        self._scratch = scratch

    async def versions(self, policy: Policy) -> dict[int, str]:
        """The versions under the prefix, without those that the policy chooses and that have no entry file.

        Folders only say where to look: a server may name one for minutes after its objects are gone. So
        entry files are asked for, of as few versions as the policy takes to choose.
        """
        async with s3_errors(f"Could not list {self._url}"):
            folders = await s3.folders(self._store, f"{self._prefix}/")
        found = index_versions(PurePosixPath(folder).name for folder in folders)
        asked: set[int] = set()
        while unsure := policy.choose(found) - asked:
            for number in unsure:
                if not await self._is_there(found[number]):
                    del found[number]
            asked |= unsure
        self._there &= set(found.values())
        return found

    async def _is_there(self, name: str) -> bool:
        """Tell whether a version has an entry file; where that cannot be told, as it was before."""
        try:
            async with s3_errors(f"Could not look for {self._url}/{name}"), asyncio.timeout(READ_SECONDS):
                is_there = await self._has_entry(name)
        except SourceError as exc:
            log.warning("version cannot be looked for; the others go on", reason=str(exc))
            return name in self._there
        (self._there.add if is_there else self._there.discard)(name)
        return is_there

    async def _has_entry(self, name: str) -> bool:
        for entry in ENTRY_FILES:
            try:
                await obstore.head_async(self._store, f"{self._prefix}/{name}/{entry}")
            except FileNotFoundError:
                continue
            return True
        return False

    async def fetch(self, name: str) -> Path:
        """Download the version into a new private directory in `scratch`, which `discard` removes.

        The task goes on with the trace that the manifest's metadata name.
        """
        target = Path(await asyncio.to_thread(tempfile.mkdtemp, dir=self._scratch))
        prefix = f"{self._prefix}/{name}/"
        try:
            async with s3_errors(f"Could not read {self._url}/{name}"):
                async for item in s3.listing(self._store, prefix):
                    await self._download(item["path"], target, prefix)
        except SourceError as exc:
            await self.discard(target)
            raise ServingError(Code.UNAVAILABLE, str(exc)) from exc
        except BaseException:
            await asyncio.shield(self.discard(target))
            raise
        return target

    async def _download(self, key: str, target: Path, prefix: str) -> None:
        path = key.removeprefix(prefix)
        if not path or key.endswith("/"):
            return
        if path == MANIFEST:
            tracing.follow(await s3.facts(self._store, key))
        file = target / path
        await asyncio.to_thread(file.parent.mkdir, parents=True, exist_ok=True)
        with await asyncio.to_thread(file.open, "wb") as out:
            await s3.download(self._store, key, out)

    async def discard(self, path: Path) -> None:
        """Remove the private copy."""
        await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)


def open_store(bucket: str, access: S3Access) -> ObjectStore:
    """A client of one bucket; every request of it has a deadline."""
    if access.endpoint and access.access_key and access.secret_key and access.verify_ssl:
        keys = SecretStr(access.access_key), SecretStr(access.secret_key)
        return s3.open_bucket(S3Address(access.endpoint, *keys, access.region, ca=None), bucket)
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
    """Any way in which S3 fails becomes SourceError, or SourceRefusedError where it answered so."""
    try:
        yield
    except TimeoutError as exc:
        raise SourceError(f"{doing}: it took too long") from exc
    except (BaseError, CaravanError, OSError) as exc:
        kind = SourceRefusedError if isinstance(exc, _ANSWERS) else SourceError
        raise kind(f"{doing}: {str(exc).splitlines()[0] if str(exc) else type(exc).__name__}") from exc


def open_source(base_path: str, access: S3Access, scratch: Path) -> Source:
    """Choose by the form of the base path; private copies of versions go into `scratch`."""
    if base_path.startswith(S3_SCHEME):
        return Bucket(base_path, open_store(urlsplit(base_path).netloc, access), scratch)
    return Directory(base_path)
