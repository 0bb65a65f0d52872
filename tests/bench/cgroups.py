"""A control group for a bench: so much memory and no swap, one CPU, and what was used of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
PERIOD = 100_000
"""Microseconds in which a group gets as many of the CPU: one CPU."""


@dataclass(frozen=True)
class Group:
    """A group of version 2, or of version 1, whose controllers have folders of their own.

    All sizes are in bytes. `anon` is memory of the programs' own, `file` cached files, which the kernel takes
    back where memory is short.
    """

    folders: tuple[Path, ...]
    second: bool

    @property
    def current(self) -> int:
        """What is charged now, caches included."""
        return self._number("memory.current" if self.second else "memory.usage_in_bytes")

    @property
    def peak(self) -> int:
        """The most that ever was charged, caches included."""
        return self._number("memory.peak" if self.second else "memory.max_usage_in_bytes")

    @property
    def anon(self) -> int:
        """Memory that is no file's."""
        return self._pairs("memory.stat")["anon" if self.second else "total_rss"]

    @property
    def file(self) -> int:
        """Cached files."""
        return self._pairs("memory.stat")["file" if self.second else "total_cache"]

    @property
    def working_set(self) -> int:
        """What is charged less the files that were not used of late, as Kubernetes counts a container."""
        unused = "inactive_file" if self.second else "total_inactive_file"
        return self.current - self._pairs("memory.stat")[unused]

    @property
    def kills(self) -> int:
        """Processes that were killed as there was no memory."""
        return self._pairs("memory.events" if self.second else "memory.oom_control")["oom_kill"]

    def entering(self, command: list[str]) -> list[str]:
        """Return a command that runs another in the group."""
        enter = "".join(f"echo $$ > {folder}/cgroup.procs && " for folder in self.folders)
        return ["/bin/sh", "-c", f'{enter}exec "$@"', "sh", *command]

    def _number(self, name: str) -> int:
        return int((self.folders[0] / name).read_text())

    def _pairs(self, name: str) -> dict[str, int]:
        lines = (self.folders[0] / name).read_text().splitlines()
        return {key: int(value) for key, value in (line.split() for line in lines)}


@contextmanager
def group(name: str, most: int) -> Iterator[Group]:
    """Make a group of one CPU and so many bytes of memory; it goes again, all in it having ended.

    Raises:
        OSError: if none can be made here, as without root.

    """
    second = (ROOT / "cgroup.controllers").exists()
    limits = _SECOND if second else _FIRST
    made: list[Path] = []
    try:
        if second:
            (ROOT / "cgroup.subtree_control").write_text("+memory +cpu")
        for controller, files in limits.items():
            folder = ROOT / controller / f"{name}-{os.getpid()}"
            if folder not in made:
                folder.mkdir()
                made.append(folder)
            for file, text in files.items():
                (folder / file).write_text(text.format(most=most))
        yield Group(tuple(made), second)
    finally:
        for folder in made:
            folder.rmdir()


_SECOND = {"": {"memory.max": "{most}", "memory.swap.max": "0", "cpu.max": f"{PERIOD} {PERIOD}"}}
_FIRST = {
    "memory": {"memory.limit_in_bytes": "{most}", "memory.memsw.limit_in_bytes": "{most}"},
    "cpu": {"cpu.cfs_period_us": f"{PERIOD}", "cpu.cfs_quota_us": f"{PERIOD}"},
}
