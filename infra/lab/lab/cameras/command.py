"""`python -m lab cameras`: load for a shopper, and the proof that nothing of it is lost."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from caravan.telemetry import configure_logging
from lab.cameras.data_sets import RENDERED, models
from lab.samples import apparel
from local_stack.exits import failures_told
from local_stack.settings import StackSettings

PAGE = 130
"""Columns of a line where there is no terminal to ask."""


def cameras(  # noqa: PLR0917  each is an option
    count: Annotated[int, typer.Option(help="Cameras.", min=1, max=2000)] = 10,
    rate: Annotated[float, typer.Option(help="Images a second of each.", min=0.01, max=1000)] = 2.0,
    seconds: Annotated[float, typer.Option(help="How long they film.", min=1)] = 60.0,
    over: Annotated[
        Literal["mqtt", "http", "tensor"],
        typer.Option(help="mqtt: JSON on detection/<camera>; http: POST /binary; tensor: msgpack over MQTT."),
    ] = "mqtt",
    edge: Annotated[str, typer.Option(help="Whose shopper; the first edge by default.")] = "",
    data: Annotated[
        str,
        typer.Option(
            help="'rendered', 'digits', 'fashion', or a ZIP or folder of images (class = inner folder)."
        ),
    ] = RENDERED,
    model: Annotated[
        str,
        typer.Option(
            help="Model to ask. By default the shopper's own; for fashion, and images of your own as tensors,"
            f" {apparel.MODEL}."
        ),
    ] = "",
    topic: Annotated[str, typer.Option(help="Of tensors.")] = apparel.REQUESTS,
    replies: Annotated[str, typer.Option(help="Topic of the answers to tensors.")] = apparel.REPLIES,
    deadline: Annotated[float, typer.Option(help="Seconds until an image is given up.", min=0.1)] = 30.0,
    threshold: Annotated[
        float,
        typer.Option(help="Score of a certain answer.", envvar="CERTAIN_SCORE", min=0, max=1),
    ] = 0.8,
    patience: Annotated[float, typer.Option(help="Seconds the hub has beyond its window.", min=1)] = 60.0,
    seed: Annotated[int, typer.Option(help="Of the cameras' choices.")] = 1,
    *,
    tls: Annotated[bool, typer.Option("--tls", help="MQTT over TLS with the client certificate.")] = False,
    shared: Annotated[bool, typer.Option("--shared", help="One MQTT connection for all cameras.")] = False,
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Compare with the hub, image by image.")
    ] = True,
) -> None:
    """Film with simulated cameras, then see that the hub counted every answer once.

    It needs a running stack (make start) with a model (make demo shows how one
    comes about).

    Each camera sends an image, awaits its answer, and sends the next when its
    clock says so. An image is sent again only if it surely was not taken; one
    without an answer counts as unknown.

    When the last window has closed, the answers are compared with GET /hub: per
    camera and class, certain and uncertain apart. The cameras' names are new
    each time, so nothing from before is among the counts.

    [bold]Examples[/bold]

      python -m lab cameras                           2 images/s each, a minute
      python -m lab cameras --over http --rate 10     as a load generator
      python -m lab cameras --over mqtt --tls         with TLS (make certs)
      python -m lab cameras --data photos.zip         photos of your own
      python -m lab cameras --over tensor --data DIR  pixels as msgpack
      python -m lab cameras --over tensor --data fashion  of Fashion-MNIST

    [bold]Exit code[/bold]: 0 only if there were answers and the hub agrees on
    each. 130 after Ctrl-C.
    """
    console = Console()
    if not console.is_terminal:
        console.width = PAGE
    configure_logging("WARNING", "console")
    # Imported here, as the other commands, and the processes that render, should not wait for its clients.
    from lab.cameras.camera import Film  # noqa: PLC0415
    from lab.cameras.doors import doors_of  # noqa: PLC0415
    from lab.cameras.pictures import load  # noqa: PLC0415
    from lab.cameras.run import Shoot, shoot  # noqa: PLC0415
    from lab.cameras.screen import Screen  # noqa: PLC0415

    asked, serves = models(model, data, over, os.environ.get("MODEL_NAME", ""))
    plan = Shoot(
        cameras=count,
        film=Film(rate, seconds, deadline),
        over=over,
        shared=shared,
        model=asked,
        serves=serves,
        topic=topic,
        replies=replies,
        threshold=threshold,
        seed=seed,
        patience=patience,
    )
    screen = Screen(console)
    with failures_told():
        home = StackSettings.read(os.environ).home
        doors = doors_of(home, edge, tls=tls, hub=check)
        with screen.preparing(data) as progress:
            pictures = load(data, _folder(home), seed, progress)
        way = f"{over}{' with TLS' if tls and over != 'http' else ''}"
        screen.say(
            f"{count} cameras at {doors.edge}, {rate:g} images/s each, {seconds:g} s over {way};"
            f" {len(pictures)} images of {data}"
        )
        filmed = asyncio.run(shoot(plan, doors, pictures, screen, compare=check))
    screen.account(filmed.tallies, filmed.seconds, filmed.cpu_seconds, filmed.comparisons)
    sys.exit(0 if filmed.good else 1)


def _folder(home: Path) -> Path:
    return home / "data" / "cameras"
