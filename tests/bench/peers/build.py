"""Programs of others, built with Go from their pins in the folders beside this."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

PEERS = Path(__file__).parent
PACKAGES = {"bento": ".", "rclone": "github.com/rclone/rclone", "s5cmd": "github.com/peak/s5cmd/v2"}


def built(name: str) -> Path | None:
    """Build a program, unless it is there; print a line that says so if it cannot be had."""
    program = PEERS / name / name
    if program.exists():
        return program
    if shutil.which("go") is None:
        skip(name, "it is built with Go 1.25 or later")
        return None
    done = subprocess.run(["go", "build", "-o", name, PACKAGES[name]], cwd=program.parent, check=False)
    if done.returncode:
        skip(name, "it could not be built")
        return None
    return program


def skip(name: str, why: str) -> None:
    """Print a line of JSON that says why a peer is passed over."""
    sys.stdout.write(f"{json.dumps({'by': name, 'skipped': why})}\n")
