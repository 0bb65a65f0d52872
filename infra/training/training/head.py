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
from dataclasses import dataclass, fields
from typing import Any, Self
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from caravan.contracts import OTHER
from caravan.errors import Permanent

Array = NDArray[np.float32]
Labels = NDArray[np.intp]

SCALE = np.float32(5)
"""Length of a normalised embedding at the dense layer."""
LIKENESS = np.float32(10)
"""What a product's likeness beyond that of all products adds to its logit: the layer alone goes by the place,
where that tells apart what it learns from."""
COLOURS = 0.3
"""What colours count, of 1, in how typical an image is; shapes count the rest."""
FAINT = 1e-3
"""A difference from the mean of less length is rounding, as colours of drawings in grey have it: it tells
nothing."""


@dataclass(frozen=True)
class Space:
    """Where images are by what is typical of products.

    Attributes:
        mean: [F], of the training features.
        directions: [F, M] orthonormal, and damping: [M] in 0..1: what of each is taken away.
        centres: [C, F], of each class; zeros for one without images.
        shapes: of the F features, how many tell shapes; those after them tell colours.

    """

    mean: Array
    directions: Array
    damping: Array
    centres: Array
    shapes: int

    def likeness(self, features: Array) -> Array:
        """Return how much images [N, F] are like each class's centre, [N, C]: 1 if they are the same."""
        return self.placed(features) @ self.centres.T

    def placed(self, features: Array) -> Array:
        """Return where images [N, F] are, [N, F] of unit length."""
        return weighed(damped(features - self.mean, self.directions, self.damping), self.shapes)


@dataclass(frozen=True)
class Head:
    """Everything that turns features into probabilities.

    Attributes:
        classes: C names, sorted, `other` always among them.
        weights: [F, C], and bias: [C], of the dense layer.
        space: of what is typical.
        thresholds: [C] likenesses, and slopes: [C], of the guard; `other` is not guarded.

    """

    classes: tuple[str, ...]
    weights: Array
    bias: Array
    space: Space
    thresholds: Array
    slopes: Array

    @property
    def other(self) -> int:
        """Index of the class of unknown things."""
        return self.classes.index(OTHER)

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

    def to_bytes(self) -> bytes:
        """Return the head as an `.npz` archive: plain arrays, no pickles."""
        target = io.BytesIO()
        arrays: dict[str, Any] = vars(self) | vars(self.space) | {"classes": np.array(self.classes)}
        np.savez(target, allow_pickle=False, **{name: arrays[name] for name in _ARRAYS})
        return target.getvalue()

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """Read what `to_bytes` wrote; raises Permanent if it is not that."""
        try:
            with np.load(io.BytesIO(raw), allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in _ARRAYS}
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as exc:
            raise Permanent(f"the head cannot be read: {exc}") from exc
        parts: dict[str, Any] = arrays | {"shapes": int(arrays["shapes"])}
        space = Space(**{field.name: parts.pop(field.name) for field in fields(Space)})
        classes = tuple(str(name) for name in parts.pop("classes"))
        return cls(classes=classes, space=space, **parts)


_ARRAYS = [field.name for part in (Space, Head) for field in fields(part) if field.name != "space"]


def normalised(x: Array, least: float = 1e-12) -> Array:
    """Scale each row to length 1; one that is shorter than `least` stays as short beside it."""
    length = np.linalg.norm(x, axis=1, keepdims=True)
    return np.asarray(x / np.maximum(length, least), np.float32)


def softmax(logits: Array) -> Array:
    """Softmax of each row."""
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True), np.float32)


def damped(centred: Array, directions: Array, damping: Array) -> Array:
    """Shrink centred features [N, F] along the directions, each by its share."""
    along = centred @ directions * damping
    return np.asarray(centred - along @ directions.T, np.float32)


def weighed(space: Array, shapes: int) -> Array:
    """Scale shapes and colours of each row, each by itself, so that products of rows are weighed cosines.

    Args:
        space: [N, F].
        shapes: of the F features, how many tell shapes; those after them tell colours.

    """
    return np.concatenate(
        [
            normalised(space[:, :shapes], FAINT) * np.float32(math.sqrt(1 - COLOURS)),
            normalised(space[:, shapes:], FAINT) * np.float32(math.sqrt(COLOURS)),
        ],
        axis=1,
    )
