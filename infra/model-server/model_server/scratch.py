"""Where private copies of versions lie while they serve."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from caravan import locks
from caravan.errors import Permanent, Transient

PREFIX = "model-server-"
SETTING = "TMPDIR"


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder of this process, gone at the end of the block.

    A server that is killed leaves its folder behind: the next one to start removes it, if it may.
    """
    places = Path(tempfile.gettempdir())
    for other in places.glob(f"{PREFIX}*"):
        with suppress(Transient, Permanent, OSError), locks.held(other, SETTING):  # in use, or another user's
            shutil.rmtree(other)
    new = Path(tempfile.mkdtemp(prefix=f".{PREFIX}"))
    with locks.held(new, SETTING):
        folder = new.rename(places / new.name[1:])  # where others look for it, now that it is locked
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
