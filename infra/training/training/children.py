"""Runs as child processes: started, listened to, stopped; one may be kept ready with the backbone loaded."""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, Self

import structlog

from caravan import strict_json, tracing
from training.codes import DONE, REFUSED
from training.exporter import Ask, Job
from training.stopping import stop

log = structlog.get_logger()

COMMAND = (sys.executable, "-m", "training", "worker")
LINE_BYTES = 2**24
"""Most bytes of a line of a run: an exporter's job has a few images' probabilities for all classes."""

State = Literal["done", "refused", "again", "crashed"]


@dataclass(frozen=True)
class Ended:
    """How a run ended: `again` if a store was away, `crashed` if the process died or took too long."""

    state: State
    detail: str


class Children:
    """Makes the processes of runs; an async context manager that leaves none behind.

    Args:
        warm: whether one is kept ready.
        seconds: that a run may take.
        ask: has what they export done; without it each has an exporter of its own.
        command: command line of a run.

    """

    def __init__(
        self,
        *,
        warm: bool,
        seconds: float,
        ask: Ask | None = None,
        command: Sequence[str] = COMMAND,
    ) -> None:
        self._warm, self._seconds, self._ask, self._command = warm, seconds, ask, command
        self._spare: Process | None = None
        self._alive: set[Process] = set()

    async def __aenter__(self) -> Self:
        await self._prepare()
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(stop(process) for process in self._alive))

    async def run(self, edge: str, run: str, heard: Callable[[dict[str, Any]], None]) -> Ended:
        """Run the pipeline for an edge in a process; `heard` gets each `training` event that it tells."""
        process, self._spare = self._spare, None
        if process is None or process.returncode is not None:
            process = await self._start()
        try:
            async with asyncio.timeout(self._seconds):
                job = {"edge": edge, "run": run, "exports": self._ask is None} | tracing.headers()
                ended = await _told(process, job, heard, self._ask)
        except TimeoutError:
            ended = Ended("crashed", f"it took longer than {self._seconds:.0f} s")
        finally:
            await stop(process)
            self._alive.discard(process)
        await self._prepare()
        return ended

    async def _prepare(self) -> None:
        if self._warm and self._spare is None:
            self._spare = await self._start()

    async def _start(self) -> Process:
        # A session of its own: Ctrl-C at the terminal is for the listener, which then stops its children.
        process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=PIPE,
            stdout=PIPE,
            limit=LINE_BYTES,
            start_new_session=True,
        )
        self._alive.add(process)
        return process


async def _told(
    process: Process,
    job: Mapping[str, Any],
    heard: Callable[[dict[str, Any]], None],
    ask: Ask | None,
) -> Ended:
    """Hand over the job and follow it to its end."""
    assert process.stdout is not None  # noqa: S101 - it is PIPE
    # Standard input is not closed after: its end is how the child learns that its parent is gone.
    await _tell(process, job)
    detail = ""
    async with asyncio.TaskGroup() as exports:
        async for line in process.stdout:
            fact = strict_json.loads_object(line)
            detail = fact.get("ended", detail)
            if "stage" in fact:
                heard(fact)
            if "export" in fact and ask is not None:
                exports.create_task(_export(process, ask, fact["export"]))
    code = await process.wait()
    if code == DONE:
        return Ended("done", detail)
    if code == REFUSED:
        return Ended("refused", detail)
    if detail:
        return Ended("again", detail)
    return Ended("crashed", f"the process ended with {code}")


async def _export(process: Process, ask: Ask, job: Job) -> None:
    try:
        answer = {"fault": await ask(job)}
    except (RuntimeError, OSError) as exc:  # it died, or cannot be started
        answer = {"died": str(exc)}
    await _tell(process, answer)


async def _tell(process: Process, fact: Mapping[str, Any]) -> None:
    assert process.stdin is not None  # noqa: S101 - it is PIPE
    with suppress(ConnectionError):
        process.stdin.write(json.dumps(fact).encode() + b"\n")
        await process.stdin.drain()
