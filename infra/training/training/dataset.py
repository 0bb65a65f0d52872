"""What a version is trained on: pure, from (key, SHA-256) pairs to classes, held-out images and a digest."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from caravan.errors import Permanent

Member = tuple[str, str]
"""Class and SHA-256 of an image."""

MOST = 5000
"""Images that are learnt from and judged on, of all classes together: beyond that a retraining costs the
same, and a layer on features that are given learns little from more."""
FEW = 50
"""Images that each class may have in any case, even beyond MOST."""


@dataclass(frozen=True)
class Dataset:
    """The images of an edge, or of the edges of a group.

    Attributes:
        members: unique (class, SHA-256) pairs, sorted; an image under two names in a class counts once.
        ignored: objects that are no images of a class, or too large to be one.
        quarantined: images that are not among the members, because they wait for a person.
        others: images that are not, because their products are those of other edges.
        taken: seconds of a camera's clock, when an image was taken, by SHA-256, where that is known.
        edges: which edge has an image, the first that has it, by SHA-256; empty where there is one edge.

    """

    members: tuple[Member, ...]
    ignored: int = 0
    quarantined: int = 0
    others: int = 0
    taken: Mapping[str, float] = field(default_factory=dict, compare=False)
    edges: Mapping[str, str] = field(default_factory=dict, compare=False)

    @classmethod
    def of(cls, images: Iterable[Member], ignored: int = 0) -> Self:
        """Gather the images, dropping copies within a class."""
        return cls(tuple(sorted(set(images))), ignored)

    def without(self, quarantined: Iterable[Member]) -> Self:
        """Return what is left without some images."""
        out = set(quarantined)
        left = tuple(member for member in self.members if member not in out)
        more = len(self.members) - len(left)
        return replace(self, members=left, quarantined=self.quarantined + more) if more else self

    @property
    def digest(self) -> str:
        """SHA-256 over the sorted pairs: the same images, whatever their names, are the same data."""
        lines = "".join(f"{name}\0{sha}\n" for name, sha in self.members)
        return hashlib.sha256(lines.encode()).hexdigest()

    @property
    def contradictory(self) -> frozenset[str]:
        """SHA-256 of images that are in more than one class: no answer to them is right, so none trains."""
        counts = Counter(sha for _, sha in self.members)
        return frozenset(sha for sha, count in counts.items() if count > 1)

    @property
    def sample(self) -> frozenset[Member]:
        """Members, MOST at most, that are in no other class: of large classes as many of each.

        Which ones, their content decides, so with more images most of the sample stays.
        """
        out = self.contradictory
        of_class: dict[str, list[str]] = {}
        for name, sha in self.members:
            if sha not in out:
                of_class.setdefault(name, []).append(sha)
        share, left = FEW, MOST
        for number, size in enumerate(sorted(map(len, of_class.values()))):
            share = max(FEW, left // (len(of_class) - number))
            left -= min(size, share)
        return frozenset(
            (name, sha)
            for name, images in of_class.items()
            # Other digits than those that say what is held out.
            for sha in sorted(images, key=lambda sha: sha[16:])[:share]
        )

    @property
    def beyond(self) -> int:
        """How many images are left out of the sample because there are so many."""
        contradictory = self.contradictory
        return sum(sha not in contradictory for _, sha in self.members) - len(self.sample)

    def usable(self, unreadable: Iterable[str] = ()) -> tuple[Member, ...]:
        """Return the members of the sample that can be learned from.

        Raises:
            Permanent: if they are of fewer than two classes; the message is for the people who send images.

        """
        out, sample = frozenset(unreadable), self.sample
        members = tuple(member for member in self.members if member in sample and member[1] not in out)
        classes = sorted({name for name, _ in members})
        if not classes:
            raise Permanent("there are no images to train on: upload some under images/<class>/")
        if len(classes) == 1:
            raise Permanent(
                f"there is only one class, {classes[0]!r}: a model needs two to tell apart, such as 'other'"
            )
        return members

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` reads."""
        return {
            "digest": self.digest,
            "members": [list(m) for m in self.members],
            "ignored": self.ignored,
            "quarantined": self.quarantined,
            "others": self.others,
            "taken": dict(self.taken),
            "edges": dict(self.edges),
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Self:
        """Read `dataset.json`; raises Permanent if its digest does not fit its members."""
        members = ((str(n), str(s)) for n, s in body["members"])
        dataset = replace(
            cls.of(members, int(body["ignored"])),
            quarantined=int(body["quarantined"]),
            others=int(body["others"]),
            taken={str(sha): float(at) for sha, at in body["taken"].items()},
            edges={str(sha): str(edge) for sha, edge in body["edges"].items()},
        )
        if dataset.digest != body["digest"]:
            raise Permanent("dataset.json was changed: run acquire again")
        return dataset
