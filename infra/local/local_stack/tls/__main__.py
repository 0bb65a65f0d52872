"""Entry point of `python -m local_stack.tls`: the door alone, without the rest of the stack's commands."""

import typer

from local_stack.tls.command import tls_door

if __name__ == "__main__":
    typer.run(tls_door)
