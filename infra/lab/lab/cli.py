"""The commands for people: demo, cameras, samples."""

from __future__ import annotations

import typer

from lab.cameras.command import cameras
from lab.demo.command import demo
from lab.samples.command import samples
from lab.scoring.command import apparel_score

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    help="""What a Caravan stack is tried out with. What runs the stack itself is `python -m local_stack`.

    [bold]Examples[/bold]

      python -m lab demo             watch a stack of its own learn a product
      python -m lab cameras          ten cameras ask the stack for a minute
      python -m lab samples digits   digits.zip: a training ZIP, ready to be sent

    [bold]Settings[/bold] (environment): those of `python -m local_stack`, as
    CARAVAN_HOME and EDGES.
    """,
)
app.command()(demo)
app.command()(cameras)
samples.command("apparel-score")(apparel_score)
app.add_typer(samples, name="samples")
