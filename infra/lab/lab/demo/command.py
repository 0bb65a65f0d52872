"""`python -m lab demo`: the main job of the product in one command."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from caravan.errors import CaravanError
from local_stack.errors import StackError, StartFailed
from local_stack.launch import clean
from local_stack.settings import DEMO, StackSettings

INTERRUPTED = 130
PAGE = 130
"""Columns of a line where there is no terminal to ask."""


def demo(
    data: Annotated[
        Path | None,
        typer.Option(
            help="ZIP of photos to begin with: images/<class>/…, one class being 'other'.", show_default=False
        ),
    ] = None,
    new: Annotated[
        Path | None,
        typer.Option(
            help="ZIP of photos of a product that DATA lacks; some are held out.", show_default=False
        ),
    ] = None,
    *,
    keep: Annotated[bool, typer.Option("--keep", help="Keep data and logs afterwards.")] = False,
) -> None:
    """Watch Caravan learn a product that it did not know.

    A whole stack of its own starts on free ports and trains on a first ZIP.

    A photo of an unknown product is answered with 'other'; photos of that
    product are uploaded; the same photo is answered with its name and price,
    while a customer never stops asking.

    In the end everything that was started is stopped.

    [bold]Examples[/bold]

      python -m lab demo                                 photos that it renders
      python -m lab demo --data teas.zip --new bali.zip  your own

    [bold]Exit code[/bold]: 0 only if all of it really happened. 1 if something
    did not: it says what, and where the logs are. 130 after Ctrl-C.
    """
    console, failures = Console(), Console(stderr=True)
    if not console.is_terminal:
        console.width = PAGE
    if (data is None) != (new is None):
        raise typer.BadParameter("--data and --new go together: what to begin with, and what is new")
    # Imported here, as the other commands, and the processes that render, should not wait for its clients.
    from lab.demo.screen import Screen  # noqa: PLC0415
    from lab.demo.story import Zips, tell  # noqa: PLC0415

    screen, home = Screen(console), _home(failures)
    zips = None if data is None or new is None else Zips(data, new)
    screen.title("Caravan: a shop learns a product that it did not know")
    try:
        asyncio.run(_ended_by_sigterm(tell(screen, home, zips)))
    except (KeyboardInterrupt, asyncio.CancelledError) as exc:
        failures.print("Interrupted: everything that was started is stopped again.", style="yellow")
        raise typer.Exit(INTERRUPTED) from exc
    except CaravanError as exc:
        screen.table(complete=False)
        failures.print(
            f"It did not happen: {exc}", style="bold red", markup=False, highlight=False, soft_wrap=True
        )
        if isinstance(exc, StartFailed):
            for line in exc.tail:
                failures.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
        failures.print(
            f"The logs of all parts are in {home / 'logs'}", markup=False, highlight=False, soft_wrap=True
        )
        raise typer.Exit(1) from exc
    screen.table(complete=True)
    if keep:
        screen.say(f"Data and logs are in {home}")
    else:
        asyncio.run(clean(home))
    screen.say(
        "All of it really happened. Now yours: make start, then open http://127.0.0.1:8080", style="green"
    )


async def _ended_by_sigterm(story: Coroutine[None, None, None]) -> None:
    """Run to the end; a SIGTERM ends it as Ctrl-C does, with everything stopped."""
    task = asyncio.current_task()
    if task is not None:
        with suppress(NotImplementedError):
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    await story


def _home(failures: Console) -> Path:
    """Return the folder of the demo's own stack."""
    try:
        return StackSettings.read(os.environ).home / DEMO
    except StackError as exc:
        failures.print(str(exc), style="red", markup=False, highlight=False)
        raise typer.Exit(1) from exc
