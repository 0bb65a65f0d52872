"""The files of a folder of certificates, by their names."""

from __future__ import annotations

from pathlib import Path

CA, SERVER, CLIENT = "ca", "server", "client"


def complete(folder: Path) -> bool:
    """Tell whether a folder has what the door and a client of it need."""
    names = ("ca.pem", *(f"{name}.{kind}" for name in (SERVER, CLIENT) for kind in ("pem", "key")))
    return all((folder / name).is_file() for name in names)
