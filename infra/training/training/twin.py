"""A model's twin for ONNX Runtime, `caravan.contracts.TWIN`: pixels in, probabilities out.

It has the arrays of the SavedModel, and the operations of `training.template`, with channels before places,
as ONNX wants them. Training embeds by the part of it before the head, so a head learns from what it will be
asked. A node is named for what it computes, so one head makes one file, byte for byte.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from training import measures
from training.backbone import Backbone, Block, Conv
from training.embeddings import FEATURES
from training.head import COLOURS, FAINT, LIKENESS, NARROW, SCALE, Array, Head

OPSET, IR_VERSION = 18, 10
"""ONNX Runtime 1.22 and all later ones take them."""
SHORT = 1e-6
"""Least length that is scaled to 1: as of TensorFlow's `l2_normalize`, which has its square."""
CHANNELS, PLACES = np.array([1]), np.array([2, 3])
"""The axis of an image's values, [N, F], and of channels, [N, C, …]; and those of places, [N, C, H, W]."""
BLURRIEST = "blurriest"
"""The constant that features take of a head. It lies among what is learnt: else what lies around it, the
backbone, would travel with each version."""

Input = str | float | NDArray[Any]
"""A node's input: another one's name, or a constant; an array of integers has axes, sizes or places."""


class Nodes:
    """A stretch of a graph, in the order in which it is computed."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self._kept: set[str] = set()

    def constant(self, name: str, value: NDArray[Any]) -> str:
        """Keep an array, once however many nodes take it, and return its name."""
        if name not in self._kept:
            if value.dtype != np.int8:
                value = value.astype(np.int64 if value.dtype.kind == "i" else np.float32)
            self.constants.append(numpy_helper.from_array(value, name))
            self._kept.add(name)
        return name

    def add(self, name: str, operator: str, *inputs: Input, **attributes: Any) -> str:
        """Append a node, and return the name that it has, and its output."""
        names = [
            value if isinstance(value, str) else self.constant(f"{name}.{place}", np.asarray(value))
            for place, value in enumerate(inputs)
        ]
        outputs = [name, f"{name}.places"] if operator == "TopK" else [name]
        self.nodes.append(helper.make_node(operator, names, outputs, name, **attributes))
        return name

    def normalised(self, name: str, x: str, least: float = SHORT) -> str:
        """Scale to length 1; what is shorter than `least` stays as short beside it."""
        length = self.add(f"{name}.length", "ReduceL2", x, CHANNELS, keepdims=1)
        return self.add(name, "Div", x, self.add(f"{name}.divisor", "Max", length, least))


def twin_of(backbone: Backbone, head: Head) -> bytes:
    """Return the twin of a model with this head, as a file."""
    metadata = {"classes": json.dumps(head.classes)}
    parts = _features(backbone, sharpens=True), _probabilities(head)
    return _file(parts, {"probabilities": len(head.classes)}, metadata)


def features_of(backbone: Backbone, blurriest: Array | None = None) -> bytes:
    """Return the part before the head alone, as a file: `pixels` → `features`, `sharpness`.

    What is less sharp than `blurriest`, [1], is sharpened; without it, nothing is.
    """
    parts = [_features(backbone, sharpens=blurriest is not None)]
    if blurriest is not None:
        limit = Nodes()
        limit.constant(BLURRIEST, blurriest)
        parts.append(limit)
    return _file(parts, {"features": FEATURES, "sharpness": 1}, {})


def _file(parts: Sequence[Nodes], outputs: Mapping[str, int], metadata: dict[str, str]) -> bytes:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node for part in parts for node in part.nodes],
        "twin",
        [value("pixels", TensorProto.UINT8, ["N", measures.SIDE, measures.SIDE, 3])],
        [value(name, TensorProto.FLOAT, ["N", count]) for name, count in outputs.items()],
        [constant for part in parts for constant in part.constants],
    )
    opset = helper.make_opsetid("", OPSET)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)
    helper.set_model_props(model, metadata)
    return model.SerializeToString(deterministic=True)


def _features(backbone: Backbone, *, sharpens: bool) -> Nodes:
    """[N, 224, 224, 3] uint8, `pixels` → [N, F], `features`, as `training.template` has them.

    If it `sharpens`, what is less sharp than BLURRIEST is sharpened before the second look.
    """
    g = Nodes()
    planes = g.add("planes", "Transpose", "pixels", perm=[0, 3, 1, 2])
    rgb = g.add("rgb", "Cast", planes, to=TensorProto.FLOAT)
    images = g.add("images", "Div", g.add("centred_images", "Sub", rgb, 127.0), 128.0)
    stride = measures.SIDE // measures.COARSE_SIDE
    half = g.add("coarse.images", "AveragePool", images, kernel_shape=[stride] * 2, strides=[stride] * 2)
    x = _conv(g, "coarse", "stem", backbone.stem, half)
    for number, stage in enumerate(backbone.stages[: measures.COARSE_STAGE + 1]):
        x = _stage(g, "coarse", number, stage, x)
    weights = _salience(g, "coarse", _rows(g, x), measures.COARSE_CELLS)
    sharpness = _sharpness(g, images)
    seen = _sharpened(g, images, half, sharpness) if sharpens else images
    x = _conv(g, "fine", "stem", backbone.stem, _cut(g, seen, weights))
    middle = []
    for number, stage in enumerate(backbone.stages):
        x = _stage(g, "fine", number, stage, x)
        if number in measures.MIDDLE:
            means = g.add(f"stage{number}.means", "AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
            middle.append(g.add(f"stage{number}.cells", "Mul", _rows(g, means), measures.MIDDLE[number]))
    root = g.add("roots", "Sqrt", top := _rows(g, _conv(g, "fine", "top", backbone.top, x)))
    fine = _salience(g, "fine", root, measures.FINE_CELLS)
    pooled = [_pooled(g, cells, fine) for cells in (top, *middle)]
    shapes = g.normalised("shapes", g.add("root", "Sqrt", pooled[0]))
    g.add("features", "Concat", shapes, *pooled[1:], _colours(g, rgb, weights), axis=1)
    return g


def _sharpness(g: Nodes, images: str) -> str:
    """[N, 3, 224, 224] → [N, 1]."""
    maps = g.add(
        "brightness_and_laplacian",
        "Conv",
        images,
        measures.brightness_and_laplacian(),
        strides=[measures.SPARSE] * 2,
    )
    mean = g.add("brightness.mean", "ReduceMean", maps, PLACES, keepdims=0)
    square = g.add("brightness.square", "ReduceMean", g.add("squares", "Mul", maps, maps), PLACES, keepdims=0)
    variance = g.add("brightness.variance", "Sub", square, g.add("mean_squares", "Mul", mean, mean))
    contrast = g.add("contrast", "Add", variance, measures.FLAT)
    brightness = g.add("contrast_of_brightness", "Gather", contrast, np.array([0]), axis=1)
    laplacian = g.add("contrast_of_laplacian", "Gather", contrast, np.array([1]), axis=1)
    return g.add("sharpness", "Div", laplacian, brightness)


def _sharpened(g: Nodes, images: str, half: str, sharpness: str) -> str:
    """Add what a quarter of the size does not show, where an image is blurred."""
    below = g.add("blurred.below", "Sub", g.add("blurred.share", "Div", BLURRIEST, sharpness), 1.0)
    blurred = g.add("blurred", "Clip", g.add("blurred.part", "Div", below, measures.BLURRED), 0.0, 1.0)
    quarter = g.add("quarter", "AveragePool", half, kernel_shape=[2, 2], strides=[2, 2])
    linear = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    smooth = g.add("smooth", "Resize", quarter, "", np.array([1.0, 1.0, 4.0, 4.0]), **linear)
    detail = g.add("detail", "Sub", images, smooth)
    amount = g.add("blurred.amount", "Unsqueeze", blurred, PLACES)
    return g.add("sharpened", "Add", images, g.add("detail.added", "Mul", detail, amount))


def _stage(g: Nodes, look: str, number: int, stage: Sequence[Block], x: str) -> str:
    for place, block in enumerate(stage):
        name, y = f"stage{number}.block{place}", x
        for layer, conv in enumerate(block.layers):
            y = _conv(g, look, f"{name}.conv{layer}", conv, y)
        x = g.add(f"{look}.{name}", "Add", x, y) if block.shortcut else y
    return x


def _conv(g: Nodes, look: str, name: str, conv: Conv, x: str) -> str:
    # More at the end where it is odd, as TensorFlow pads.
    layout: dict[str, Any] = {"auto_pad": "SAME_UPPER", "strides": [conv.stride] * 2}
    layout["group"] = len(conv.kernel) if conv.depthwise else 1
    kernel, bias = g.constant(f"{name}.kernel", conv.kernel), g.constant(f"{name}.bias", conv.bias)
    y = g.add(f"{look}.{name}.linear", "Conv", x, kernel, bias, **layout)
    return g.add(f"{look}.{name}", "Clip", y, 0.0, 6.0) if conv.active else y


def _rows(g: Nodes, x: str) -> str:
    """[N, C, H, W] → [N, C, H · W]."""
    return g.add(f"{x}.rows", "Reshape", x, np.array([0, 0, -1]))


def _pooled(g: Nodes, cells: str, weights: str) -> str:
    """[N, C, cells], weights [N, cells, 1] → [N, C]."""
    total = g.add(f"{cells}.total", "MatMul", cells, weights)
    return g.add(f"{cells}.pooled", "Squeeze", total, np.array([2]))


def _salience(g: Nodes, look: str, features: str, side: int) -> str:
    """Weigh the cells of a map of `side` by side, [N, C, cells] → [N, cells, 1]."""
    columns = g.normalised(f"{look}.columns", features)
    cells = g.add(f"{look}.cells", "Transpose", columns, perm=[0, 2, 1])
    # Whole rows are gathered and then turned, as columns lie apart in memory: a third of the time, or less.
    rows = g.add(f"{look}.border.rows", "Gather", cells, measures.border(side), axis=1)
    edge = g.add(f"{look}.border", "Transpose", rows, perm=[0, 2, 1])
    likeness = g.add(f"{look}.likeness", "MatMul", cells, edge)
    nearest = g.add(f"{look}.nearest", "TopK", likeness, np.array([measures.NEAREST]))
    others = g.add(f"{look}.nearest_others", "Slice", nearest, *map(np.array, ([1], [measures.NEAREST], [2])))
    alike = g.add(f"{look}.alike", "ReduceMean", others, np.array([2]), keepdims=1)
    unlike = g.add(f"{look}.unlike", "Max", g.add(f"{look}.difference", "Sub", 1.0, alike), 0.0)
    sharp = g.add(
        f"{look}.sharp",
        "Pow",
        g.add(f"{look}.least", "Add", unlike, measures.LEAST),
        float(measures.SHARPNESS),
    )
    salience = g.add(f"{look}.salience", "Mul", sharp, measures.central(side)[:, None])
    total = g.add(f"{look}.salience.total", "ReduceSum", salience, np.array([1]), keepdims=1)
    return g.add(f"{look}.weights", "Div", salience, total)


def _spreads(g: Nodes, row: str, spread: str) -> str:
    """Return how many of the spreads, [N, 2], of weights [N, 1, cells] half the box's side is: [N, 1]."""
    at_border, in_all = (
        g.add(name, "Squeeze", g.add(f"{name}.row", "MatMul", row, weights), CHANNELS)
        for name, weights in zip(
            ("at_border", "in_all"), measures.standing_out(measures.COARSE_CELLS), strict=True
        )
    )
    clutter = g.add("clutter", "Div", g.add("share_at_border", "Div", at_border, in_all), measures.CLUTTER)
    clear = g.add("clear", "Max", g.add("clear.rest", "Sub", 1.0, clutter), 0.0)
    size = g.add("size", "ReduceMax", spread, CHANNELS, keepdims=1)
    above = g.add("size.above", "Sub", size, measures.FILLING[0])
    fills = g.add(
        "fills",
        "Clip",
        g.add("fills.part", "Div", above, measures.FILLING[1] - measures.FILLING[0]),
        0.0,
        1.0,
    )
    more = g.add(
        "spreads.more", "Mul", g.add("alone", "Mul", clear, fills), measures.SPREADS_ALONE - measures.SPREADS
    )
    return g.add("spreads", "Add", more, measures.SPREADS)


