"""Whether a version fits into the memory that is free; what does not would take all others with it."""

import ctypes
import sys
from contextlib import suppress
from pathlib import Path

from model_server.errors import Code, ServingError

MEMINFO = Path("/proc/meminfo")
GROUP = Path("/sys/fs/cgroup")


def check_fits(directory: Path, free: int | None) -> None:
    """Refuse a version whose files alone are larger than the memory that is free (None: unknown).

    Raises ServingError(RESOURCE_EXHAUSTED).
    """
    size = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
    if free is not None and size > free:
        raise ServingError(
            Code.RESOURCE_EXHAUSTED,
            f"The version does not fit: its files have {size} bytes, and {free} bytes of memory are free",
        )


def free_memory(meminfo: Path = MEMINFO, group: Path = GROUP) -> int | None:
    """Return the bytes that this process may still take: of the machine, and of its control group."""
    free = [
        int(line.split()[1]) * 1024 for line in _lines(meminfo) if line.startswith("MemAvailable:")
    ] + _left(group)
    return min(free, default=None)


def give_back() -> None:
    """Return to the system what was freed: glibc keeps what loading a model took in between."""
    if sys.platform == "linux":
        with suppress(AttributeError, OSError):  # musl has no such call
            ctypes.CDLL(None).malloc_trim(0)


def _left(group: Path) -> list[int]:
    """What is left below the group's limit, where it has one; files that are cached can be let go."""
    limit, used = _lines(group / "memory.max"), _lines(group / "memory.current")
    if not limit or not used or not limit[0].isdigit():
        return []
    cached = [int(line.split()[1]) for line in _lines(group / "memory.stat") if line.startswith("file ")]
    return [max(int(limit[0]) - int(used[0]) + sum(cached), 0)]


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="ascii").splitlines()
    except OSError:
        return []
