"""The shopper's app: the files of folder `web`, served from memory, and what a page asks of its server.

Every address in them is relative, so that they work under any path of a proxy. The service worker is told
the version of the whole, a hash of all files, so that an installed app is of one piece.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from urllib.parse import urlsplit

from fastapi import FastAPI, Request, Response

from caravan.contracts import to_json
from caravan.errors import BadInput
from caravan.sessions import Sessions

MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
}
COMPRESSED = (".css", ".html", ".js", ".svg", ".webmanifest")
PAGES = {"index.html": "", "login.html": "login", "draw.html": "draw"}
"""Pages have an address without an ending."""
WORKER = "sw.js"
MQTT_MODULE = "vendor/mqtt.js"


@dataclass(frozen=True, slots=True)
class Page:
    """What the app's pages are told.

    Args:
        mqtt_url: WebSocket address of the edge's broker; empty where browsers have none.
        mqtt_module: the ES module of the npm package `mqtt`; None or absent where it was not fetched.

    """

    mqtt_url: str = ""
    mqtt_module: Path | None = None

    @property
    def policy(self) -> str:
        """The content security policy: nothing inline, nothing from elsewhere but the edge's own broker."""
        broker = urlsplit(self.mqtt_url)
        connect = f"'self' {broker.scheme}://{broker.netloc}" if broker.netloc else "'self'"
        return (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
            f"media-src 'self' blob:; worker-src 'self'; manifest-src 'self'; connect-src {connect}; "
            "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
        )


def install(app: FastAPI, page: Page, sessions: Sessions) -> None:
    """Give an app the pages, and `GET /app.json`."""
    files = {PAGES.get(name, name): content for name, content in _files(_folder())}
    version = _digest(*(content for _, content in sorted(files.items())))
    worker = files.pop(WORKER)
    shell = json.dumps({"version": version, "files": sorted(files)})
    for path, content in files.items():
        _serve(app, path, content, page.policy)
    _serve(app, WORKER, f"const SHELL = {shell};\n".encode() + worker, page.policy)
    has_mqtt = page.mqtt_module is not None and page.mqtt_module.is_file()
    if page.mqtt_module is not None and has_mqtt:
        _serve(app, MQTT_MODULE, page.mqtt_module.read_bytes(), page.policy)

    @app.get("/app.json", include_in_schema=False)
    async def app_json(request: Request) -> Response:
        """Tell a page who asks, and what this edge has."""
        facts = {
            "version": version,
            "access": {"needed": sessions.needed, "holder": _holder(sessions, request)},
            "mqtt": {"url": page.mqtt_url, "module": has_mqtt},
            "draw": "draw" in files,
        }
        return Response(to_json(facts), headers={"Cache-Control": "no-store"}, media_type="application/json")


def _holder(sessions: Sessions, request: Request) -> str | None:
    try:
        return sessions.holder(request)
    except BadInput:
        return None


def _folder() -> Traversable:
    return resources.files("shopper").joinpath("web")


def _files(folder: Traversable, prefix: str = "") -> Iterator[tuple[str, bytes]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _files(entry, f"{prefix}{entry.name}/")
        elif _ending(entry.name) in MEDIA_TYPES:
            yield f"{prefix}{entry.name}", entry.read_bytes()


def _serve(app: FastAPI, path: str, content: bytes, policy: str) -> None:
    # What has no ending is a page.
    ending = _ending(path) or ".html"
    packed = gzip.compress(content, mtime=0) if ending in COMPRESSED else None
    headers = {
        "Cache-Control": "no-cache",
        "ETag": f'"{_digest(content)}"',
        "Content-Security-Policy": policy,
        "Cross-Origin-Opener-Policy": "same-origin",
        "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
        "Referrer-Policy": "same-origin",
        "X-Content-Type-Options": "nosniff",
        **({"Vary": "Accept-Encoding"} if packed else {}),
    }

    @app.get(f"/{path}", include_in_schema=False)
    async def file(request: Request) -> Response:
        if request.headers.get("if-none-match", "").removeprefix("W/") == headers["ETag"]:
            return Response(status_code=304, headers=headers)
        if packed and "gzip" in request.headers.get("accept-encoding", ""):
            return Response(
                packed, headers={**headers, "Content-Encoding": "gzip"}, media_type=MEDIA_TYPES[ending]
            )
        return Response(content, headers=headers, media_type=MEDIA_TYPES[ending])


def _ending(name: str) -> str:
    return Path(name).suffix


def _digest(*contents: bytes) -> str:
    digest = hashlib.sha256()
    for content in contents:
        digest.update(len(content).to_bytes(8, "big") + content)
    return digest.hexdigest()[:16]