def _cut(g: Nodes, images: str, weights: str) -> str:
    """Cut the box that weights of cells, [N, cells, 1], make: [N, 3, 224, 224] → [N, 3, 160, 160]."""
    row = g.add("weights.row", "Transpose", weights, perm=[0, 2, 1])
    places = measures.middles(measures.COARSE_CELLS)
    mean = g.add("mean", "Squeeze", g.add("mean.row", "MatMul", row, places), CHANNELS)
    square = g.add("square", "Squeeze", g.add("square.row", "MatMul", row, places**2), CHANNELS)
    variance = g.add("variance", "Sub", square, g.add("mean.square", "Mul", mean, mean))
    spread = g.add("spread", "Sqrt", g.add("variance.least", "Max", variance, 0.0))
    half = g.add(
        "half",
        "Clip",
        g.add("half.wanted", "Mul", spread, _spreads(g, row, spread)),
        measures.LEAST_BOX / 2,
        0.5,
    )
    least = g.add("middle.least", "Max", mean, half)
    middle = g.add("middle", "Min", least, g.add("middle.most", "Sub", 1.0, half))
    # From the middle of the first pixel to that of the last; RoiAlign counts from edges, half a step beyond.
    beyond = 0.5 * (measures.SIDE - 1) / (measures.FINE_SIDE - 1)
    edges = []
    for name, operator, out in (("first", "Sub", -beyond), ("last", "Add", beyond)):
        pixel = g.add(f"{name}.pixel", "Mul", g.add(name, operator, middle, half), measures.SIDE - 1.0)
        step = g.add(f"{name}.step", "Mul", half, 2 * out)
        edges.append(g.add(f"{name}.edge", "Add", g.add(f"{name}.beyond", "Add", pixel, step), 0.5))
    boxes = g.add("boxes", "Concat", *edges, axis=1)
    count = g.add("count", "Squeeze", g.add("counts", "Shape", "pixels", start=0, end=1), np.array([0]))
    whose = g.add("whose", "Range", g.constant("zero", np.array(0)), count, g.constant("one", np.array(1)))
    cut = {"output_height": measures.FINE_SIDE, "output_width": measures.FINE_SIDE, "sampling_ratio": 1}
    return g.add("fine.images", "RoiAlign", images, boxes, whose, **cut)


