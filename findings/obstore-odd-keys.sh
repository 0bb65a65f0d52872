#!/usr/bin/env bash
# obstore 0.12.1: S3 keys with an empty segment (`images//a.jpg`), which S3 allows and other clients write.
#  1. To read or to write one raises a plain ValueError: none of the exceptions of `obstore.exceptions`, whose BaseError
#     is said to be the root of all. Who catches BaseError to translate errors does not catch this one.
#  2. To list a prefix that has one raises obstore's own InvalidPathError, of which the listing is none the wiser: no key
#     of that page is given, however many good ones it has, and there is no way past it.
# Seen: "1: ValueError, a BaseError: False", "2: InvalidPathError, a BaseError: True, keys listed: 0 of 3".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check obstore==0.12.1
"$folder/venv/bin/python" - <<'PYTHON'
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

print("obstore", version("obstore"))
ENTRY = "<Contents><Key>{}</Key><Size>1</Size><ETag>e</ETag><LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
KEYS = ("images/a.jpg", "images//a.jpg", "images/b.jpg")


class Bucket(BaseHTTPRequestHandler):
    """Answers ListObjectsV2 as S3 does."""

    def do_GET(self) -> None:
        body = f"<ListBucketResult>{''.join(map(ENTRY.format, KEYS))}</ListBucketResult>".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Bucket)
threading.Thread(target=server.serve_forever, daemon=True).start()
store = S3Store(
    "bucket", endpoint=f"http://127.0.0.1:{server.server_port}", client_options={"allow_http": True},
    access_key_id="a", secret_access_key="s", region="us-east-1",
)
errors = []
listed = 0
try:
    obstore.get(store, "images//a.jpg")
except Exception as exc:
    errors.append(exc)
try:
    for page in obstore.list(store, "images/"):
        listed += len(page)
except Exception as exc:
    errors.append(exc)
read, listing = errors
print(f"1: {type(read).__name__}, a BaseError: {isinstance(read, BaseError)}")
print(f"2: {type(listing).__name__}, a BaseError: {isinstance(listing, BaseError)}, keys listed: {listed} of {len(KEYS)}")
sys.exit(not (type(read) is ValueError and isinstance(listing, BaseError) and listed == 0))
PYTHON
