"""Which doors answer, seen from where this runs: `python -m support.knock HOST:PORT…` prints JSON."""

from __future__ import annotations

import errno
import json
import socket
import sys

SECONDS = 3.0


def knock(address: str) -> str:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), SECONDS).close()
    except TimeoutError:
        return "silent"
    except OSError as exc:
        return errno.errorcode.get(exc.errno or 0, str(exc))
    return "open"


if __name__ == "__main__":
    print(json.dumps({address: knock(address) for address in sys.argv[1:]}))  # noqa: T201  it is a command
