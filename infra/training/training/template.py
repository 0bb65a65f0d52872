"""The model as TensorFlow Serving loads it, but for its head: encoded images in, labels and scores out.

Only the head differs from version to version. So the graph is traced and saved once, as a template, with a
variable for each array of the head, and `training.export` writes those of a version beside it.
"""

import hashlib
import itertools
import math
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import tensorflow as tf

from caravan import image_headers
from caravan.contracts import ONE_IMAGE
from training import backbone, head, measures, pixels
from training.backbone import Backbone, Block, Conv, load_backbone
from training.embeddings import BACKBONE, FEATURES, SHAPES
from training.head import COLOURS, FAINT, LIKENESS, NARROW, SCALE
from training.pixels import preprocess

VARIABLES = "variables/variables"
"""The path of the checkpoint, less its endings, within a SavedModel."""
DECODED_AT_ONCE = 4
"""Images of a request that are decoded side by side: bounds memory, not the batch."""

PARAMETERS: Mapping[str, tuple[Any, list[int | None]]] = {
    "mean": (tf.float32, [FEATURES]),
    "by_shape": (tf.int8, [SHAPES, None]),
    "by_shape_steps": (tf.float32, [1, None]),
    "by_shape_damping": (tf.float32, [None]),
    "by_colour": (tf.int8, [FEATURES - SHAPES, None]),
    "by_colour_steps": (tf.float32, [1, None]),
    "by_colour_damping": (tf.float32, [None]),
    "centres": (tf.int8, [None, FEATURES]),
    "centres_steps": (tf.float32, [None, 1]),
    "weights": (tf.int8, [FEATURES, None]),
    "weights_steps": (tf.float32, [1, None]),
    "bias": (tf.float32, [None]),
    "thresholds": (tf.float32, [None]),
    "slopes": (tf.float32, [None]),
    "blurriest": (tf.float32, [1]),
    "other": (tf.float32, [None]),
    "classes": (tf.string, [None]),
}
"""Their types and shapes, by the names that `Head.arrays` gives them; `other` has a 1 at the class of unknown
things."""
CLASSES = 2
"""Classes of the template itself, which answers, too, but means nothing by it."""


class Features(tf.Module):  # type: ignore[misc]
    """Images [N, 224, 224, 3] float32, scaled as `(x - 127) / 128` → features [N, F] float32."""

    def __init__(self, layers: Backbone) -> None:
        super().__init__()
        self._stem = _Conv(layers.stem)
        self._stages = [[_Block(block) for block in stage] for stage in layers.stages]
        self._top = _Conv(layers.top)

    def __call__(self, images: tf.Tensor, blurriest: tf.Tensor) -> tf.Tensor:
        """Return the features, [N, 1280 + 80 + 112 + 33]: of the last layer, two middle stages, colours.

        What is less sharp than `blurriest`, [1], is sharpened before the second look.
        """
        stride = measures.SIDE // measures.COARSE_SIDE
        half = tf.nn.avg_pool2d(images, stride, stride, "VALID")
        x = self._stem(half)
        for block in itertools.chain(*self._stages[: measures.COARSE_STAGE + 1]):
            x = block(x)
        weights = _salience(x, measures.COARSE_CELLS)
        x = self._stem(_cut(_sharpened(images, half, blurriest), weights))
        middle = []
        for number, stage in enumerate(self._stages):
            for block in stage:
                x = block(x)
            if number in measures.MIDDLE:
                # Four of its cells lie under one of the last layer's: their mean is what that weighs.
                middle.append(measures.MIDDLE[number] * tf.nn.avg_pool2d(x, 2, 2, "VALID"))
        top = self._top(x)
        fine = _salience(tf.sqrt(top), measures.FINE_CELLS)
        pooled = [tf.reduce_sum(fine * cells, [1, 2]) for cells in (top, *middle)]
        # The square root keeps a few strong features from deciding alone (Perronnin et al. 2010).
        return tf.concat(
            [tf.nn.l2_normalize(tf.sqrt(pooled[0]), 1), *pooled[1:], colours_of(images, weights)], 1
        )


class _Conv(tf.Module):  # type: ignore[misc]
    def __init__(self, conv: Conv) -> None:
        super().__init__()
        # TensorFlow's layout is [h, w, in, out]; of a depthwise convolution, [h, w, channels, 1].
        axes = (2, 3, 0, 1) if conv.depthwise else (2, 3, 1, 0)
        self._kernel = tf.Variable(conv.kernel.transpose(axes), trainable=False)
        self._bias = tf.Variable(conv.bias, trainable=False)
        self._convolve = tf.nn.depthwise_conv2d if conv.depthwise else tf.nn.conv2d
        self._stride, self._active = conv.stride, conv.active

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        y = self._convolve(x, self._kernel, [1, self._stride, self._stride, 1], "SAME")
        y = tf.nn.bias_add(y, self._bias)
        return tf.nn.relu6(y) if self._active else y


class _Block(tf.Module):  # type: ignore[misc]
    def __init__(self, block: Block) -> None:
        super().__init__()
        self._layers, self._shortcut = [_Conv(conv) for conv in block.layers], block.shortcut

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        y = x
        for layer in self._layers:
            y = layer(y)
        return x + y if self._shortcut else y


