"""A client's side of the certificates, for the stack's own probes and cameras."""

from __future__ import annotations

import ssl
from pathlib import Path

from caravan import tls
from local_stack.tls.names import CA, CLIENT


def client_context(certs: Path, name: str = CLIENT) -> ssl.SSLContext:
    """Return the context of one of the clients in a folder.

    Raises:
        Permanent: naming the file that is missing or wrong.

    """
    files = (certs / f"{CA}.pem", certs / f"{name}.pem", certs / f"{name}.key")
    return tls.client_context(*files, ("CA", "certificate", "key"))
