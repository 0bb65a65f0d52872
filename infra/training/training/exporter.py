"""TensorFlow, in a process of its own: nothing else needs it.

A run has one that starts while its head is learnt, or asks the one that the listener keeps ready for all.
"""

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from caravan import strict_json
from training.stopping import stop

if TYPE_CHECKING:
    from training.head import Array

COMMAND = (sys.executable, "-m", "training.exporting")

ENVIRONMENT = {"TF_CPP_MIN_LOG_LEVEL": "3", "MALLOC_ARENA_MAX": "1"}
"""Hides TensorFlow's start-up notes; one arena takes a tenth less memory and no more CPU."""

Job = Mapping[str, Any]
"""Arguments of `training.exporting`."""
Ask = Callable[[Job], Awaitable[str | None]]
"""Carries out a job, and returns the fault that was found; see `ExporterProcess.ask`."""


class ExporterProcess:
    """The process that exports, and does one job after the other; an async context manager.

    Its end ends the job that it is at, and the next job starts another one.
    """

    def __init__(self, cache: Path) -> None:
        """`cache` is where the template is kept."""
        self._cache = cache
        self._process: Process | None = None
        self._turn = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._end()

    async def start(self) -> None:
        """Start it, if it does not run; it takes seconds to be ready, which nobody waits for here."""
        async with self._turn:
            await self._started()

    async def ask(self, job: Job) -> str | None:
        """Have a job done; return the fault that was found.

        Raises:
            RuntimeError: if the process died of it: a fault of this machine and not of a model.

        """
        async with self._turn:
            process = await self._started()
            assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018 - both are PIPE
            try:
                process.stdin.write(json.dumps(job).encode() + b"\n")
                line = await process.stdout.readline()
            except BaseException:
                await self._end()  # or the next job would have this one's answer
                raise
            if not line:
                raise RuntimeError(f"the process that exports ended with {await process.wait()}")
            fault: str | None = strict_json.loads_object(line)["fault"]
            return fault

    async def _started(self) -> Process:
        if self._process is None or self._process.returncode is not None:
            env = ENVIRONMENT | os.environ
            # A session of its own: Ctrl-C at the terminal is for who asks it.
            self._process = await asyncio.create_subprocess_exec(
                *COMMAND, str(self._cache), stdin=PIPE, stdout=PIPE, env=env, start_new_session=True
            )
        return self._process

    async def _end(self) -> None:
        if self._process is not None:
            await stop(self._process)
            self._process = None


async def _is_started() -> None:
    """Do nothing."""


class Exporter:
    """Writes SavedModels, and tells whether they load and answer.

    Args:
        ask: has a job done.
        start: is told that there will be one, where that is of use.

    """

    def __init__(self, ask: Ask, start: Callable[[], Awaitable[None]] = _is_started) -> None:
        self._ask = ask
        self.start = start

    async def export(self, directory: Path) -> None:
        """Write the SavedModel of a head, and its twin, into the directory of the head's file."""
        await self._ask(_job(directory))

    async def fault_of(self, directory: Path, images: Sequence[Path], expected: "Array") -> str | None:
        """Say what is wrong with what `export` wrote, or None; see `training.smoke`."""
        asked = {"images": [str(image.absolute()) for image in images], "expected": expected.tolist()}
        return await self._ask(_job(directory) | asked)


def _job(directory: Path) -> dict[str, Any]:
    # Absolute: another process does it.
    return {"directory": str(directory.absolute()), "images": None, "expected": None}
