"""A peer in a process of its own."""

from __future__ import annotations

import json
import subprocess


class Peer:
    """A program that answers each line it is told with a line of JSON; it ends with its standard input."""

    def __init__(self, *command: str) -> None:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)

    def ask(self, line: str = "") -> dict[str, float]:
        """Tell a line and return the figures that are answered; blocks. Raises ValueError if it has ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        figures: dict[str, float] = json.loads(self._process.stdout.readline())
        return figures

    def stop(self) -> None:
        """End it."""
        self._process.communicate()
