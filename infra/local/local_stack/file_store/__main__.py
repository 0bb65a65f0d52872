"""Run the store: `python -m local_stack.file_store FOLDER PORT`, on loopback.

AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are the one pair of keys that it takes.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from pathlib import Path

from caravan.intake import DoorLimits, raise_open_files
from caravan.lingering import LingeringClose
from caravan.server import make_server
from local_stack.file_store.app import App
from local_stack.file_store.files import Files
from local_stack.file_store.uploads import Uploads


async def serve(root: Path, port: int, keys: tuple[str, str]) -> None:
    """Serve a folder until told to stop."""
    with Files(root) as files:
        uploads = Uploads(root, files)
        uploads.prepare()
        server = make_server(LingeringClose(App(files, uploads, keys)), DoorLimits(), port=port)

        def stop() -> None:
            server.should_exit = True

        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop)
        await server.serve()


def main() -> None:
    """Read the command line."""
    try:
        folder, port = sys.argv[1:]
        keys = os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
    except (KeyError, ValueError):
        sys.exit(__doc__)
    logging.basicConfig(format="%(asctime)s %(message)s")
    raise_open_files()
    try:
        asyncio.run(serve(Path(folder), int(port), keys))
    except OSError as exc:
        sys.exit(f"the store cannot use {folder}: {exc}")


if __name__ == "__main__":
    main()
