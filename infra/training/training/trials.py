"""Starts trials: a process for each, with little in its environment and a deadline."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from caravan import strict_json
from caravan.names import class_name, cut
from training.trial import Found, Job

COMMAND = (sys.executable, "-m", "training.trial")
ENVIRONMENT = ("PATH", "PYTHONPATH", "LANG", "LC_ALL", "TZ", "SYSTEMROOT", "LD_LIBRARY_PATH")
"""Variables of our environment that a trial sees; no credentials."""
ANSWER_BYTES = 16 * 2**20
SECONDS_AN_IMAGE = 0.5
"""Seconds that a trial may take per image, beside the time to load."""


async def tried(job: Job, seconds: float) -> Found:
    """Load and ask a model; whatever it does to the process that does so is a finding, too.

    `seconds` is for loading it; each image that it is asked adds to them.
    """
    seconds += len(job.images) * SECONDS_AN_IMAGE
    env = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "", "HOME": str(Path(job.directory).parent)}
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        stdin=PIPE,
        stdout=PIPE,
        stderr=DEVNULL,
        env=env | quiet,
        cwd=Path(job.directory),
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(seconds):
            return await _answer(process, job)
    except TimeoutError:
        return Found(f"it was not loaded and asked within {seconds:.0f} s")
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _answer(process: Process, job: Job) -> Found:
    assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018 - both are PIPE
    # Not closed after: its end is how the child learns that its parent is gone.
    with suppress(ConnectionError):
        process.stdin.write(json.dumps(asdict(job)).encode() + b"\n")
        await process.stdin.drain()
    try:
        await process.stdout.readexactly(ANSWER_BYTES)
    except asyncio.IncompleteReadError as exc:
        raw = exc.partial
    else:
        return Found("it answers without end")
    code = await process.wait()
    try:
        body = strict_json.loads_object(raw)
        # It is a stranger's model that made these up.
        fault = None if body["fault"] is None else cut(str(body["fault"]))
        classes = tuple(class_name(str(name)) for name in body["classes"])
        answers = tuple((class_name(str(label)), float(share)) for label, share in body["answers"])
        return Found(fault, classes, answers)
    except (ValueError, KeyError, TypeError):
        return Found(f"the process that loaded it ended with {code}")
