"""Pages: static files served from memory, compressed, under a strict content security policy.

Every address in them is relative, so that they work under any path of a proxy. What all our pages share,
their colours, controls and the sign-in, lies in this package's folder `web`; a service adds its own files.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from fastapi import FastAPI, Request, Response

MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
}
COMPRESSED = (".css", ".html", ".js", ".svg", ".webmanifest")
HEADERS = {
    "Cache-Control": "no-cache",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
STORED_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'; sandbox",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def files(package: str) -> dict[str, bytes]:
    """Return the files of a package's folder `web`, and the shared ones, by their path.

    Pages have an address without an ending: `index.html` is the empty path, `login.html` is `login`.
    """
    found = dict(_files(_folder("caravan"))) | dict(_files(_folder(package)))
    return {_address(path): content for path, content in found.items()}


def serve(app: FastAPI, path: str, content: bytes, policy: str) -> None:
    """Serve one file.

    Args:
        app: the service's app.
        path: without a slash before it.
        content: its bytes.
        policy: the content security policy that it is sent with.

    """
    # What has no ending is a page.
    ending = Path(path).suffix or ".html"
    packed = gzip.compress(content, mtime=0) if ending in COMPRESSED else None
    headers = {
        **HEADERS,
        "Content-Security-Policy": policy,
        "ETag": f'"{digest(content)}"',
        **({"Vary": "Accept-Encoding"} if packed else {}),
    }

    @app.get(f"/{path}", include_in_schema=False)
    async def file(request: Request) -> Response:
        known = request.headers.get("if-none-match", "").split(",")
        if headers["ETag"] in (tag.strip().removeprefix("W/") for tag in known):
            return Response(status_code=304, headers=headers)
        if packed and _takes_gzip(request.headers.get("accept-encoding", "")):
            return Response(
                packed, headers={**headers, "Content-Encoding": "gzip"}, media_type=MEDIA_TYPES[ending]
            )
        return Response(content, headers=headers, media_type=MEDIA_TYPES[ending])


def show(page: bytes) -> Response:
    """Answer with a page out of a bucket, for browsers to show and nothing else.

    Pipelines of others write there as well: it can run nothing, load nothing, and send nothing.
    """
    return Response(page, headers=STORED_HEADERS, media_type="text/html; charset=utf-8")


def digest(*contents: bytes) -> str:
    """Return a short name of contents, which changes when one of them does."""
    found = hashlib.sha256()
    for content in contents:
        found.update(len(content).to_bytes(8, "big") + content)
    return found.hexdigest()[:16]


def _takes_gzip(accepted: str) -> bool:
    """Tell whether a header `Accept-Encoding` names gzip, and not only to refuse it."""
    codings = (coding.partition(";") for coding in accepted.lower().split(","))
    weights = {name.strip(): options.replace(" ", "") for name, _, options in codings}
    return "gzip" in weights and re.fullmatch(r"q=0(\.0*)?", weights["gzip"]) is None


def _folder(package: str) -> Traversable:
    return resources.files(package).joinpath("web")


def _files(folder: Traversable, prefix: str = "") -> Iterator[tuple[str, bytes]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _files(entry, f"{prefix}{entry.name}/")
        elif Path(entry.name).suffix in MEDIA_TYPES:
            yield f"{prefix}{entry.name}", entry.read_bytes()


def _address(path: str) -> str:
    name = path.removesuffix(".html")
    return "" if name == "index" else name
