"""How a child process learns that its parent is gone, by whatever signal."""

import os
import sys
import threading
from queue import SimpleQueue


def lines_of_parent(code: int) -> SimpleQueue[bytes]:
    """Return the lines of standard input as they come; as soon as it ends, so does this process, with a code.

    The parent holds it open as long as there is one.
    """
    lines: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_read, args=(lines, code), daemon=True, name="parent").start()
    return lines


def _read(lines: SimpleQueue[bytes], code: int) -> None:
    rest = b""
    # Unbuffered: this thread must not hold the lock of sys.stdin when the interpreter ends.
    while content := os.read(sys.stdin.fileno(), 2**16):
        *whole, rest = (rest + content).split(b"\n")
        for line in whole:
            lines.put(line)
    os._exit(code)
