"""TensorFlow, in a process of its own that starts while a head is learnt: nothing else needs it."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from caravan import strict_json
from training.children import stop
from training.head import Array

COMMAND = (sys.executable, "-m", "training.exporting")


class Exporter:
    """Writes SavedModels, and tells whether they load and answer; an async context manager.

    One that fails to answer has died, or TensorFlow has: a fault of this machine and not of a model.
    """

    def __init__(self, cache: Path) -> None:
        """`cache` is where the template is kept."""
        self._cache = cache
        self._process: asyncio.Task[Process] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process is not None:
            await stop(await self._process)

    def start(self) -> asyncio.Task[Process]:
        """Start the process, if it does not run: TensorFlow takes seconds."""
        if self._process is None:
            # TensorFlow's start-up notes are for its developers.
            env = {"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ}
            starting = asyncio.create_subprocess_exec(
                *COMMAND, str(self._cache), stdin=PIPE, stdout=PIPE, env=env
            )
            self._process = asyncio.create_task(starting)
        return self._process

    async def export(self, head: Path, directory: Path) -> None:
        """Write the SavedModel of a head, given as its file, and its twin, into a new directory."""
        await self._asked(head=str(head), directory=str(directory), images=None, expected=None)

    async def fault_of(
        self, directory: Path, head: Path, images: Sequence[Path], expected: Array
    ) -> str | None:
        """Say what is wrong with what `export` wrote, or None; see `training.smoke`."""
        return await self._asked(
            head=str(head),
            directory=str(directory),
            images=[str(image) for image in images],
            expected=expected.tolist(),
        )

    async def _asked(self, **job: Any) -> str | None:
        process = await self.start()
        assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018 - both are PIPE
        process.stdin.write(json.dumps(job).encode() + b"\n")
        line = await process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process that exports ended with {await process.wait()}")
        fault: str | None = strict_json.loads_object(line)["fault"]
        return fault
