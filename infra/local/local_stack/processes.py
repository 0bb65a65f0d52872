"""Processes by identity: a pid is reused sooner or later, a pid with its time of birth is not."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil

from local_stack.plan import PlannedPart

_CHILD = Path(__file__).with_name("child.py")
END_SECONDS = 5.0
"""Seconds that processes have to end after a signal, before the next one."""
_SAME_BIRTH = 0.05
"""Seconds by which two readings of one process's birth may differ."""


@dataclass(frozen=True, slots=True)
class Identity:
    """One process: its pid and its birth in seconds since the epoch."""

    pid: int
    born: float

    @classmethod
    def of(cls, pid: int) -> Self | None:
        """Return the identity of a process that lives, or None."""
        try:
            return cls(pid, psutil.Process(pid).create_time())
        except psutil.Error:
            return None

    @property
    def alive(self) -> bool:
        """Whether this very process still runs."""
        try:
            process = psutil.Process(self.pid)
            same = self.same(Identity(self.pid, process.create_time()))
            return same and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False

    def same(self, other: Identity) -> bool:
        """Tell whether two readings are of one process."""
        return self.pid == other.pid and abs(self.born - other.born) < _SAME_BIRTH

    def wait(self, seconds: float) -> None:
        """Block until it has ended, or for so long."""
        with suppress(psutil.Error):
            if self.alive:
                psutil.Process(self.pid).wait(seconds)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if it still runs."""
        if self.alive:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)


async def spawn(part: PlannedPart) -> asyncio.subprocess.Process:
    """Start a part in a session of its own, its output appended to its log.

    Raises:
        OSError: if its folder or its log cannot be written.

    """
    log = await asyncio.to_thread(_prepare, part)
    try:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", str(_CHILD), str(os.getpid()), *part.command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=part.environment,
            cwd=part.folder,
            start_new_session=True,
        )
    finally:
        os.close(log)


def _prepare(part: PlannedPart) -> int:
    for folder in (part.data, *part.folders):
        folder.mkdir(parents=True, exist_ok=True)
    for path, text in part.files:
        path.write_text(text)
    part.log.parent.mkdir(parents=True, exist_ok=True)
    return os.open(part.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)


def tidy(part: PlannedPart) -> None:
    """Remove what an ended part left outside its folder."""
    for path in part.litter:
        path.unlink(missing_ok=True)


def kill_session(leader: int, home: Path) -> None:
    """Send SIGKILL to every process of a part's session that carries the mark of this stack.

    A session outlives its leader as long as a member lives, and its number is not given away before.
    """
    for process in _sessions({leader}, home):
        with suppress(psutil.Error):
            process.kill()


def _sessions(leaders: set[int], home: Path) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) in leaders and process.environ().get("CARAVAN_HOME") == str(home):
                yield process
        except (psutil.Error, OSError):
            continue


def end_leftovers(parts: Iterable[Identity], home: Path, *, at_once: bool = False) -> int:
    """End what a killed supervisor left running; return how many processes that were.

    Only a process that is in the session of a recorded part and carries this stack's mark is touched.
    """
    found = list(_sessions({part.pid for part in parts if _ours(part)}, home))
    for number in (signal.SIGKILL,) if at_once else (signal.SIGTERM, signal.SIGKILL):
        for process in found:
            with suppress(psutil.Error):
                process.send_signal(number)
        psutil.wait_procs(found, timeout=END_SECONDS)
    return len(found)


def _ours(part: Identity) -> bool:
    """Tell whether a session could still be the recorded part's: its leader lives, or nobody has its pid."""
    now = Identity.of(part.pid)
    return now is None or now.same(part)
