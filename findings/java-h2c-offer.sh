#!/usr/bin/env bash
# uvicorn 0.54 with httptools 0.9, asked as Java's HttpClient asks by default (so Camel, Spring, Quarkus): its first request
# on a connection offers HTTP/2 with "Upgrade: h2c". The body of that request is lost: the application gets none, however
# the body comes. httptools ends a message at its head as soon as it has such an offer, and takes the rest for the other
# protocol. RFC 9110, 7.8, has a server that does not want to upgrade ignore the offer. With h11 the body is read.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check uvicorn==0.54.0 httptools==0.9.0 h11==0.16.0
"$folder/venv/bin/python" - <<'PYTHON'
import asyncio
import logging
from importlib.metadata import version

import uvicorn

logging.disable(logging.CRITICAL)
OFFER = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\n"


async def app(scope, receive, send):
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    said = b"%d bytes" % len(body)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(said))]})
    await send({"type": "http.response.body", "body": said})


async def asked(port, offer, apart):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = b"POST / HTTP/1.1\r\nHost: a\r\n%sContent-Length: 5\r\n\r\n" % offer
    writer.write(head if apart else head + b"hello")
    if apart:
        await asyncio.sleep(0.2)
        writer.write(b"hello")
    writer.write_eof()
    try:
        answer = await asyncio.wait_for(reader.read(4096), 3)
    except (TimeoutError, asyncio.TimeoutError):
        return "no answer"
    finally:
        writer.close()
    return answer.split(b"\r\n\r\n")[-1].decode() or answer.decode()[:40]


async def main(http):
    server = uvicorn.Server(uvicorn.Config(app, http=http, ws="none", lifespan="off", log_config=None, port=0))
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    seen = [await asked(port, offer, apart) for offer in (b"", OFFER) for apart in (False, True)]
    server.should_exit = True
    await task
    print(f"{http}: without an offer {seen[:2]}, with an offer {seen[2:]}")
    return seen


print("uvicorn", version("uvicorn"), "httptools", version("httptools"), "h11", version("h11"))
lost, read = asyncio.run(main("httptools")), asyncio.run(main("h11"))
assert lost[:2] == ["5 bytes"] * 2 and read == ["5 bytes"] * 4, (lost, read)
assert "5 bytes" not in lost[2:], lost
PYTHON
# Printed on 2026-11-28:
#   uvicorn 0.54.0 httptools 0.9.0 h11 0.16.0
#   httptools: without an offer ['5 bytes', '5 bytes'], with an offer ['0 bytes', '0 bytes']
#   h11: without an offer ['5 bytes', '5 bytes'], with an offer ['5 bytes', '5 bytes']
