"""Does the version that serves contradict a new batch? Then its labels are likely wrong, and a person looks.

A version is often unsure of photos of a new place, or takes them for `other`, and errs on some: that is what
they are sent for. Of a batch with wrong labels it is sure, of nearly all of it, and of one and the same other
product: these are photos as it knows them.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from caravan.contracts import OTHER
from training.dataset import Member
from training.head import Array

SURE = 0.95
"""Least probability of a sure answer."""
MOST_OF = 0.6
"""The share of a batch's photos of a class that must be contradicted surely. Of photos of packages with wrong
labels 0.68 and more were, of photos of a new place 0.4 and less."""
Batch = tuple[str, str]
"""The edge that has a batch, and its id."""
FEWEST = 5
"""Fewest contradicted photos of a quarantine: gate and reference set bear the harm of fewer."""


@dataclass(frozen=True)
class Contradiction:
    """Photos of one batch and one class that the version takes for another product.

    Attributes:
        batch: the edge that has it, and its id.
        label: the class that they have.
        answer: the product that the version surely takes them for.
        sure: number of photos that it surely takes for it.
        members: all new ones of this class in the batch.

    """

    batch: Batch
    label: str
    answer: str
    sure: int
    members: tuple[Member, ...]

    @property
    def reason(self) -> str:
        """Why they are not learnt from, in words."""
        return (
            f"{self.sure} of {len(self.members)} photos labelled {self.label} "
            f"are surely {self.answer} for the version that serves"
        )


def contradictions(
    members: Sequence[Member], batches: Sequence[Batch], answers: Sequence[str | None]
) -> list[Contradiction]:
    """Return what a version contradicts of new images.

    Args:
        members: (class, SHA-256) of N images.
        batches: [N], the batch of each.
        answers: [N], as `sure_answers` returns them.

    """
    of_batch: dict[tuple[Batch, str], list[int]] = {}
    for place, ((label, _), batch) in enumerate(zip(members, batches, strict=True)):
        of_batch.setdefault((batch, label), []).append(place)
    found = []
    for (batch, label), rows in sorted(of_batch.items()):
        others = Counter(answer for i in rows if (answer := answers[i]) is not None)
        for answer, sure in others.most_common(1):
            if sure >= max(FEWEST, MOST_OF * len(rows)):
                found.append(Contradiction(batch, label, answer, sure, tuple(members[i] for i in rows)))
    return found


def sure_answers(members: Sequence[Member], probabilities: Array, classes: Sequence[str]) -> list[str | None]:
    """Return for each image the product that a version surely takes it for against its label, or None.

    Args:
        members: (class, SHA-256) of N images.
        probabilities: [N, C] of the version.
        classes: its C classes; of a label that it does not know, it has nothing to say.

    """
    likeliest = [classes[k] for k in probabilities.argmax(axis=1).tolist()]
    is_sure = (probabilities.max(axis=1) >= SURE).tolist()
    return [
        answer if sure and label in classes and answer not in {label, OTHER} else None
        for (label, _), answer, sure in zip(members, likeliest, is_sure, strict=True)
    ]


def doubtful(members: Sequence[Member], answers: Sequence[str | None]) -> frozenset[str]:
    """Return the labels of which so many images are contradicted that a batch may be."""
    counts = Counter(label for (label, _), answer in zip(members, answers, strict=True) if answer is not None)
    return frozenset(label for label, count in counts.items() if count >= FEWEST)
