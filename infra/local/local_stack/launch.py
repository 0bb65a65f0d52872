"""Start a supervisor in the background, wait for it, stop it, remove what it kept."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from local_stack import logs
from local_stack.errors import StackError, StartFailed
from local_stack.processes import Identity
from local_stack.settings import StackSettings
from local_stack.state import PartState, Phase, StackState, read_state
from local_stack.supervisor import sweep

POLL = 0.25
PATIENCE = 3
"""How often a part may end while the stack starts, before the start is given up."""
STOP_SECONDS = 60.0
_TAIL = 15
_OURS = ("data", "logs", "run", "traces")


@dataclass(frozen=True, slots=True)
class Launched:
    """A supervisor in the background, and the stack as it was when everything was ready."""

    process: subprocess.Popen[bytes]
    state: StackState


async def launch(
    settings: StackSettings,
    *,
    tied: bool = False,
    environment: Mapping[str, str] | None = None,
    on_change: Callable[[StackState], None] | None = None,
) -> Launched:
    """Start a stack and wait until everything is ready; an edge may be cut off from central.

    With `tied` the stack stops by itself when this process ends, in whatever way, or closes the pipe
    `process.stdin`. `environment` is what the services see beneath what the table of parts says.

    Raises:
        StackError: if it runs already.
        StartFailed: naming the part at fault; nothing is left running.

    """
    old = await asyncio.to_thread(read_state, settings.home)
    if old is not None and old.running:
        raise StackError(f"the stack in {settings.home} is already running")
    process = await asyncio.to_thread(_spawn, settings, tied, environment or os.environ)
    try:
        return Launched(process, await _until_ready(settings.home, process, on_change or (lambda _: None)))
    except BaseException:
        await _end(process, settings.home)
        raise


def _spawn(settings: StackSettings, tied: bool, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    log = supervisor_log(settings.home)
    log.parent.mkdir(parents=True, exist_ok=True)
    logs.bound(log)
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "local_stack", "supervise", *(["--until-eof"] if tied else [])],
            stdin=subprocess.PIPE if tied else subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**environment, **settings.environment()},
            start_new_session=True,
        )


async def _until_ready(
    home: Path, process: subprocess.Popen[bytes], on_change: Callable[[StackState], None]
) -> StackState:
    while True:
        ended = process.poll() is not None
        state = await asyncio.to_thread(read_state, home)
        mine = state if state is not None and state.pid == process.pid else None
        if ended:
            tail = await asyncio.to_thread(logs.tail, supervisor_log(home), _TAIL)
            reason = mine.failure if mine else ""
            raise StartFailed(
                reason or (tail[-1] if tail else "the supervisor ended"), tail=() if reason else tail
            )
        if mine is not None:
            on_change(mine)
            if mine.up:
                return mine
            for part in mine.parts:
                if hopeless(part):
                    raise await failed(home, part)
        await asyncio.sleep(POLL)


def hopeless(part: PartState) -> bool:
    """Tell whether a start should be given up because of this part."""
    return part.phase is Phase.LATE or (
        part.phase not in (Phase.READY, Phase.CUT_OFF) and part.restarts >= PATIENCE
    )


async def failed(home: Path, part: PartState) -> StartFailed:
    """Say why a part is not ready, with the end of its log."""
    tail = await asyncio.to_thread(logs.tail, part_log(home, part.name), _TAIL)
    ends = f" (ended {part.restarts} times, last with {part.last_exit})" if part.restarts else ""
    return StartFailed(f"{part.name} is not ready: {part.detail or part.phase}{ends}", part.name, tail)


async def _end(process: subprocess.Popen[bytes], home: Path) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    await asyncio.to_thread(_wait, process)
    state = await asyncio.to_thread(read_state, home)
    if state is not None and state.pid == process.pid:
        await asyncio.to_thread(sweep, state)


def _wait(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


async def stop(home: Path, *, at_once: bool = False) -> bool:
    """Stop the stack in a folder, `at_once` without regard for its data; return whether anything ran."""
    state = await asyncio.to_thread(read_state, home)
    if state is None:
        return False
    supervisor = Identity(state.pid, state.born)
    ran = supervisor.alive
    for number in (signal.SIGKILL,) if at_once else (signal.SIGTERM, signal.SIGKILL):
        supervisor.signal(number)
        await asyncio.to_thread(supervisor.wait, STOP_SECONDS)
    final = await asyncio.to_thread(read_state, home) or state
    return await asyncio.to_thread(sweep, final, at_once=at_once) > 0 or ran


async def clean(home: Path) -> bool:
    """Stop the stack in a folder and remove all that it kept; return whether there was anything."""
    await stop(home)
    found = [folder for name in _OURS if (folder := home / name).is_dir()]
    for folder in found:
        await asyncio.to_thread(shutil.rmtree, folder)
    with suppress(OSError):  # it holds something that is not the stack's, or never was
        await asyncio.to_thread(home.rmdir)
    return bool(found)


def supervisor_log(home: Path) -> Path:
    """Where the supervisor's own output goes when it runs in the background."""
    return home / "logs" / "supervisor.log"


def part_log(home: Path, name: str) -> Path:
    """Where a part's output goes."""
    return home / "logs" / f"{name}.log"
