"""`python -m lab samples apparel-score`: how well a running stack does on a data set that others know."""

from __future__ import annotations

import asyncio
import os
from typing import Annotated

import typer
from rich.console import Console

from caravan.telemetry import configure_logging
from lab.progress import progress
from lab.samples import apparel
from local_stack.exits import failures_told
from local_stack.settings import StackSettings

console = Console()


def apparel_score(  # noqa: PLR0917  each is an option
    data: apparel.Data = None,
    edge: Annotated[str, typer.Option(help="Whose shopper; the first edge by default.")] = "",
    model: Annotated[str, typer.Option(help="Model to name; the topic's own by default.")] = "",
    topic: Annotated[str, typer.Option(help="Of the pictures.")] = apparel.REQUESTS,
    replies: Annotated[str, typer.Option(help="Topic of the answers.")] = apparel.REPLIES,
    at_once: Annotated[int, typer.Option(help="Pictures on their way.", min=1, max=1000)] = 64,
    deadline: Annotated[float, typer.Option(help="Seconds until one is given up.", min=0.1)] = 60.0,
    *,
    tls: Annotated[bool, typer.Option("--tls", help="MQTT over TLS with the client certificate.")] = False,
) -> None:
    """Ask a running stack about Fashion-MNIST's 10,000 test pictures: msgpack over MQTT.

    The model is the one of make fashion.zip, or any for these classes. Exit
    code 0 only if each is answered.
    """
    configure_logging("WARNING", "console")
    with failures_told():
        from lab.cameras.doors import doors_of  # noqa: PLC0415  arrays and clients, as above
        from lab.cameras.pictures import pictures_of  # noqa: PLC0415
        from lab.samples.fashion_mnist import read_apparel  # noqa: PLC0415
        from lab.scoring.score import Way, score  # noqa: PLC0415
        from lab.scoring.table import in_words, table  # noqa: PLC0415

        doors = doors_of(StackSettings.read(os.environ).home, edge, tls=tls, hub=False)
        pictures = list(pictures_of(read_apparel(apparel.folder_of(data), "t10k")))
        way = Way(topic, replies, model, model or apparel.MODEL, at_once, deadline)
        _say(f"{len(pictures)} pictures to {doors.edge}, msgpack over MQTT{' with TLS' if tls else ''}")
        with progress(console, "answered") as told:
            found = asyncio.run(score(doors, way, pictures, classes=apparel.CLASSES, on_answer=told))
    console.print(table(found))
    _say(in_words(found))
    for error in found.errors[:3]:
        _say(f"  for example: {error}")
    if found.missing:
        _say(f"{found.missing} pictures have no answer.")
        raise typer.Exit(1)


def _say(text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
