"""`python -m local_stack edge`: become what runs an edge alone, which has imported less than this."""

from __future__ import annotations

import os
import sys


def edge() -> None:
    """Run an edge here in little memory, until Ctrl-C: store, broker, model server and services."""
    os.execv(sys.executable, [sys.executable, "-m", "local_stack.small_edge"])
