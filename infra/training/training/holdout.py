"""Which images a version is judged on: held out by group, each with the group it speaks for."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from training.dataset import Member
from training.embeddings import FEATURES
from training.groups import groups_of
from training.head import Array, Labels

SHARE = 0.2
"""Of the groups of a class are held out; which ones, their content decides."""
LEAST = 2
"""Images of a class of six or more: that one of one is lost may be chance."""
LARGE = 1 / 3
"""What has more than this share of a class is not held out whole: it may be all there is of a place."""


@dataclass(frozen=True)
class HeldOut:
    """The images that are asked, none of which was learnt from.

    Attributes:
        members: (class, SHA-256) of each.
        groups: [N], the group of each.
        features: their embeddings [N, F], float32, in the same order.
        files: where each of them is, in the same order.

    """

    members: tuple[Member, ...]
    groups: Sequence[int]
    features: Array
    files: tuple[Path, ...]

    @classmethod
    def of(
        cls,
        members: Iterable[Member],
        groups: Mapping[str, int],
        features: Mapping[str, Array],
        path: Callable[[str], Path],
    ) -> Self:
        """Gather those members that are held out and have features.

        Args:
            members: unique (class, SHA-256) pairs.
            groups: by SHA-256 of what is held out.
            features: by SHA-256, each [F].
            path: where an image is, by its SHA-256.

        """
        asked = tuple(member for member in members if member[1] in groups and member[1] in features)
        rows = [features[sha] for _, sha in asked]
        return cls(
            asked,
            tuple(groups[sha] for _, sha in asked),
            np.stack(rows) if rows else np.zeros((0, FEATURES), np.float32),
            tuple(path(sha) for _, sha in asked),
        )

    @property
    def truths(self) -> list[tuple[str, str]]:
        """(SHA-256, class) of each."""
        return [(sha, name) for name, sha in self.members]


@dataclass(frozen=True)
class Division:
    """How an edge's images are divided.

    Attributes:
        held_out: the group of each image that is held out, by SHA-256.
        groups: on how many groups each class stands.

    """

    held_out: Mapping[str, int]
    groups: Mapping[str, int]


def divide(
    members: Sequence[Member], features: Mapping[str, Array], kept: Collection[str] = frozenset()
) -> Division:
    """Divide images, (class, SHA-256) pairs that have features [F], into groups and over both sides.

    See `held_out` for `kept`.
    """
    names = [name for name, _ in members]
    groups = groups_of(names, np.stack([features[sha] for _, sha in members]))
    out = held_out(members, groups, kept)
    of_image = {sha: group for (_, sha), group in zip(members, groups.tolist(), strict=True)}
    counts = Counter(name for name, _ in set(zip(names, groups.tolist(), strict=True)))
    return Division({sha: of_image[sha] for sha in sorted(out)}, dict(sorted(counts.items())))


def held_out(
    members: Sequence[Member], groups: Labels, kept: Collection[str] = frozenset()
) -> frozenset[str]:
    """Choose the held-out images among (class, SHA-256) pairs; returns their SHA-256.

    A group is held out as a whole, or not at all, and its content alone decides; one that has more than LARGE
    of its class is split into its images. Of a class of two or more images at least one is held out, of six
    or more LEAST, and no more than LARGE of it beyond that.

    Args:
        members: unique pairs.
        groups: [N], in the same order; an image's group has images of its class alone.
        kept: SHA-256 of images that are held out in any case, such as those of the reference set. The rest of
            their groups is held out before others.

    """
    of_class: dict[str, dict[int, list[str]]] = {}
    for (name, sha), group in zip(members, groups.tolist(), strict=True):
        of_class.setdefault(name, {}).setdefault(group, []).append(sha)
    chosen = (_of_class(by_group.values(), frozenset(kept)) for by_group in of_class.values())
    return frozenset[str]().union(*chosen)


def _of_class(groups: Collection[list[str]], kept: frozenset[str]) -> set[str]:
    count = sum(map(len, groups))
    most = count * LARGE
    least = min(int(most), LEAST) or int(count > 1)
    chosen = {sha for group in groups for sha in group if sha in kept}
    # What is wanted in any case comes first, then what comes first by its content.
    units = sorted((kept.isdisjoint(unit), _position(unit), unit) for unit in _units(groups, most))
    for is_free, position, unit in units:
        more = chosen.union(unit)
        is_wanted = position < SHARE or not is_free or len(chosen) < least
        if is_wanted and len(more) <= max(most, least):
            chosen = more
    return chosen


def _units(groups: Iterable[list[str]], most: float) -> Iterator[list[str]]:
    """Yield what is held out together: groups, and the images of one that is too large."""
    for group in groups:
        if len(group) <= most:
            yield group
        else:
            yield from ([sha] for sha in group)


def _position(unit: list[str]) -> float:
    """Return where a unit is, in 0..1: by other digits than those that make an image its first."""
    return int(min(unit)[8:16], 16) / 2**32
