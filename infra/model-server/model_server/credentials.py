"""Keeps credentials out of the environment of the process that runs other people's graphs.

What a process was started with stays to be read in `/proc/<pid>/environ`, whatever it unsets later. So the
server starts itself once more, as the same process, without them, and takes them over from memory.
"""

import json
import os
import re
import sys
from collections.abc import Mapping

_CREDENTIAL = re.compile("KEY|SECRET|TOKEN|PASSWORD|CREDENTIAL")
_HANDOVER = "MODEL_SERVER_HANDOVER"


def without(variables: Mapping[str, str]) -> dict[str, str]:
    """Return those variables that hold no credentials."""
    return {name: value for name, value in variables.items() if not _CREDENTIAL.search(name.upper())}


def environment() -> dict[str, str]:
    """Return what this process was told, credentials included, which it has in its environment no more.

    On Linux it does not return the first time, if there are any: the program begins anew.
    """
    memory = os.environ.pop(_HANDOVER, None)
    if memory is not None:
        with open(int(memory), encoding="utf-8") as file:  # noqa: PTH123 it has no path
            return {**os.environ, **json.load(file)}
    kept = {name: value for name, value in os.environ.items() if _CREDENTIAL.search(name.upper())}
    for name in kept:
        del os.environ[name]
    if kept and sys.platform == "linux":
        handover = os.memfd_create("credentials", 0)
        os.write(handover, json.dumps(kept).encode())
        os.lseek(handover, 0, os.SEEK_SET)
        os.execve(sys.executable, sys.orig_argv, {**os.environ, _HANDOVER: str(handover)})  # noqa: S606 itself
    return {**os.environ, **kept}
