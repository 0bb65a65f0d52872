"""Bodies: as they come, or in signed chunks with checksums behind them (`aws-chunked`), as SDKs do."""

from __future__ import annotations

import base64
import hashlib
import hmac
import zlib
from collections.abc import AsyncIterator, Mapping
from typing import Protocol

from starlette.types import Receive

from caravan.s3_signature import NOTHING
from local_stack.file_store.errors import Disconnected, S3Error
from local_stack.file_store.signature import Signature

CHUNKED = ("STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "STREAMING-UNSIGNED-PAYLOAD-TRAILER")
MAX_LINE = 4096
MAX_TRAILERS = 16
CHECKSUM = "x-amz-checksum-"


class _Digest(Protocol):
    def update(self, content: bytes, /) -> None: ...
    def digest(self) -> bytes: ...


class _Crc32:
    def __init__(self) -> None:
        self._value = 0

    def update(self, content: bytes, /) -> None:
        self._value = zlib.crc32(content, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(4, "big")


class Body:
    """The content of a request, and whether it is the one that its sender means.

    CRC-32C and CRC-64/NVME are not checked: nothing that is installed computes them as fast as they come. The
    signature covers the content of all that is not sent as an unsigned payload.
    """

    def __init__(self, receive: Receive, headers: Mapping[str, str], signature: Signature) -> None:
        self._receive = receive
        self._signature = signature
        self._buffer = bytearray()
        self._ended = False
        self._sent = headers.get("x-amz-content-sha256", NOTHING)
        self._chunked = self._sent.startswith(CHUNKED)
        self._signed = self._sent.startswith(CHUNKED[0])
        length = headers.get("x-amz-decoded-content-length" if self._chunked else "content-length", "")
        self._length = int(length) if length.isdecimal() else None
        self._size = 0
        self._wanted = {name: value for name, value in headers.items() if name.startswith(CHECKSUM)}
        if "content-md5" in headers:
            self._wanted["content-md5"] = headers["content-md5"]
        trailing = (name.strip().lower() for name in headers.get("x-amz-trailer", "").split(","))
        self._digests = {
            name: made for name in (*self._wanted, *trailing) if (made := _digest_of(name)) is not None
        }
        self._sha256 = hashlib.sha256() if len(self._sent) == len(NOTHING) else None

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the content.

        Raises:
            S3Error: if it is not what was meant; also at the end, before which nothing is to be believed.
            Disconnected: if the client went.

        """
        async for piece in self._chunks() if self._chunked else self._plain():
            self._size += len(piece)
            for digest in self._digests.values():
                digest.update(piece)
            if self._sha256 is not None:
                self._sha256.update(piece)
            yield piece
        self._check()

    def _check(self) -> None:
        if self._length not in (None, self._size):
            raise S3Error("IncompleteBody")
        if self._sha256 is not None and self._sha256.hexdigest() != self._sent:
            raise S3Error("BadDigest", "the content is not the one of x-amz-content-sha256")
        for name, digest in self._digests.items():
            if self._wanted.get(name) != base64.b64encode(digest.digest()).decode():
                raise S3Error("BadDigest", f"the content is not the one of {name}")

    async def _plain(self) -> AsyncIterator[bytes]:
        while piece := await self._some():
            yield piece

    async def _some(self) -> bytes:
        """Return what comes next; nothing at the end."""
        while not self._ended:
            message = await self._receive()
            if message["type"] != "http.request":
                raise Disconnected
            self._ended = not message.get("more_body", False)
            if piece := message.get("body", b""):
                return bytes(piece)
        return b""

    async def _more(self) -> None:
        piece = await self._some()
        if not piece:
            raise S3Error("IncompleteBody")
        self._buffer += piece

    async def _line(self) -> str:
        while (end := self._buffer.find(b"\r\n")) < 0:
            if len(self._buffer) > MAX_LINE:
                raise S3Error("IncompleteBody")
            await self._more()
        line = self._buffer[:end].decode("latin-1")
        del self._buffer[: end + 2]
        return line

    async def _chunks(self) -> AsyncIterator[bytes]:
        previous = self._signature.value
        size = -1
        while size:
            number, _, extension = (await self._line()).partition(";")
            try:
                size = int(number, 16)
            except ValueError as exc:
                raise S3Error("IncompleteBody") from exc
            digest, rest = hashlib.sha256(), size
            while rest > 0:
                if not self._buffer:
                    await self._more()
                piece = bytes(self._buffer[:rest])
                del self._buffer[: len(piece)]
                rest -= len(piece)
                digest.update(piece)
                yield piece
            if size and await self._line():
                raise S3Error("IncompleteBody")
            if self._signed:
                previous = self._follow(extension, "PAYLOAD", previous, NOTHING, digest.hexdigest())
        await self._trailers(previous)

    def _follow(self, extension: str, kind: str, previous: str, *hashes: str) -> str:
        value = self._signature.following(kind, previous, *hashes)
        if not hmac.compare_digest(
            extension.removeprefix("chunk-signature=").encode("latin-1"), value.encode()
        ):
            raise S3Error("SignatureDoesNotMatch", "a chunk of the body is not what was signed")
        return value

    async def _trailers(self, previous: str) -> None:
        if not self._sent.endswith("-TRAILER"):
            return
        lines = []
        while line := await self._line():
            lines.append(line)
            if len(lines) > MAX_TRAILERS:
                raise S3Error("IncompleteBody")
        trailers = {
            name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
        }
        signature = trailers.pop("x-amz-trailer-signature", "")
        if self._signed:
            text = "".join(f"{name}:{value}\n" for name, value in trailers.items())
            self._follow(signature, "TRAILER", previous, hashlib.sha256(text.encode("latin-1")).hexdigest())
        self._wanted |= trailers


def _digest_of(header: str) -> _Digest | None:
    match header:
        case "content-md5":
            return hashlib.md5(usedforsecurity=False)
        case "x-amz-checksum-crc32":
            return _Crc32()
        case "x-amz-checksum-sha1":
            return hashlib.sha1(usedforsecurity=False)
        case "x-amz-checksum-sha256":
            return hashlib.sha256()
    return None
