"""`python -m local_stack samples`: data sets that others know, made into what the doors take."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from caravan.telemetry import configure_logging
from local_stack.exits import failures_told
from local_stack.samples import apparel
from local_stack.samples.progress import progress
from local_stack.settings import StackSettings

samples = typer.Typer(
    no_args_is_help=True, help="Data sets that others know, made into what Caravan's doors take."
)
console = Console()

Data = Annotated[
    Path | None,
    typer.Option(
        help=f"Folder of the four idx files; {apparel.VARIABLE}, else {apparel.FOLDER}.", show_default=False
    ),
]


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


@samples.command("apparel")
def apparel_command(
    data: Data = None,
    out: Annotated[Path, typer.Option(help="The ZIP to write.", dir_okay=False)] = Path("fashion.zip"),
    epochs: Annotated[int, typer.Option(help="How often to go through the pictures.", min=1, max=100)] = 7,
) -> None:
    """Train a small Keras convnet on Fashion-MNIST, and zip it as a model to send.

    Send it with: curl -T fashion.zip 'http://localhost:8081/model?edgeId=edge1&name=fashion_classifier'
    """
    with failures_told():
        _train(apparel.folder_of(data), out, epochs)


def _train(folder: Path, out: Path, epochs: int) -> None:
    from local_stack.samples.convnet import Convnet, batches_of  # noqa: PLC0415  arrays, as above
    from local_stack.samples.fashion_mnist import read_apparel  # noqa: PLC0415
    from local_stack.samples.model_zip import write_model_zip  # noqa: PLC0415

    learnt, asked = read_apparel(folder, "train"), read_apparel(folder, "t10k")
    began = time.monotonic()
    with console.status("Loading TensorFlow"):
        net = Convnet(epochs * batches_of(learnt))
    for number in range(1, epochs + 1):
        what = f"epoch {number} of {epochs}"
        with progress(console, what) as told:
            epoch = net.learn(learnt, told)
        _say(
            f"{what}: loss {epoch.loss:.3f}, accuracy {epoch.accuracy:.3f}, {time.monotonic() - began:.0f} s"
        )
    _say(f"accuracy {net.accuracy(asked):.4f} on {len(asked.labels)} pictures that it had not seen")
    with tempfile.TemporaryDirectory() as scratch:
        net.export(Path(scratch, "model"))
        size = write_model_zip(out, Path(scratch, "model"), apparel.CLASSES)
    _say(f"{out}: {size / 1000:.0f} kB")


@samples.command("apparel-score")
def apparel_score_command(  # noqa: PLR0917  each is an option
    data: Data = None,
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

    The model is the one of make fashion.zip, or any for these classes. Exit code 0 only if each is answered.
    """
    configure_logging("WARNING", "console")
    with failures_told():
        from local_stack.cameras.doors import doors_of  # noqa: PLC0415  arrays and clients, as above
        from local_stack.cameras.pictures import pictures_of  # noqa: PLC0415
        from local_stack.samples.fashion_mnist import read_apparel  # noqa: PLC0415
        from local_stack.samples.score import Way, score  # noqa: PLC0415
        from local_stack.samples.score_table import in_words, table  # noqa: PLC0415

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
