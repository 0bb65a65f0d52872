"""The trained part of a model: one dense softmax layer on embeddings, and a guard against the unknown.

A softmax is sure of things far from all it has seen, so each product's probability is multiplied by how
typical the image is of that product, and what is taken away goes to `other`. Typical is how much it is like
the product's centre in a space where the directions in which photos of one and the same product differ (pose,
light, background) are damped: a cosine of shapes and one of colours, for what differs from a product by its
print alone is told by those. The threshold comes from cross-validation on the training images.

All of it is NumPy and deterministic; `training.template` repeats `Head.probabilities` in TensorFlow.
"""

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from caravan.contracts import OTHER
from caravan.errors import Permanent
from caravan.names import as_class

Array = NDArray[np.float32]
Labels = NDArray[np.intp]

SCALE = np.float32(5)
"""Length of a normalised embedding at the dense layer."""
LIKENESS = np.float32(10)
"""What a product's likeness beyond that of all products adds to its logit: the layer alone goes by the place,
where that tells apart what it learns from."""
COLOURS = 0.3
"""What colours count, of 1, in how typical an image is; shapes count the rest."""
NARROW: Mapping[str, int] = {"by_shape": 0, "by_colour": 0, "centres": 1, "weights": 0}
"""The large arrays, which take a byte a number, as a link carries them with each version; and the axis along
which they have one step."""
MOST_STEPS = 127
FAINT = 1e-3
"""A difference from the mean of less length is rounding, as colours of drawings in grey have it: it tells
nothing."""


@dataclass(frozen=True)
class Space:
    """Where images are by what is typical of products.

    Attributes:
        mean: [F], of the training features, of which the first S tell shapes, and those after them colours.
        by_shape: [S, M] orthonormal but for rounding, and by_shape_damping: [M] in 0..1: what of each is
            taken away.
        by_colour: [F - S, K], and by_colour_damping: [K], likewise.
        centres: [C, F], of each class; zeros for one without images.

    """

    mean: Array
    by_shape: Array
    by_shape_damping: Array
    by_colour: Array
    by_colour_damping: Array
    centres: Array

    def likeness(self, features: Array) -> Array:
        """Return how much images [N, F] are like each class's centre, [N, C]: 1 if they are the same."""
        return self.placed(features) @ self.centres.T

    def placed(self, features: Array) -> Array:
        """Return where images [N, F] are, [N, F] of unit length."""
        return weighed(*self.damped(features))

    def damped(self, features: Array) -> tuple[Array, Array]:
        """Return shapes [N, S] and colours [N, F - S] less what photos of one product differ in."""
        shapes, colours = np.split(features - self.mean, [len(self.by_shape)], axis=1)
        return (
            _damped(shapes, self.by_shape, self.by_shape_damping),
            _damped(colours, self.by_colour, self.by_colour_damping),
        )


@dataclass(frozen=True)
class Head:
    """Everything that turns features into probabilities; what is `NARROW` is `rounded`.

    Attributes:
        classes: C names, sorted, `other` always among them.
        weights: [F, C], and bias: [C], of the dense layer.
        space: of what is typical.
        thresholds: [C] likenesses, and slopes: [C], of the guard; `other` is not guarded.
        blurriest: [1], the sharpness below which what is asked about is sharpened before it is embedded.

    """

    classes: tuple[str, ...]
    weights: Array
    bias: Array
    space: Space
    thresholds: Array
    slopes: Array
    blurriest: Array

    @property
    def other(self) -> int:
        """Index of the class of unknown things."""
        return self.classes.index(OTHER)

    @property
    def names(self) -> tuple[str, ...]:
        """The classes as they are compared: an earlier version may have learnt Other beside other."""
        return tuple(map(as_class, self.classes))

    def probabilities(self, features: Array) -> Array:
        """Return [N, C], rows summing to 1, for features [N, F] as the backbone gives them."""
        x = normalised(features - self.space.mean) * SCALE
        typical = self.space.likeness(features)
        is_product = np.arange(len(self.classes)) != self.other
        beyond = (typical - typical[:, is_product].mean(axis=1, keepdims=True)) * is_product
        p: Array = softmax(np.matmul(x, self.weights) + self.bias + LIKENESS * beyond)
        guard = np.float32(1) / (1 + np.exp(np.clip(self.slopes * (self.thresholds - typical), -60, 60)))
        guard[:, self.other] = 1
        p *= guard
        p[:, self.other] += 1 - p.sum(axis=1)
        return p

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays as files have them, by name: what is `NARROW` as counts of its `…_steps`."""
        parts = vars(self) | vars(self.space) | {"classes": np.array(self.classes)}
        arrays: dict[str, NDArray[Any]] = {name: parts[name] for name in _ARRAYS}
        for name, axis in NARROW.items():
            arrays[name], arrays[f"{name}_steps"] = in_steps(arrays[name], axis)
        return arrays

    def to_bytes(self) -> bytes:
        """Return the head as an `.npz` archive: plain arrays, no pickles."""
        target = io.BytesIO()
        np.savez(target, allow_pickle=False, **self.arrays())
        return target.getvalue()

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """Read what `to_bytes` wrote; raises Permanent if it is not that."""
        try:
            with np.load(io.BytesIO(raw), allow_pickle=False) as archive:
                parts: dict[str, Any] = {name: archive[name] for name in _ARRAYS}
                parts |= {name: parts[name] * archive[f"{name}_steps"] for name in NARROW}
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as exc:
            raise Permanent(f"the head cannot be read: {exc}") from exc
        space = Space(**{field.name: parts.pop(field.name) for field in fields(Space)})
        classes = tuple(str(name) for name in parts.pop("classes"))
        return cls(classes=classes, space=space, **parts)


_ARRAYS = [field.name for part in (Space, Head) for field in fields(part) if field.name != "space"]


def in_steps(x: Array, axis: int) -> tuple[NDArray[np.int8], Array]:
    """Count numbers in whole steps, a power of two for all along an axis; what is rounded is told exactly.

    Returns:
        -127..127 for each number, and the steps, of which the axis has one.

    """
    most = np.abs(x).max(axis=axis, keepdims=True, initial=0)
    steps = np.exp2(np.ceil(np.log2(np.maximum(most, np.float32(1e-30)) / MOST_STEPS))).astype(np.float32)
    return np.rint(x / steps).astype(np.int8), steps


def rounded(x: Array, axis: int) -> Array:
    """Round numbers to the steps that `in_steps` counts."""
    counts, steps = in_steps(x, axis)
    return counts * steps


def normalised(x: Array, least: float = 1e-12) -> Array:
    """Scale each row to length 1; one that is shorter than `least` stays as short beside it."""
    length = np.linalg.norm(x, axis=1, keepdims=True)
    return np.asarray(x / np.maximum(length, least), np.float32)


def softmax(logits: Array) -> Array:
    """Softmax of each row."""
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True), np.float32)


def _damped(centred: Array, directions: Array, damping: Array) -> Array:
    """Shrink centred features [N, F] along the directions, each by its share."""
    along = centred @ directions * damping
    return np.asarray(centred - along @ directions.T, np.float32)


def weighed(shapes: Array, colours: Array) -> Array:
    """Scale rows [N, S] and [N, F - S], each by itself, and join them: their products are weighed cosines."""
    return np.concatenate(
        [
            normalised(shapes, FAINT) * np.float32(math.sqrt(1 - COLOURS)),
            normalised(colours, FAINT) * np.float32(math.sqrt(COLOURS)),
        ],
        axis=1,
    )
