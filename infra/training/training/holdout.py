"""Which images a version is judged on: held out by group, each with the group it speaks for."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from training.dataset import Member
from training.embeddings import FEATURES, Embedded
from training.groups import groups_of, moments_of
from training.head import Array, Labels

SHARE = 0.2
"""Share of a class's groups that are held out, chosen by their content."""
LEAST = 2
"""Fewest held-out images of a class of six or more: the loss of a single one may be chance."""
LARGE = 1 / 3
"""Largest share of a class that is held out as one group: a larger one may be all there is of a place."""


@dataclass(frozen=True)
class Judged:
    """An image that versions are judged on.

    Attributes:
        name: its class.
        sha256: of its content.
        group: its group.
        in_reference: whether it is of the reference set.
        parent_learnt: whether the parent may have learnt from it, so that its answer says nothing.

    """

    name: str
    sha256: str
    group: int
    in_reference: bool = False
    parent_learnt: bool = False


@dataclass(frozen=True)
class HeldOut:
    """The images that are asked, none of which was learnt from.

    Attributes:
        judged: N images.
        features: their embeddings [N, F], float32, in the same order.
        files: file of each image, in the same order.
        sharpness: of each image, likewise; empty where it is not known.

    """

    judged: tuple[Judged, ...]
    features: Array
    files: tuple[Path, ...]
    sharpness: tuple[float, ...] = ()

    @classmethod
    def of(cls, judged: Iterable[Judged], embedded: Embedded, path: Callable[[str], Path]) -> Self:
        """Gather those images that are embedded; `path` tells where an image is, by its SHA-256."""
        asked = tuple(image for image in judged if image.sha256 in embedded.features)
        rows = [embedded.features[image.sha256] for image in asked]
        return cls(
            asked,
            np.stack(rows) if rows else np.zeros((0, FEATURES), np.float32),
            tuple(path(image.sha256) for image in asked),
            tuple(embedded.sharpness[image.sha256] for image in asked),
        )

    @property
    def members(self) -> list[Member]:
        """(class, SHA-256) of each."""
        return [(image.name, image.sha256) for image in self.judged]

    @property
    def truths(self) -> list[tuple[str, str]]:
        """(SHA-256, class) of each."""
        return [(image.sha256, image.name) for image in self.judged]


@dataclass(frozen=True)
class Division:
    """How an edge's images are divided.

    Attributes:
        learned: images to learn from.
        held_out: images to judge by.
        groups: on how many groups each class stands, where those of one moment count as one.

    """

    learned: tuple[Member, ...]
    held_out: tuple[Judged, ...]
    groups: Mapping[str, int]


def divide(
    members: Iterable[Member],
    features: Mapping[str, Array],
    reference: Mapping[str, str] | None = None,
    learnt: Collection[str] | None = frozenset(),
    taken: Mapping[str, float] | None = None,
    *,
    edges: Mapping[str, str] | None = None,
) -> Division:
    """Divide images that have features, [F] by SHA-256, over both sides, by groups.

    Args:
        members: unique (class, SHA-256) pairs; those without features are left out.
        features: embeddings of these, and of the reference set's images.
        reference: the class of images that are held out in any case, by SHA-256, whatever `members` says.
        learnt: SHA-256 of what the parent learnt from; None if it does not say so.
        taken: when an image was taken, in seconds, by SHA-256, where that is known.
        edges: where, by SHA-256, if there is more than one edge.

    """
    kept = {} if reference is None else reference
    labels = {sha: name for name, sha in members if sha in features}
    labels |= {sha: name for sha, name in kept.items() if sha in features}
    every = sorted((name, sha) for sha, name in labels.items())
    names, times, places = [name for name, _ in every], taken or {}, edges or {}
    groups = groups_of(names, np.stack([features[sha] for _, sha in every]))
    seen = [(name, places.get(sha, "")) for name, sha in every]
    moments = moments_of(seen, groups, np.array([times.get(sha, np.nan) for _, sha in every]))
    out = held_out(every, groups, kept, learnt or ())
    is_learnt = _was_learnt if learnt is None else learnt.__contains__
    judged = [
        Judged(name, sha, group, sha in kept, is_learnt(sha))
        for (name, sha), group in zip(every, groups.tolist(), strict=True)
        if sha in out
    ]
    pairs = set(zip(names, moments.tolist(), strict=True))
    return Division(
        tuple(member for member in every if member[1] not in out),
        tuple(judged),
        dict(sorted(Counter(name for name, _ in pairs).items())),
    )


def held_out(
    members: Sequence[Member],
    groups: Labels,
    kept: Collection[str] = frozenset(),
    learnt: Collection[str] = frozenset(),
) -> frozenset[str]:
    """Choose the held-out images among (class, SHA-256) pairs; returns their SHA-256.

    A group is held out as a whole, or not at all, and its content decides; one that has more than LARGE of
    its class is split into its images. What the parent learnt from is learnt from again, and its group with
    it, so that a group which grows, or joins another, is not forgotten. Of a class of two or more images at
    least one is held out, of six or more LEAST, and no more than LARGE of it beyond that.

    Args:
        members: unique pairs.
        groups: [N], in the same order; an image's group has images of its class alone.
        kept: SHA-256 of images that are held out in any case, such as those of the reference set, and the
            rest of their groups with them, if the parent learnt from none of it.
        learnt: SHA-256 of what the parent learnt from.

    """
    of_class: dict[str, dict[int, list[str]]] = {}
    for (name, sha), group in zip(members, groups.tolist(), strict=True):
        of_class.setdefault(name, {}).setdefault(group, []).append(sha)
    sides = frozenset(kept), frozenset(learnt)
    return frozenset[str]().union(*(_of_class(by_group.values(), *sides) for by_group in of_class.values()))


def _of_class(groups: Collection[list[str]], kept: frozenset[str], learnt: frozenset[str]) -> set[str]:
    count = sum(map(len, groups))
    most = count * LARGE
    least = min(int(most), LEAST) or int(count > 1)
    chosen = {sha for group in groups for sha in group if sha in kept}

    def order(unit: list[str]) -> tuple[bool, bool, float]:
        return not learnt.isdisjoint(unit), kept.isdisjoint(unit), _position(unit)

    for unit in sorted(_units(groups, most), key=order):
        is_learnt, is_free, position = order(unit)
        more = chosen.union(unit)
        is_wanted = not is_learnt and (position < SHARE or not is_free)
        if (is_wanted or len(chosen) < least) and len(more) <= max(most, least):
            chosen = more
    return chosen


def _units(groups: Iterable[list[str]], most: float) -> Iterator[list[str]]:
    """Yield what is held out together: groups, and the images of one that is too large."""
    for group in groups:
        if len(group) <= most:
            yield group
        else:
            yield from ([sha] for sha in group)


def _was_learnt(sha256: str) -> bool:
    """Tell whether a version learnt from an image, if it did from its class: before versions noted that.

    They held out by other digits than now, so most of what is held out now they know by heart.
    """
    return int(sha256[:8], 16) / 2**32 >= SHARE


def _position(unit: list[str]) -> float:
    """Return where a unit is, in 0..1: by other digits than those that make an image its first."""
    return int(min(unit)[8:16], 16) / 2**32
