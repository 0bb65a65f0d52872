"""How a child process is ended."""

import asyncio
from asyncio.subprocess import Process
from contextlib import suppress

STOP_SECONDS = 5


async def stop(process: Process) -> None:
    """End a process: politely, then not."""
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
