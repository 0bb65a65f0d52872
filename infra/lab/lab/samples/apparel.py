"""What the apparel data set is called wherever it passes: classes, model, topics, folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
"""In the order of the data set's numbers, which is that of the model's outputs."""
SIDE = 28
MODEL = "fashion_classifier"
REQUESTS, REPLIES = "apparel_images", "apparel-predict"
"""Topics, as the shopper has them by default."""

VARIABLE = "FASHION_MNIST"
"""Names the folder of the data set where it is not the package's own."""
PACKAGE = "dataset-fashion-mnist"
FOLDER = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package puts it."""

Data = Annotated[
    Path | None,
    typer.Option(help=f"Folder of the four idx files; {VARIABLE}, else {FOLDER}.", show_default=False),
]
"""The option of the commands that read it."""


def folder_of(data: Path | None = None) -> Path:
    """Return the folder of the data set: the one given, else that of `FASHION_MNIST`, else the package's."""
    return (data or Path(os.environ.get(VARIABLE, "") or FOLDER)).expanduser()


def how_to_get() -> str:
    """Say how to get the data set, with root and without."""
    return (
        f"Fashion-MNIST is Debian's and Ubuntu's package {PACKAGE}: apt-get install {PACKAGE}\n"
        "Without root:\n"
        f"  apt-get download {PACKAGE} && dpkg -x {PACKAGE}_*.deb fashion\n"
        f"  export {VARIABLE}=$PWD/fashion{FOLDER}"
    )
