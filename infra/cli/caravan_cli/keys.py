"""Keys with which versions are signed: made, and changed without an edge that refuses what is new."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from caravan.files import write_file
from caravan.signatures import new_key, public_half, read_private_key

signing = typer.Typer(no_args_is_help=True, help="Make and change the key that versions are signed with.")

Private = Annotated[Path, typer.Argument(help="PEM file of the private key, as SIGNING_KEY names it.")]


@signing.command("new")
def make_key(private: Private = Path("signing.pem")) -> None:
    """Make a P-256 key: the private half for the pipeline, the public one, beside it, for the edges."""
    public = public_of(private)
    for path in (private, public):
        if path.exists():
            _fail(f"{path} is there already: `rotate` changes a key")
    of_private, of_public = new_key()
    write_file(private, of_private)
    write_file(public, of_public, mode=0o644)
    typer.echo(f"{private}: for the training pipeline, SIGNING_KEY={private}")
    typer.echo(f"{public}: for every edge-manager, PUBLIC_KEY={public}, and REQUIRE_SIGNATURE=true")


@signing.command("rotate")
def rotate_key(private: Private = Path("signing.pem")) -> None:
    """Make the key that comes after this one, and have the edges' file vouch for both."""
    if not private.is_file():
        _fail(f"there is no {private}: `new` makes a key")
    after, public = private.with_name(f"{private.stem}.next{private.suffix}"), public_of(private)
    if after.exists():
        _fail(f"{after} is there already, from a change that has not ended")
    before = public.read_bytes() if public.is_file() else public_half(read_private_key(private))
    of_private, of_public = new_key()
    write_file(after, of_private)
    write_file(public, before.rstrip() + b"\n" + of_public, mode=0o644)
    typer.echo(f"1. {public} has both keys now: put it on every edge, and restart its edge-manager.")
    typer.echo(f"2. Then put {after} in the place of {private}: the next version is signed with it.")
    typer.echo(f"3. Once every edge serves that, take the first key out of {public}.")


def public_of(private: Path) -> Path:
    """Return where the public half of a key lies: `signing.pub.pem` beside `signing.pem`."""
    return private.with_name(f"{private.stem}.pub{private.suffix}")


def _fail(message: str) -> None:
    typer.echo(message, err=True)
    raise typer.Exit(1)
