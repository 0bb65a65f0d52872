"""The models config as a file, on disk or in a bucket: read, and read again while the server runs.

Nothing that is wrong with it takes a model away: while it is missing, out of reach or broken, what was
configured before goes on serving. In a bucket it may appear after the server has started.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import obstore
import structlog
from google.protobuf import text_format

from caravan.pace import Pace
from model_server.configs import model_configs
from model_server.errors import ServingError, invalid
from model_server.manager import ModelConfig
from model_server.settings import ConfigFile, S3Access
from model_server.sources import READ_SECONDS, SourceError, SourceRefusedError, open_store, s3_errors
from model_server.stubs import model_server_config_pb2

log = structlog.get_logger()

MAX_BYTES = 4 << 20
# Until a file that is read only once has come.
WAIT_SECONDS = 1.0

Configure = Callable[[Mapping[str, ModelConfig]], Awaitable[None]]


def with_own(
    own: model_server_config_pb2.ModelConfig | None, listed: model_server_config_pb2.ModelServerConfig
) -> model_server_config_pb2.ModelServerConfig:
    """The models listed, and beside them the one named by itself, unless the list has that name too."""
    config = model_server_config_pb2.ModelServerConfig()
    config.CopyFrom(listed)
    if own is not None and own.name not in {model.name for model in listed.model_config_list.config}:
        config.model_config_list.config.append(own)
    return config


def parse(content: bytes) -> model_server_config_pb2.ModelServerConfig:
    """Read a text ModelServerConfig. Raises ServingError(INVALID_ARGUMENT) if it lists no models."""
    config = model_server_config_pb2.ModelServerConfig()
    try:
        text_format.Parse(content.decode(), config)
    except (UnicodeDecodeError, text_format.ParseError) as exc:
        raise invalid(f"it is no text ModelServerConfig: {exc}") from exc
    if config.WhichOneof("config") != "model_config_list":
        raise invalid("it has no model_config_list")
    return config


class ConfigPoller:
    """Keeps what is served by the file; `own` is served beside it.

    Attributes:
        is_answered: whether it is known what the file lists, or that there is none to be taken.

    """

    def __init__(
        self,
        file: ConfigFile,
        access: S3Access,
        own: model_server_config_pb2.ModelConfig | None,
        configure: Configure,
    ) -> None:
        url = urlsplit(file.path)
        self._file = file
        self._store = open_store(url.netloc, access) if file.in_s3 else None
        self._key = url.path.strip("/")
        self._own = own
        self._configure = configure
        self.is_answered = False
        self._taken: bytes | None = None
        self._complaint = ""
        self._pace = Pace(file.poll_seconds or WAIT_SECONDS)

    async def run(self) -> None:
        """Read the file again and again; where it is to be read once, until that succeeded."""
        while self._taken is None or self._file.poll_seconds:
            await self._look()
            await asyncio.sleep(self._pace.pause)
        await asyncio.Event().wait()  # a task that ends is a server that fails

    async def _look(self) -> None:
        try:
            content = await self._read()
            if content == self._taken:
                return
            listed = parse(content)
            await self._configure(model_configs(with_own(self._own, listed)))
        except SourceError as exc:
            self._complain(str(exc))
            self.is_answered |= isinstance(exc, SourceRefusedError)
        except ServingError as exc:
            self._complain(f"{self._file.path} is not taken: {exc.message}")
            self.is_answered = True
        else:
            self.is_answered = True
            self._taken = content
            self._pace.stir()
            self._complaint = ""
            names = [model.name for model in listed.model_config_list.config]
            log.info("models config is taken", file=self._file.path, models=names)

    async def _read(self) -> bytes:
        path = self._file.path
        async with s3_errors(f"Could not read {path}"), asyncio.timeout(READ_SECONDS):
            if self._store is not None:
                answer = await obstore.get_async(self._store, self._key)
                size = answer.meta["size"]
                content = bytes(await answer.bytes_async()) if size <= MAX_BYTES else b""
            else:
                size = (await asyncio.to_thread(Path(path).stat)).st_size
                content = await asyncio.to_thread(Path(path).read_bytes) if size <= MAX_BYTES else b""
        if size > MAX_BYTES:
            words = f"Could not read {path}: it has {size} bytes, more than a models config may"
            raise SourceRefusedError(words)
        return content

    def _complain(self, text: str) -> None:
        if text != self._complaint:
            consequence = "waiting for it" if self._taken is None else "what it listed before stays"
            log.warning("models config", reason=text, consequence=consequence)
            self._complaint = text
