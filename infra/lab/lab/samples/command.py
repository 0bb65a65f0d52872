"""`python -m lab samples`: data sets that others know, made into what the doors take."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from lab.progress import progress
from lab.samples import apparel
from local_stack.exits import failures_told

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
    from lab.samples.digits import digits, split, write_zip  # noqa: PLC0415

    found = digits()
    if held_out is not None:
        found, rest = split(found)
        write_zip(held_out, rest)
        console.print(f"{held_out}: {len(rest)} digits, held out", highlight=False)
    write_zip(out, found)
    console.print(f"{out}: {len(found)} digits", highlight=False)


@samples.command("apparel")
def apparel_command(
    data: apparel.Data = None,
    out: Annotated[Path, typer.Option(help="The ZIP to write.", dir_okay=False)] = Path("fashion.zip"),
    epochs: Annotated[int, typer.Option(help="How often to go through the pictures.", min=1, max=100)] = 7,
) -> None:
    """Train a small Keras convnet on Fashion-MNIST, and zip it as a model to send.

    Send it with curl -T fashion.zip
    'http://localhost:8081/model?edgeId=edge1&name=fashion_classifier'
    """
    with failures_told():
        _train(apparel.folder_of(data), out, epochs)


def _train(folder: Path, out: Path, epochs: int) -> None:
    from lab.samples.convnet import Convnet, batches_of  # noqa: PLC0415  arrays, as above
    from lab.samples.fashion_mnist import read_apparel  # noqa: PLC0415
    from lab.samples.model_zip import write_model_zip  # noqa: PLC0415

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


def _say(text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
