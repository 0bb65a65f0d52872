"""Keeps credentials out of the environment of a process that runs what others made.

What a process was started with stays to be read in `/proc/<pid>/environ`, whatever it unsets later. So it
starts itself once more, as the same process, without them, and takes them over from memory.
"""

import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

_CREDENTIAL = re.compile("KEY|SECRET|TOKEN|PASSWORD|CREDENTIAL")
_HANDOVER = "CARAVAN_HANDOVER"
_STARTED_WITH = Path("/proc/self/environ")


def without(variables: Mapping[str, str]) -> dict[str, str]:
    """Return those variables that hold no credentials."""
    return {name: value for name, value in variables.items() if not _CREDENTIAL.search(name.upper())}


def environment(**also: str) -> dict[str, str]:
    """Return what this process was told, credentials included, which it has in its environment no more.

    On Linux it does not return the first time, if it was started with any, or is to be started with variables
    beside: the program begins anew.
    """
    memory = os.environ.pop(_HANDOVER, None)
    if memory is not None:
        with open(int(memory), encoding="utf-8") as file:  # noqa: PTH123 it has no path
            return {**os.environ, **json.load(file)}  # noqa: TID251 it wrote that itself
    kept = {name: value for name, value in os.environ.items() if _CREDENTIAL.search(name.upper())}
    for name in kept:
        del os.environ[name]
    if sys.platform == "linux" and (also or _started_with(kept)):
        handover = os.memfd_create("credentials", 0)
        os.write(handover, json.dumps(kept).encode())
        os.lseek(handover, 0, os.SEEK_SET)
        os.execve(sys.executable, sys.orig_argv, {**os.environ, **also, _HANDOVER: str(handover)})  # noqa: S606 itself
    return {**os.environ, **kept, **also}


def _started_with(names: Mapping[str, str]) -> bool:
    """Tell whether one of these is still to be read; a forked process was told them by other ways."""
    found = {pair.partition(b"=")[0] for pair in _STARTED_WITH.read_bytes().split(b"\0")}
    return any(os.fsencode(name) in found for name in names)