def _salience(features: tf.Tensor, side: int) -> tf.Tensor:
    """Weigh the cells of a map, [N, side, side, F] → [N, side, side, 1]; those of an image sum to 1."""
    cells = tf.nn.l2_normalize(tf.reshape(features, [-1, side * side, features.shape[-1]]), 2)
    likeness = tf.matmul(cells, tf.gather(cells, measures.border(side), axis=1), transpose_b=True)
    nearest = tf.math.top_k(likeness, measures.NEAREST).values[:, :, 1:]
    unlike = tf.maximum(1 - tf.reduce_mean(nearest, 2), 0) + measures.LEAST
    weights = unlike**measures.SHARPNESS * measures.central(side)
    weights /= tf.reduce_sum(weights, 1, keepdims=True)
    return tf.reshape(weights, [-1, side, side, 1])


def _sharpness(images: tf.Tensor) -> tf.Tensor:
    """[N, 224, 224, 3] → [N, 1]."""
    maps = tf.nn.conv2d(
        images, measures.brightness_and_laplacian().transpose(2, 3, 1, 0), measures.SPARSE, "VALID"
    )
    mean = tf.reduce_mean(maps, [1, 2])
    contrast = tf.reduce_mean(maps * maps, [1, 2]) - mean * mean + measures.FLAT
    return contrast[:, 1:] / contrast[:, :1]


def _sharpened(images: tf.Tensor, half: tf.Tensor, blurriest: tf.Tensor) -> tf.Tensor:
    """Add what a quarter of the size does not show, where an image is blurred."""
    blurred = tf.clip_by_value((blurriest / _sharpness(images) - 1) / measures.BLURRED, 0, 1)
    smooth = tf.image.resize(tf.nn.avg_pool2d(half, 2, 2, "VALID"), [measures.SIDE, measures.SIDE])
    return images + (images - smooth) * blurred[:, tf.newaxis, tf.newaxis]


