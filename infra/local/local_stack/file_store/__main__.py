"""Run the store: `python -m local_stack.file_store FOLDER PORT`, on loopback.

AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are the one pair of keys that it takes. CAPTURED_MIB is how much
the buckets of captured images may hold together; 0, the default, is no bound.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from pathlib import Path

from caravan.contracts import UNCLASSIFIED, VALID
from caravan.intake import DoorLimits, raise_open_files
from caravan.lingering import LingeringClose
from caravan.server import make_server
from local_stack.file_store.app import App
from local_stack.file_store.files import Files
from local_stack.file_store.retention import bound
from local_stack.file_store.uploads import Uploads

log = logging.getLogger(__name__)

CAPTURED = (VALID, UNCLASSIFIED)
MIB = 2**20
LOOK_SECONDS = 600.0
"""Pause between two looks at how much the images take."""


async def serve(root: Path, port: int, keys: tuple[str, str], captured: int) -> None:
    """Serve a folder until told to stop; `captured` is in bytes."""
    with Files(root) as files:
        uploads = Uploads(root, files)
        uploads.prepare()
        server = make_server(LingeringClose(App(files, uploads, keys)), DoorLimits(), port=port)

        def stop() -> None:
            server.should_exit = True

        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop)
        async with asyncio.TaskGroup() as tasks:
            bounding = tasks.create_task(_bound(files, captured), name="captured images")
            await server.serve()
            bounding.cancel()


async def _bound(files: Files, captured: int) -> None:
    while captured:
        try:
            if removed := await asyncio.to_thread(bound, files, CAPTURED, captured):
                log.warning("%d captured images gave way to newer ones", removed)
        except OSError as exc:
            log.warning("captured images cannot be bounded: %s", exc)
        await asyncio.sleep(LOOK_SECONDS)


def main() -> None:
    """Read the command line."""
    try:
        folder, port = sys.argv[1:]
        keys = os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
        captured = int(os.environ.get("CAPTURED_MIB", "0")) * MIB
    except (KeyError, ValueError):
        sys.exit(__doc__)
    logging.basicConfig(format="%(asctime)s %(message)s")
    raise_open_files()
    try:
        asyncio.run(serve(Path(folder), int(port), keys, captured))
    except* OSError as group:
        sys.exit(f"the store cannot use {folder} and port {port}: {group.exceptions[0]}")


if __name__ == "__main__":
    main()
