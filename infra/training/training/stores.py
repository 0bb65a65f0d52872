"""The three buckets of an edge, and the files of a run on disk."""

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from obstore.store import ObjectStore

from caravan import strict_json
from caravan.contracts import data_bucket, models_bucket, ready_bucket
from caravan.errors import Permanent
from caravan.s3 import open_bucket
from caravan.settings import S3Address


@dataclass(frozen=True)
class Stores:
    """An edge's buckets at central: training images, every version, versions for the edge; and its id."""

    data: ObjectStore
    models: ObjectStore
    ready: ObjectStore
    edge: str


def open_stores(address: S3Address, edge: str) -> Stores:
    """Return handles on an edge's buckets; nothing is sent before their first use."""
    return Stores(
        open_bucket(address, data_bucket(edge)),
        open_bucket(address, models_bucket(edge)),
        open_bucket(address, ready_bucket(edge)),
        edge,
    )


def write_file(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Write a file whole or not at all; if `durable`, content and name are on disk when this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as target:
        target.write(content)
        if durable:
            target.flush()
            os.fsync(target.fileno())
    Path(target.name).replace(path)
    if durable:
        sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    if os.name == "nt":
        return  # NTFS journals names, and a directory cannot be opened there.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any) -> None:
    """Write JSON as `write_file` writes."""
    write_file(path, json.dumps(value, indent=1, sort_keys=True).encode())


def read_json(path: Path) -> Any:
    """Read JSON; raises Permanent if the file is missing or broken: the step that writes it has to run."""
    try:
        return strict_json.loads(path.read_bytes())
    except FileNotFoundError as exc:
        raise Permanent(f"{path} is missing: run the step before this one first") from exc
    except ValueError as exc:
        raise Permanent(f"{path} cannot be read: {exc}") from exc
