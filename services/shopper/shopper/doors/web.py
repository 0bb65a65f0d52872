"""The shopper's app: the files of folder `web`, and what a page asks of its server.

The service worker is told the version of the whole, a hash of all files, so that an installed app is of one
piece.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from fastapi import FastAPI, Request, Response

from caravan import http, pages
from caravan.sessions import Sessions

WORKER = "sw.js"
MQTT_MODULE = "vendor/mqtt.js"


@dataclass(frozen=True, slots=True)
class PageSettings:
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


def install(app: FastAPI, page: PageSettings, sessions: Sessions) -> None:
    """Give an app the pages, and `GET /app.json`."""
    files = pages.files("shopper")
    version = pages.digest(*(content for _, content in sorted(files.items())))
    worker = files.pop(WORKER)
    shell = json.dumps({"version": version, "files": sorted(files)})
    for path, content in files.items():
        pages.serve(app, path, content, page.policy)
    pages.serve(app, WORKER, f"const SHELL = {shell};\n".encode() + worker, page.policy)
    has_mqtt = page.mqtt_module is not None and page.mqtt_module.is_file()
    if page.mqtt_module is not None and has_mqtt:
        pages.serve(app, MQTT_MODULE, page.mqtt_module.read_bytes(), page.policy)

    @app.get("/app.json", include_in_schema=False)
    async def app_json(request: Request) -> Response:
        """Tell a page its user and this edge's features."""
        facts = {
            "version": version,
            "access": sessions.access(request),
            "mqtt": {"url": page.mqtt_url, "module": has_mqtt},
        }
        return http.fresh_json(facts)
