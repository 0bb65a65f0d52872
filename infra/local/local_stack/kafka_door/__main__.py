"""Run a broker and the door before it: `python -m local_stack.kafka_door LISTEN BROKER COMMAND…`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import uvloop

from local_stack.errors import StackError
from local_stack.kafka_door.door import KafkaDoor
from local_stack.tls.door import Address

GRACE_SECONDS = 2.0
_CHILD = Path(__file__).parent.with_name("child.py")


async def main(listen: str, broker: str, command: Sequence[str]) -> int:
    """Keep both until told to stop, or the broker ends; returns the exit code."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    # It ends with this process, in whatever way that ends.
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-S", str(_CHILD), str(os.getpid()), *command
    )
    ended = asyncio.create_task(process.wait())
    ended.add_done_callback(lambda _: stop.set())
    try:
        await KafkaDoor(Address.parse(broker)).serve(Address.parse(listen), stop)
    finally:
        code = process.returncode
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                process.send_signal(number)
            await asyncio.wait([ended], timeout=GRACE_SECONDS)
            if ended.done():
                break
    return 0 if code is None else code if code > 0 else 1


if __name__ == "__main__":
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            exit_code = runner.run(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
    except StackError as exc:
        sys.exit(str(exc))
    sys.exit(exit_code)
