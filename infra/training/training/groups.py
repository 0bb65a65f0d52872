"""Groups of images that do not speak for themselves: near-copies, such as a burst of one scene, and moments.

What is learnt from one of a group answers the others, so a group is held out, or left out, as a whole.
"""

from collections.abc import Hashable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from caravan.moments import MOMENT_SECONDS
from training.head import Array, Labels, normalised

ALIKE = 0.7
"""From this likeness on, two images of a class are near-copies: on photos, views of one side of a package in
one place. Of pairs of photos of different products one in a hundred is more than 0.3 alike."""
LEAF = 512
"""Images that are compared with one another; a larger class is cut into such leaves, TREES times."""
TREES = 8


def moments_of(names: Sequence[Hashable], groups: Labels, taken: NDArray[np.float64]) -> Labels:
    """Return larger groups, [N]: those of which images of one class were taken in one moment are one.

    Args:
        names: the class of each image; where there are several edges, with its edge: they share no moment.
        groups: [N], as `groups_of` returns them.
        taken: [N] seconds, when each was taken; NaN where nobody knows.

    """
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    y = np.array([numbers[name] for name in names], np.intp)
    order = np.lexsort((taken, y))
    one, next_ = order[:-1], order[1:]
    follows = (y[one] == y[next_]) & (taken[next_] - taken[one] <= MOMENT_SECONDS)  # Not where one is NaN.
    joined = _joined(
        int(groups.max(initial=-1)) + 1, np.stack([groups[one[follows]], groups[next_[follows]]])
    )
    return np.unique(joined[groups], return_inverse=True)[1].astype(np.intp)


def groups_of(names: Sequence[str], features: Array) -> Labels:
    """Return the group of each image, [N] numbers from 0 on, given its class and its features [N, F].

    Two images of a class are in one group if they are alike, or if a chain of images that are alike joins
    them. Likeness is their inner product over their mean square, once what all classes have in common (the
    mean of their means) is taken away: 1 for copies, near 0 for images that share their class at most.
    Within a class of more than LEAF images those are compared that fall into one leaf of a tree of random
    directions (Dasgupta and Freund, 2008): near-copies do in one of TREES, and the cost is linear.
    The same input gives the same groups.
    """
    classes, y = np.unique(np.asarray(names, np.str_), return_inverse=True)
    x = normalised(np.asarray(features, np.float32))
    if len(classes) > 1:  # Of one class alone nobody knows what is common.
        x -= np.mean([x[y == label].mean(axis=0) for label in range(len(classes))], axis=0)
    ends: list[Labels] = [np.zeros((2, 0), np.intp)]
    for label in range(len(classes)):
        (members,) = np.nonzero(y == label)
        ends += [members[pair] for pair in _alike(x[members])]
    joined = _joined(len(y), np.concatenate(ends, axis=1))
    return np.unique(joined, return_inverse=True)[1].astype(np.intp)


def _alike(x: Array) -> Iterator[Labels]:
    """Yield pairs, [2, P], that join what is alike among the images of a class, [M, F]."""
    squares = np.einsum("mf,mf->m", x, x)
    for leaf in _leaves(x):
        rows, size = x[leaf], squares[leaf]
        near = 2 * (rows @ rows.T) >= ALIKE * (size[:, None] + size) - 1e-6
        firsts = np.stack([np.arange(len(leaf)), near.argmax(axis=1)])
        lowest = _joined(len(leaf), firsts)
        near &= lowest[:, None] != lowest  # Of a dense group few pairs are left.
        yield leaf[np.concatenate([firsts, np.nonzero(near)], axis=1)]


def _leaves(x: Array) -> Iterator[Labels]:
    """Yield the leaves of the trees, as numbers of images: halves of halves along random directions."""
    count = len(x)
    depth = max(count - 1, 0) // LEAF
    levels = depth.bit_length()
    if not levels:
        yield np.arange(count)
        return
    for tree in range(TREES):
        rng = np.random.default_rng(tree)
        along = x @ rng.standard_normal((x.shape[1], levels), np.float32)
        # Copies, which no direction parts, are dealt anew for each tree.
        parts = [rng.permutation(count)]
        for level in range(levels):
            ordered = [part[np.argsort(along[part, level], kind="stable")] for part in parts]
            parts = [half for part in ordered for half in np.array_split(part, 2)]
        yield from parts


def _joined(count: int, pairs: Labels) -> Labels:
    """Return for each of `count` nodes the lowest that a chain of pairs, [2, P], joins it to."""
    lowest = np.arange(count)
    while True:
        one, other = lowest[pairs[0]], lowest[pairs[1]]
        if np.array_equal(one, other):
            return lowest
        np.minimum.at(lowest, np.maximum(one, other), np.minimum(one, other))
        while not np.array_equal(lowest, lowest[lowest]):
            lowest = lowest[lowest]
