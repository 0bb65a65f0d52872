"""What a head learns from, as arrays: images and their views, dealt over folds by their groups."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.dataset import Member
from training.embeddings import SHAPES, Embedded
from training.groups import groups_of
from training.head import Array, Labels
from training.views import is_turned

FOLDS = 5
MOST_COMPARED = 256
"""Most images from which the direction of a group's largest variation is computed."""


@dataclass(frozen=True)
class Samples:
    """N images of an edge and V views of them.

    Attributes:
        names: class of each image.
        features: [N, F].
        views: [V, F], features of views.
        image: [V], of which image each view is.
        turned: [V], whether the view may be turned or mirrored.
        shapes: number of features of shape, which come first; features of colour follow.
        blurriest: the least sharpness of images that are learnt, or judged by; 0 if it is not known.

    """

    names: Sequence[str]
    features: Array
    views: Array
    image: Labels
    turned: NDArray[np.bool_]
    shapes: int
    blurriest: float = 0.0

    @classmethod
    def plain(cls, features: Array, names: Sequence[str], shapes: int | None = None) -> "Samples":
        """Return images without views; unless it is said, all their features tell shapes."""
        shapes = features.shape[1] if shapes is None else shapes
        return cls(names, features, features[:0], np.zeros(0, np.intp), np.zeros(0, np.bool_), shapes)


@dataclass(frozen=True)
class Rows:
    """What is learnt from, N images and views.

    Attributes:
        x: [N, F], features.
        y: [N], numbers of classes.
        folds: [N], which are left out together.
        is_view: [N], of views.
        shapes: number of features of shape, which come first; features of colour follow.

    """

    x: Array
    y: Labels
    folds: Labels
    is_view: NDArray[np.bool_]
    shapes: int

    def only(self, some: NDArray[np.bool_]) -> "Rows":
        """Return some of them."""
        return Rows(self.x[some], self.y[some], self.folds[some], self.is_view[some], self.shapes)


def gather(members: Sequence[Member], embedded: Embedded) -> Samples:
    """Put embeddings of members, and of whatever views there are of them, into arrays.

    How blurred an image may be is told by all that are embedded: a version is judged by some of them as they
    are, so it is to be asked about them as they are.
    """
    place = {sha: number for number, (_, sha) in enumerate(members)}
    keys = sorted(key for key in embedded.views if key[0] in place)
    features = np.stack([embedded.features[sha] for _, sha in members])
    return Samples(
        [name for name, _ in members],
        features,
        np.stack([embedded.views[key] for key in keys]) if keys else features[:0],
        np.array([place[sha] for sha, _ in keys], np.intp),
        np.array([is_turned(view) for _, view in keys], np.bool_),
        SHAPES,
        min(embedded.sharpness.values()),
    )


def folds_of(samples: Samples, seed: int) -> Labels:
    """Deal each class's images over FOLDS piles, [N] numbers, each group as a whole.

    Photos come in bursts, and near-copies on both sides of a split flatter what learnt from them. A group
    that is larger than a pile is parted where its images differ most.
    """
    names = np.asarray(samples.names)
    groups = groups_of(samples.names, samples.features)
    folds = np.zeros(len(names), np.intp)
    rng = np.random.default_rng(seed)
    for name in np.unique(names):
        (members,) = np.nonzero(names == name)
        parts = [members[groups[members] == group] for group in np.unique(groups[members])]
        while len(largest := max(parts, key=len)) > math.ceil(len(members) / FOLDS):
            parts = [part for part in parts if part is not largest]
            parts += _halves(largest, samples.features)
        piles = np.zeros(FOLDS, np.intp)
        dealt = [parts[place] for place in rng.permutation(len(parts))]
        for part in sorted(dealt, key=len, reverse=True):
            # Pile 0 comes last: it is left out while steps are counted, and a lone image must not be.
            pile = FOLDS - 1 - int(piles[::-1].argmin())
            piles[pile] += len(part)
            folds[part] = pile
    return folds


def _halves(part: Labels, features: Array) -> list[Labels]:
    """Part images, given as places in features [N, F], along the direction in which they differ most."""
    centred = features[part] - features[part].mean(axis=0)
    some = centred[:: max(1, len(part) // MOST_COMPARED)]
    along = centred @ np.linalg.svd(some, full_matrices=False)[2][0]
    return np.array_split(part[np.argsort(along, kind="stable")], 2)
