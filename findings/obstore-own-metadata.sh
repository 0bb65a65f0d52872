#!/usr/bin/env bash
# obstore 0.12.1: metadata beyond ASCII, which it writes itself and then cannot read, nor the object that it lies beside.
# `put` takes {"label": "grüner Tee"} and sends it as it is, as UTF-8. A store that gives the header back as it came
# (SeaweedFS does) has an object of which `get` and `head` raise GenericError: its content cannot be had by obstore.
# Seen: "put: taken, and sent as grüner Tee", "get: GenericError: … contained non UTF-8 characters", the same for head, "by
# urllib: a photo".
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
from urllib.request import urlopen

import obstore
from obstore.exceptions import GenericError
from obstore.store import S3Store

print("obstore", version("obstore"))
CONTENT, LABEL = b"a photo", "x-amz-meta-label"


class Bucket(BaseHTTPRequestHandler):
    """Keeps one object, and the header of its label as it came."""

    protocol_version = "HTTP/1.1"
    label = ""

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        Bucket.label = self.headers[LABEL]
        self._answer(b"")

    def do_GET(self) -> None:
        self._answer(CONTENT)

    def do_HEAD(self) -> None:
        self._answer(CONTENT)

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("ETag", '"e"')
        self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        self.send_header("Content-Length", str(len(body)))
        if self.command != "PUT":
            self.send_header(LABEL, Bucket.label)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Bucket)
threading.Thread(target=server.serve_forever, daemon=True).start()
endpoint = f"http://127.0.0.1:{server.server_port}"
store = S3Store(
    "bucket", endpoint=endpoint, client_options={"allow_http": True},
    access_key_id="a", secret_access_key="s", region="us-east-1",
)
obstore.put(store, "a.jpg", CONTENT, attributes={"label": "grüner Tee"}, use_multipart=False)
sent = Bucket.label.encode("latin-1").decode()
print(f"put: taken, and sent as {sent}")
failed = []
for name, ask in (("get", lambda: obstore.get(store, "a.jpg")), ("head", lambda: obstore.get(store, "a.jpg", options={"head": True}))):
    try:
        ask()
        print(f"{name}: answered")
    except GenericError as exc:
        failed.append(name)
        print(f"{name}: GenericError: {str(exc).splitlines()[0]}")
with urlopen(f"{endpoint}/bucket/a.jpg") as answer:
    content = answer.read()
print("by urllib:", content.decode())
sys.exit(not (sent == "grüner Tee" and failed == ["get", "head"] and content == CONTENT))
PYTHON
