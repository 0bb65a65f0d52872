"""How features are made of an image: what TensorFlow and ONNX Runtime compute alike, by numbers told once.

What an image shows, not where it stands, is to be learnt. So the network looks twice, from coarse to fine.
Its first stages see all of the image at half its side; cells of their feature map weigh by how little they
look like the image's border (a boundary prior, as in salient object detection) and by how near they are to
its middle. Mean and spread of these weights make a box, and the whole network sees what is in the box. Its
cells are weighed in the same way and pooled. Beside the last layer's features stand those of two middle
stages, whose cells see little of what is around them, and the hues of the image by the first weights: the
network was taught to see the same thing in any colour, and packages of one make differ in that.

What is blurrier than all that a head learnt from is sharpened before the second look.

`training.twin` computes this with ONNX Runtime, by which training embeds, and `training.template` with
TensorFlow.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

SIDE = 224
"""Pixels per side of the image that is looked at."""
COARSE_SIDE, COARSE_STAGE = SIDE // 2, 4
"""Pixels per side of the first look, and its last stage."""
COARSE_CELLS = 7
"""Cells per side of that stage's feature map."""
SPREADS, SPREADS_ALONE, LEAST_BOX = 2.4, 3.5, 0.4
"""Half the box's side in standard deviations of the weights, the same where what stands out fills the picture
alone, as a written digit does, and its least share of the image's side."""
CLUTTER = 0.03
"""The picture shows more than one thing from this share on of what stands out at the border."""
FILLING = (0.118, 0.13)
"""A thing begins to fill the picture between these standard deviations, shares of the image's side."""
FINE_SIDE = 160
"""Pixels per side of the box's content."""
FINE_CELLS = 5
"""Cells per side of the last feature map."""
NEAREST = 4
"""Border cells, the most alike, that a cell is compared with, itself left out."""
SHARPNESS = 3
"""The exponent of a cell's weight, and how fast the weight falls towards the border."""
LEAST = 1e-3
"""Least weight: where all cells are alike, they weigh by their place alone."""
BLURRED = 0.1
"""How gradually sharpening sets in: by this share below the least sharpness that was learnt it is whole."""
SPARSE = 2
"""Step, in pixels across and down, between the places where sharpness is measured."""
GREY = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in brightness."""
FLAT = (1 / 128) ** 2
"""Variance of one level of 128, added to both that are compared: without contrast nothing is blurred."""
MIDDLE = {3: 0.0203, 4: 0.0217}
"""Stages of which features are taken, and the factor that brings them to seven tenths of the spread of the
last layer."""

HUES = 16
"""Bins of hue, for strong colours and as many for pale ones. Beside them is one for what has no hue."""
BIN_WIDTH = 0.3
"""Distance in radians over which a hue counts for a bin."""
SATURATED, DARK = 0.3, 0.04
"""A colour of less saturation counts as one without hue, in part; one that is not brighter has little."""
PATCH = 8
"""Pixels per side of a patch of one colour."""
STRONG, BLEND = 0.4, 0.06
"""The saturation from which a colour is strong rather than pale, and how gradually it becomes so."""


def border(cells: int) -> NDArray[np.intp]:
    """Return which cells of a square map, row by row, lie at its border."""
    return np.flatnonzero(_from_middle(cells).max(axis=0) == cells // 2)


def central(cells: int) -> Array:
    """Return what each cell of a square map, [cells²], weighs by its place."""
    distances = (_from_middle(cells) ** 2).sum(axis=0) / (cells // 2) ** 2
    weights: Array = np.exp(-SHARPNESS * distances).astype(np.float32)
    return weights


def standing_out(cells: int) -> tuple[Array, Array]:
    """Return by what weights of a map's cells are multiplied, [cells², 1] each, to sum what stands out.

    First at the border, then in all of the map; the weights' fall towards the border is undone.
    """
    everywhere: Array = (1 / central(cells)[:, None]).astype(np.float32)
    at_border: Array = np.zeros_like(everywhere)
    at_border[border(cells)] = everywhere[border(cells)]
    return at_border, everywhere


def brightness_and_laplacian() -> Array:
    """Return the kernels, [2, 3, 3, 3], of an image's brightness and of its Laplacian.

    Sharpness is the variance of the second (Pech-Pacheco et al. 2000), as a share of the first's.
    """
    one, laplacian = np.zeros((2, 3, 3))
    one[1, 1] = 1
    laplacian[[0, 1, 1, 2], [1, 0, 2, 1]] = -1
    laplacian[1, 1] = 4
    grey = np.array(GREY)[:, None, None]
    return np.stack([one * grey, laplacian * grey]).astype("f4")


def _from_middle(cells: int) -> NDArray[np.intp]:
    """Return distances down and across, [2, cells²], from the middle of a map of an odd number of cells."""
    distances: NDArray[np.intp] = np.abs(np.indices((cells, cells)).reshape(2, -1) - cells // 2)
    return distances


def middles(cells: int) -> Array:
    """Return how far across, and how far down, the middle of each cell lies: [cells², 2] in 0..1."""
    down, across = (np.indices((cells, cells)).reshape(2, -1) + 0.5) / cells
    return np.stack([across, down], axis=1).astype(np.float32)


def on_circle(count: int) -> Array:
    """Return so many points, [N, 2], at equal distances on a circle."""
    angles = 2 * np.pi * np.arange(count) / count
    return np.stack([np.cos(angles), np.sin(angles)], 1).astype("f4")
