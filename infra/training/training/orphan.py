"""How a child process learns that its parent is gone, by whatever signal."""

import os
import sys
import threading

from training.codes import AGAIN


def die_with_parent() -> None:
    """End this process as soon as standard input ends, which the parent holds open and writes no more to."""
    threading.Thread(target=_wait, daemon=True, name="parent").start()


def _wait() -> None:
    # Unbuffered: this thread must not hold the lock of sys.stdin when the interpreter ends.
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os._exit(AGAIN)
