#!/usr/bin/env bash
# uvloop 0.23.0: a protocol that is both an asyncio.Protocol and an asyncio.BufferedProtocol (as one is that adds a
# buffer of its own to a library's protocol, uvicorn's for instance).
# asyncio asks every BufferedProtocol for a buffer (`get_buffer`, `buffer_updated`). uvloop asks none that is an
# asyncio.Protocol, too: it goes on to read up to 256,000 bytes at once and calls `data_received`. No error tells; the
# bound on what is read, which works in tests on asyncio, is not there in production on uvloop.
# Seen: "asyncio: buffer_updated, 1024 bytes at most", "uvloop: data_received, more than 1024 bytes: True".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check uvloop==0.23.0
"$folder/venv/bin/python" - <<'PYTHON'
import asyncio
import sys
from importlib.metadata import version

import uvloop

print("uvloop", version("uvloop"))


class Both(asyncio.Protocol, asyncio.BufferedProtocol):
    def __init__(self) -> None:
        self.buffer = bytearray(1024)
        self.calls: dict[str, int] = {}

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._note("buffer_updated", nbytes)

    def data_received(self, data: bytes) -> None:
        self._note("data_received", len(data))

    def _note(self, name: str, size: int) -> None:
        self.calls[name] = max(size, self.calls.get(name, 0))


async def run() -> dict[str, int]:
    loop = asyncio.get_running_loop()
    protocol = Both()
    server = await loop.create_server(lambda: protocol, "127.0.0.1", 0)
    _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(bytes(100_000))
    await writer.drain()
    await asyncio.sleep(0.5)
    writer.close()
    server.close()
    return protocol.calls


ours = asyncio.run(run())
theirs = uvloop.run(run())
print(f"asyncio: {', '.join(ours)}, {max(ours.values())} bytes at most")
print(f"uvloop: {', '.join(theirs)}, more than 1024 bytes: {max(theirs.values()) > 1024}")
sys.exit(not (ours == {"buffer_updated": 1024} and list(theirs) == ["data_received"] and theirs["data_received"] > 1024))
PYTHON