def _colours(g: Nodes, rgb: str, weights: str) -> str:
    """Count hues, [N, 3, 224, 224] and weights of cells [N, cells, 1] → [N, 2 · HUES + 1]."""
    means = g.add(
        "patches.means", "AveragePool", rgb, kernel_shape=[measures.PATCH] * 2, strides=[measures.PATCH] * 2
    )
    patches = g.add("patches", "Div", _rows(g, means), 255.0)
    highest = g.add("highest", "ReduceMax", patches, CHANNELS, keepdims=1)
    lowest = g.add("lowest", "ReduceMin", patches, CHANNELS, keepdims=1)
    chroma = g.add("chroma", "Sub", highest, lowest)
    saturation = g.add("saturation", "Div", chroma, g.add("brightness", "Add", highest, measures.DARK))
    direction = g.normalised("direction", g.add("hue", "MatMul", measures.on_circle(3).T, patches))
    near = g.add("near", "Sub", g.add("bins", "MatMul", measures.on_circle(measures.HUES), direction), 1.0)
    share = g.add("share", "Exp", g.add("width", "Div", near, measures.BIN_WIDTH**2))
    hues = g.add("hues", "Mul", share, saturation)
    none = g.add("none", "Max", g.add("unsaturated", "Sub", measures.SATURATED, saturation), 0.0)
    beyond = g.add(
        "beyond_strong", "Div", g.add("from_strong", "Sub", saturation, measures.STRONG), measures.BLEND
    )
    strong = g.add("strong_hues", "Mul", hues, g.add("strong", "Sigmoid", beyond))
    pale = g.add("pale_hues", "Sub", hues, strong)
    side = measures.SIDE // measures.PATCH
    both = g.add("colours.patches", "Concat", strong, pale, none, axis=1)
    square = g.add("colours.square", "Reshape", both, np.array([0, 0, side, side]))
    inside = [side // measures.COARSE_CELLS] * 2
    cells = g.add("colours.cells", "AveragePool", square, kernel_shape=inside, strides=inside)
    pooled = _pooled(g, _rows(g, cells), weights)
    return g.normalised("colours", g.add("colours.root", "Sqrt", pooled))


def _probabilities(head: Head) -> Nodes:
    """[N, F], `features` → [N, C], `probabilities`, as `Head.probabilities` has them."""
    g, arrays = Nodes(), head.arrays()
    g.constant(BLURRIEST, head.blurriest)
    other = np.arange(len(head.classes)) == head.other
    # Arrays lie here as in the SavedModel, byte for byte: so they are one piece of both, and travel once.
    wide = {}
    for name in NARROW:
        counts = g.add(f"{name}.counts", "Cast", g.constant(name, arrays[name]), to=TensorProto.FLOAT)
        wide[name] = g.add(f"{name}.wide", "Mul", counts, arrays[f"{name}_steps"])
    centred = g.add("centred", "Sub", "features", arrays["mean"])
    shapes, features = len(arrays["by_shape"]), len(arrays["mean"])
    sides = []
    for name, share, first, last in (
        ("by_shape", 1 - COLOURS, 0, shapes),
        ("by_colour", COLOURS, shapes, features),
    ):
        x = g.add(f"{name}.values", "Slice", centred, *map(np.array, ([first], [last], [1])))
        placed = g.add(f"{name}.placed", "MatMul", x, wide[name])
        along = g.add(f"{name}.along", "Mul", placed, arrays[f"{name}_damping"])
        back = g.add(f"{name}.turned", "Transpose", wide[name], perm=[1, 0])
        damped = g.add(f"{name}.damped", "Sub", x, g.add(f"{name}.away", "MatMul", along, back))
        sides.append(
            g.add(f"{name}.share", "Mul", g.normalised(f"{name}.unit", damped, FAINT), math.sqrt(share))
        )
    centres = g.add("centres.turned", "Transpose", wide["centres"], perm=[1, 0])
    typical = g.add("typical", "MatMul", g.add("space", "Concat", *sides, axis=1), centres)
    usual = g.add("usual", "MatMul", typical, ~other[:, None] / (~other).sum())
    beyond = g.add("beyond", "Mul", g.add("difference_of_typical", "Sub", typical, usual), LIKENESS * ~other)
    scaled = g.add("scaled", "Mul", g.normalised("unit", centred), float(SCALE))
    dense = g.add("dense", "Gemm", scaled, wide["weights"], head.bias)
    softmax = g.add("softmax", "Softmax", g.add("logits", "Add", dense, beyond), axis=1)
    above = g.add("above", "Mul", g.add("margin", "Sub", typical, head.thresholds), head.slopes)
    guard = g.add("guard", "Max", g.add("passes", "Sigmoid", above), other * 1.0)
    guarded = g.add("guarded", "Mul", softmax, guard)
    rest = g.add("rest", "Sub", 1.0, g.add("sum", "ReduceSum", guarded, CHANNELS, keepdims=1))
    g.add("probabilities", "Add", guarded, g.add("to_other", "Mul", rest, other * 1.0))
    return g
