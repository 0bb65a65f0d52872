"""One site of the embedded stack, by its environment: up when it says so, ended with its standard input.

python -m support.site
"""

from __future__ import annotations

import asyncio
import os
import sys

from local_stack.launch import launch, stop
from local_stack.settings import StackSettings


async def main() -> None:
    settings = StackSettings.read(os.environ)
    launched = await launch(settings, tied=True)
    print("ready" if launched.state.ready else "cut off", flush=True)  # noqa: T201  it is a command
    await asyncio.to_thread(sys.stdin.read)
    await stop(settings.home)


if __name__ == "__main__":
    asyncio.run(main())
