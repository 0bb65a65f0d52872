"""How a command ends that failed: with words on standard error, and an exit code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console

from caravan.errors import CaravanError

INTERRUPTED = 130


@contextmanager
def failures_told() -> Iterator[None]:
    """End the command with 1 and the error's text, or with 130 after Ctrl-C."""
    failures = Console(stderr=True)
    try:
        yield
    except KeyboardInterrupt as exc:
        failures.print("Interrupted.", style="yellow")
        raise typer.Exit(INTERRUPTED) from exc
    except CaravanError as exc:
        failures.print(str(exc), style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from exc
    except ExceptionGroup as group:
        failures.print(str(group.exceptions[0]), style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from group
