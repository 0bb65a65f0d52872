"""`python -m model_server.graphs`: run SavedModels for the server that started this process."""

import contextlib
import os
import sys
from collections.abc import Iterator

from caravan.start import TENSORFLOW_UNUSED, lean


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what TensorFlow writes while it is imported off the terminal (it heeds no setting yet)."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(nowhere)
        os.close(kept)


if __name__ == "__main__":
    with _quiet(), lean(*TENSORFLOW_UNUSED):
        from model_server.graphs import runner
    runner.main()
