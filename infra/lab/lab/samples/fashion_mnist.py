"""Fashion-MNIST, read: 70,000 grey pictures of 28 x 28, in ten classes (Xiao, Rasul and Vollgraf, 2017).

White is the thing, black what is around it. 60,000 are to learn from, 10,000 to be asked with.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lab.samples.apparel import CLASSES, SIDE, how_to_get
from lab.samples.idx import read_idx
from local_stack.errors import StackError

Part = Literal["train", "t10k"]


class Apparel(NamedTuple):
    """Pictures and what they show: `images` uint8 [N, 28, 28], `labels` uint8 [N], indices of `CLASSES`."""

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]


def read_apparel(folder: Path, part: Part) -> Apparel:
    """Return a part of the data set: `train` to learn from, `t10k` to be asked with.

    Raises:
        StackError: if it is not there (the text says how to get it), or is damaged.

    """
    images, labels = folder / f"{part}-images-idx3-ubyte.gz", folder / f"{part}-labels-idx1-ubyte.gz"
    missing = [path.name for path in (images, labels) if not path.is_file()]
    if missing:
        raise StackError(f"{folder} has no {' and no '.join(missing)}.\n{how_to_get()}")
    found = Apparel(read_idx(images, 3), read_idx(labels, 1))
    if found.images.shape[1:] != (SIDE, SIDE):
        height, width = found.images.shape[1:]
        raise StackError(f"{images} holds pictures of {height} x {width}, not of {SIDE} x {SIDE}")
    if len(found.images) != len(found.labels) or not len(found.labels):
        raise StackError(
            f"{folder} has {len(found.images)} pictures and {len(found.labels)} labels of {part}"
        )
    if found.labels.max() >= len(CLASSES):
        raise StackError(f"{labels} has the label {found.labels.max()}; there are {len(CLASSES)} classes")
    return found