def _cut(images: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Cut the box that weights of cells, [N, 7, 7, 1], make: [N, 224, 224, 3] → [N, 160, 160, 3]."""
    row, places = tf.reshape(weights, [-1, measures.COARSE_CELLS**2]), measures.middles(measures.COARSE_CELLS)
    mean = row @ places
    spread = tf.sqrt(tf.maximum(row @ places**2 - mean * mean, 0))
    half = tf.clip_by_value(spread * _spreads(row, spread), measures.LEAST_BOX / 2, 0.5)
    middle = tf.minimum(tf.maximum(mean, half), 1 - half)
    # Across and down; TensorFlow takes them the other way round.
    boxes = tf.concat([(middle - half)[:, ::-1], (middle + half)[:, ::-1]], 1)
    # A place that is rounded beyond the image would be black.
    boxes = tf.clip_by_value(boxes, 0, 1)
    return tf.image.crop_and_resize(images, boxes, tf.range(tf.shape(images)[0]), [measures.FINE_SIDE] * 2)


def _spreads(row: tf.Tensor, spread: tf.Tensor) -> tf.Tensor:
    """Return how many of the spreads, [N, 2], of weights [N, 49] half the box's side is: [N, 1]."""
    at_border, in_all = (row @ weights for weights in measures.standing_out(measures.COARSE_CELLS))
    clear = tf.maximum(1 - at_border / in_all / measures.CLUTTER, 0)
    above = tf.reduce_max(spread, 1, keepdims=True) - measures.FILLING[0]
    fills = tf.clip_by_value(above / (measures.FILLING[1] - measures.FILLING[0]), 0, 1)
    return measures.SPREADS + clear * fills * (measures.SPREADS_ALONE - measures.SPREADS)


def colours_of(images: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Count hues of images, weighed as their cells [N, 7, 7, 1] are and by saturation → [N, 2 · HUES + 1].

    A hue stays what it is in stronger or weaker light and, nearly, in warmer or colder.
    """
    patches = measures.SIDE // measures.PATCH // measures.COARSE_CELLS
    rgb = tf.clip_by_value(
        (tf.nn.avg_pool2d(images, measures.PATCH, measures.PATCH, "VALID") * 128 + 127) / 255, 0, 1
    )
    weights = tf.repeat(tf.repeat(weights, patches, 1), patches, 2) / patches**2
    highest = tf.reduce_max(rgb, 3, keepdims=True)
    saturation = (highest - tf.reduce_min(rgb, 3, keepdims=True)) / (highest + measures.DARK)
    # Red lies at 0 of the circle of hues, green at a third of it, blue at two thirds.
    direction = tf.nn.l2_normalize(rgb @ measures.on_circle(3), 3)
    likeness = direction @ measures.on_circle(measures.HUES).T
    hues = saturation * tf.exp((likeness - 1) / measures.BIN_WIDTH**2)
    strong = hues * tf.sigmoid((saturation - measures.STRONG) / measures.BLEND)
    none = tf.maximum(measures.SATURATED - saturation, 0)
    counted = tf.reduce_sum(weights * tf.concat([strong, hues - strong, none], 3), [1, 2])
    return tf.nn.l2_normalize(tf.sqrt(counted), 1)


class ServedModel(tf.Module):  # type: ignore[misc]
    """Backbone and head in one graph, with the two signatures of the contract."""

    def __init__(self, layers: Backbone) -> None:
        super().__init__()
        self._features = Features(layers)
        self._decode = tf.function(
            preprocess, autograph=False, input_signature=[tf.TensorSpec([], tf.string)]
        ).get_concrete_function()
        self.head = {name: _parameter(name) for name in PARAMETERS}
        images = tf.TensorSpec([None], tf.string, name="images")
        # Traced once; both signatures call this function.
        self._scored = tf.function(self._score, autograph=False, input_signature=[images])

    def classify(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Encoded images [N] → labels [N], scores [N], probabilities [N, C], classes [C]."""
        p, classes = self._scored(images), self.head["classes"]
        return {
            "labels": tf.gather(classes, tf.argmax(p, axis=1)),
            "scores": tf.reduce_max(p, axis=1),
            "probabilities": p,
            "classes": tf.identity(classes),
        }

    def serve(self, image_b64: tf.Tensor) -> dict[str, tf.Tensor]:
        """One encoded image [1] → `[label, probability]`, both strings; an error for any other number."""
        # A model server feeds however many come; TensorFlow itself would take the declared [1] for the truth.
        images = tf.raw_ops.PlaceholderWithDefault(input=image_b64, shape=[None])
        with tf.control_dependencies([tf.debugging.Assert(tf.size(images) == 1, [ONE_IMAGE])]):
            answer = self.classify(tf.identity(images))
        probability = tf.strings.as_string(answer["scores"][0], precision=6)
        return {"prediction": tf.stack([answer["labels"][0], probability])}

    def _score(self, images: tf.Tensor) -> tf.Tensor:
        pixels = tf.map_fn(
            self._decode,
            images,
            fn_output_signature=tf.TensorSpec([measures.SIDE, measures.SIDE, 3], tf.float32),
            parallel_iterations=DECODED_AT_ONCE,
        )
        return _probabilities(self._features(pixels, self.head["blurriest"]), self.head)


def _parameter(name: str) -> tf.Variable:
    """Return a variable of the head, of a size that only a version knows."""
    dtype, shape = PARAMETERS[name]
    value = tf.zeros([CLASSES if size is None else size for size in shape], dtype)
    return tf.Variable(value, shape=shape, trainable=False, name=name)


def _probabilities(features: tf.Tensor, h: Mapping[str, tf.Variable]) -> tf.Tensor:
    """Repeat `Head.probabilities`."""
    wide = {name: tf.cast(h[name], tf.float32) * h[f"{name}_steps"] for name in NARROW}
    centred = features - h["mean"]
    sides = []
    for name, share, x in (
        ("by_shape", 1 - COLOURS, centred[:, :SHAPES]),
        ("by_colour", COLOURS, centred[:, SHAPES:]),
    ):
        along = x @ wide[name] * h[f"{name}_damping"]
        damped = x - tf.matmul(along, wide[name], transpose_b=True)
        sides.append(tf.nn.l2_normalize(damped, 1, FAINT**2) * math.sqrt(share))
    typical = tf.matmul(tf.concat(sides, 1), wide["centres"], transpose_b=True)
    products = 1 - h["other"]
    usual = tf.reduce_sum(typical * products, 1, keepdims=True) / tf.reduce_sum(products)
    beyond = (typical - usual) * products
    logits = tf.nn.l2_normalize(centred, 1) * SCALE @ wide["weights"] + h["bias"]
    p = tf.nn.softmax(logits + LIKENESS * beyond)
    guard = tf.sigmoid(h["slopes"] * (typical - h["thresholds"]))
    p *= guard + (1 - guard) * h["other"]
    return p + h["other"] * (1 - tf.reduce_sum(p, axis=1, keepdims=True))


def template(cache: Path) -> Path:
    """Return the folder of the template, a SavedModel; the first call traces it, which takes seconds.

    It is kept under a digest of what it is made by, and the same is traced to the same.
    """
    made_by = hashlib.sha256(f"{BACKBONE} {tf.__version__}".encode())
    for module in (backbone, head, image_headers, measures, pixels, sys.modules[__name__]):
        made_by.update(Path(str(module.__file__)).read_bytes())
    target = cache / "templates" / made_by.hexdigest()[:16]
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            made = Path(folder, "made")
            _save(made)
            with suppress(OSError):  # Another process was first.
                made.rename(target)
    return target


def _save(directory: Path) -> None:
    model = ServedModel(load_backbone())
    one = tf.TensorSpec([1], tf.string, name="image_b64")
    many = tf.TensorSpec([None], tf.string, name="images")
    signatures = {
        "serving_default": tf.function(model.serve, autograph=False, input_signature=[one]),
        "classify": tf.function(model.classify, autograph=False, input_signature=[many]),
    }
    tf.saved_model.save(model, str(directory), signatures)
    # It is of the template alone, and need not be there.
    (directory / "fingerprint.pb").unlink(missing_ok=True)
