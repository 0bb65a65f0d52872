"""`python -m local_stack samples`: data sets that others know, made into what the doors take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

samples = typer.Typer(
    no_args_is_help=True, help="Data sets that others know, made into what Caravan's doors take."
)
console = Console()


@samples.command("digits")
def digits_command(
    out: Annotated[Path, typer.Option(help="The ZIP to write.", dir_okay=False)] = Path("digits.zip"),
    held_out: Annotated[
        Path | None,
        typer.Option(help="Put a fifth of each class into this ZIP instead.", show_default=False),
    ] = None,
) -> None:
    """Write scikit-learn's handwritten digits as a training ZIP.

    Upload it with: curl -T digits.zip 'http://localhost:8081/zip?edgeId=edge1'
    """
    # Imported here: pictures and arrays take a while, which the other commands should not wait for.
    from local_stack.samples.digits import digits, split, write_zip  # noqa: PLC0415

    found = digits()
    if held_out is not None:
        found, rest = split(found)
        write_zip(held_out, rest)
        console.print(f"{held_out}: {len(rest)} digits, held out", highlight=False)
    write_zip(out, found)
    console.print(f"{out}: {len(found)} digits", highlight=False)
