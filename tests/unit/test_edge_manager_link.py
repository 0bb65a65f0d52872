"""A file comes over any link that carries something now and then: a slow one, and one that breaks."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from pydantic import SecretStr

from caravan import s3
from caravan.settings import S3Address
from edge_manager.central import Central, CentralAway
from edge_manager.streams import PIECE
from edge_manager.versions import Listed, Offered, Ref

CONTENT = random.Random(0).randbytes(6 * PIECE + 7)
FILE = Listed("model.onnx", len(CONTENT), None)
OFFERED = Offered(Ref("tea", 1), (FILE,), "1")
SILENT_SECONDS = 1


class SlowStore:
    """Answers for one object as S3 does.

    Args:
        at_once: bytes that it sends at once.
        pause: seconds between these.
        breaks_after: bytes after which each connection breaks; None if none does.

    """

    def __init__(self, at_once: int, pause: float, breaks_after: int | None = None) -> None:
        self.at_once, self.pause, self.breaks_after = at_once, pause, breaks_after
        self.asked: list[int] = []

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Central]:
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        address = S3Address(
            f"http://127.0.0.1:{port}", SecretStr("user"), SecretStr("secret"), "us-east-1", None
        )
        try:
            yield Central(s3.open_bucket(address, "edge1-ready"))
        finally:
            server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                await self._send(head, writer)
        except (OSError, asyncio.IncompleteReadError):
            writer.close()

    async def _send(self, head: bytes, writer: asyncio.StreamWriter) -> None:
        found = re.search(rb"range: bytes=(\d+)-(\d+)", head)
        assert found is not None, head
        start, end = int(found[1]), int(found[2]) + 1
        self.asked.append(start)
        writer.write(
            f'HTTP/1.1 206 Partial Content\r\nContent-Length: {end - start}\r\nETag: "1"\r\n'
            f"Content-Range: bytes {start}-{end - 1}/{len(CONTENT)}\r\n"
            "Last-Modified: Sun, 01 Nov 2026 12:00:00 GMT\r\n\r\n".encode()
        )
        for at in range(start, end, self.at_once):
            if self.breaks_after is not None and at - start >= self.breaks_after:
                writer.transport.abort()
                raise ConnectionAbortedError
            writer.write(CONTENT[at : min(at + self.at_once, end)])
            await writer.drain()
            await asyncio.sleep(self.pause)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "S3_SILENT_SECONDS", SILENT_SECONDS)
    monkeypatch.setattr("edge_manager.central.pause", lambda _: 0.01)


async def fetched(store: SlowStore) -> bytes:
    async with store.listening() as central:
        return await central.read(OFFERED, FILE)


async def test_a_link_may_take_longer_for_a_file_than_it_may_be_silent() -> None:
    count = 30
    store = SlowStore(len(CONTENT) // count, 2 * SILENT_SECONDS / count)
    assert await fetched(store) == CONTENT
    assert store.asked == [0]


async def test_a_file_comes_over_a_link_that_breaks_before_half_of_it_is_there() -> None:
    store = SlowStore(PIECE // 2, 0, breaks_after=2 * PIECE)
    assert await fetched(store) == CONTENT
    assert store.asked == sorted(store.asked), "it goes on where it was"


async def test_a_link_that_carries_nothing_any_more_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_manager.central.PIECE_SECONDS", 0)
    with pytest.raises(CentralAway):
        await fetched(SlowStore(PIECE, 60))
