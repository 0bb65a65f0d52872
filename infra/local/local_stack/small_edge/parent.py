"""Run Python programs in processes forked from this one, which has imported what they need.

What ends is started again, after a pause; SIGTERM and SIGINT end all. This process has one thread and no
event loop: a fork copies no other.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import os
import runpy
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from caravan.start import imports
from local_stack.small_edge.programs import Program

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0
"""Seconds between a program's end and its next start; doubled each time, until it stays up for LONG_UP."""
LONG_UP = 30.0
GRACE = 15.0
"""Seconds from SIGTERM to SIGKILL."""
LONG = 86_400.0
"""Seconds to wait for a signal where nothing is due."""
ENDS = (signal.SIGTERM, signal.SIGINT)
_PR_SET_PDEATHSIG = 1


@dataclass(slots=True)
class Run:
    """A program in its life: `pid` is 0 while it waits for `due`, its next start."""

    program: Program
    pid: int = 0
    began: float = 0.0
    due: float = 0.0
    pause: float = FIRST_PAUSE

    def ended(self, now: float) -> None:
        """Note that it ended, and when it starts again."""
        self.pid = 0
        self.pause = FIRST_PAUSE if now - self.began > LONG_UP else self.pause
        self.due = now + self.pause
        self.pause = min(self.pause * 2, LONGEST_PAUSE)


def keep_running(programs: list[Program]) -> Program | None:
    """Fork, watch and fork again until told to end; in a forked process, return what it is to become."""
    parent = os.getpid()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, *ENDS})
    runs = [Run(program) for program in programs]
    while True:
        now = time.monotonic()
        for run in runs:
            if not run.pid and run.due <= now:
                run.began, run.pid = now, os.fork()
                if not run.pid:
                    _prepare(run.program, parent)
                    return run.program
        waiting = [run.due - now for run in runs if not run.pid]
        told = signal.sigtimedwait({signal.SIGCHLD, *ENDS}, max(0.0, min(waiting, default=LONG)))
        _reap(runs)
        if told is not None and told.si_signo in ENDS:
            _end(runs)
            return None


def _reap(runs: list[Run]) -> None:
    by_pid = {run.pid: run for run in runs if run.pid}
    while by_pid:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        if (run := by_pid.pop(pid, None)) is not None:
            run.ended(time.monotonic())
            code = os.waitstatus_to_exitcode(status)
            print(f"{run.program.name} ended with {code}", file=sys.stderr, flush=True)


def _end(runs: list[Run]) -> None:
    """End all, those first that started last."""
    for run in reversed(runs):
        if run.pid:
            os.kill(run.pid, signal.SIGTERM)
    deadline = time.monotonic() + GRACE
    while any(run.pid for run in runs):
        left = deadline - time.monotonic()
        if left <= 0 or signal.sigtimedwait({signal.SIGCHLD}, left) is None:
            for run in runs:
                if run.pid:
                    os.kill(run.pid, signal.SIGKILL)
            deadline = time.monotonic() + GRACE
        _reap(runs)


def _prepare(program: Program, parent: int) -> None:
    """Make a forked process what it would be if it had been started: alone, and with its own environment."""
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415 - where it is needed alone

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        with suppress(OSError):
            Path("/proc/self/comm").write_text(program.name[:15])
    if os.getppid() != parent:  # it ended before the kernel was told
        sys.exit(1)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD, *ENDS})
    os.environ.clear()
    os.environ.update(program.environment)
    if program.folder is not None:
        os.chdir(program.folder)
    sys.argv = [program.module, *program.arguments]


def run(programs: list[Program]) -> None:
    """Import what programs need, and keep them running; in a forked process, run one."""
    with imports():
        for program in programs:
            wiring = f"{program.module}.app"
            with suppress(ModuleNotFoundError):  # other people's packages have none
                importlib.import_module(wiring if importlib.util.find_spec(wiring) else program.module)
    gc.collect()
    gc.freeze()  # no collection is to walk over what is shared, and so copy it
    if (program_now := keep_running(programs)) is not None:
        runpy.run_module(program_now.module, run_name="__main__", alter_sys=True)
