"""The gate: is a version significantly worse than its parent? Pure figures, no files.

Both answered the same images. A group of images speaks with one voice, for or against the version or not at
all, and of those that speak as many should be against it as for it, but for the margin: McNemar's test, exact
(Fagerland, Lydersen and Laake, 2013), on groups. It is asked of all images, of the reference set, and of each
class; what classes say is corrected for their number (Holm, 1979).
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import exp, lgamma, log

from training.evaluate import Answer
from training.holdout import Judged

LEVEL = 0.05
"""Level of significance: the largest share of versions, worse by just the margin, that are rejected."""
COLLAPSE = 0.5
"""Share of the images that the parent knew in a class, whose loss rejects a version, however few they are."""
COLLAPSED = 2
"""Fewest lost images of a collapse: a single one may be chance."""


@dataclass(frozen=True)
class GateResult:
    """Whether a version may go to the edge; if not, why."""

    rejected: str | None = None

    @property
    def passed(self) -> bool:
        """Whether it may."""
        return self.rejected is None


@dataclass(frozen=True)
class Pair:
    """What two versions said of one image.

    Attributes:
        truth: its class.
        group: of the image; those of two classes differ.
        before: whether the parent was right, and after: whether the version is.

    """

    truth: str
    group: int
    before: bool
    after: bool


@dataclass(frozen=True)
class Against:
    """What a version is held against: the version that serves, and its answers on the same images."""

    version: int
    answers: Sequence[Answer]


def gate(
    judged: Sequence[Judged],
    answers: Sequence[Answer],
    against: Against | None,
    *,
    margin: float,
    fault: str | None = None,
) -> GateResult:
    """Decide on a version.

    Args:
        judged: the images that it did not learn from.
        answers: its own, in the same order.
        against: the parent, and its answers in the same order; None for a first version.
        margin: by how much of accuracy it may be worse, 0..1.
        fault: fault that the smoke test found, or None.

    """
    if fault is not None:
        return GateResult(f"the smoke test failed: {fault}")
    if against is None:
        return GateResult()
    pairs = [
        (image, Pair(image.name, image.group, old.right, new.right))
        for image, new, old in zip(judged, answers, against.answers, strict=True)
        if not image.parent_learnt
    ]
    reference = [pair for image, pair in pairs if image.in_reference]
    worse = _worse([pair for _, pair in pairs], reference, margin)
    return GateResult(f"worse than version {against.version} on the same images: {worse}" if worse else None)


def _worse(pairs: Sequence[Pair], reference: Sequence[Pair], margin: float) -> str:
    """Return in what a version is worse, in words; empty if it is not."""
    for what, some in (("accuracy", pairs), ("accuracy on the reference set", reference)):
        if p_value(some, margin) < LEVEL:
            return f"{what} {_figures(some)}"
    of_class = {
        name: [pair for pair in pairs if pair.truth == name] for name in {pair.truth for pair in pairs}
    }
    ordered = sorted((p_value(some, margin), name) for name, some in of_class.items())
    lost = [
        *(name for name in sorted(of_class) if _collapsed(of_class[name])),
        # Holm's first step decides whether any is rejected.
        *(name for p, name in ordered[:1] if p * len(ordered) < LEVEL),
    ]
    return f"recall of {lost[0]} {_figures(of_class[lost[0]])}" if lost else ""


def p_value(pairs: Iterable[Pair], margin: float) -> float:
    """Return how likely so many groups speak against a version that is worse by the margin, or less.

    Of the groups that speak, those against it are then binomial; the margin is shared among them.
    """
    voices: Counter[int] = Counter()
    for pair in pairs:
        voices[pair.group] += pair.after - pair.before
    worse, better = sum(v < 0 for v in voices.values()), sum(v > 0 for v in voices.values())
    if not worse:
        return 1.0
    trials = worse + better
    share = min(0.5 + margin * len(voices) / (2 * trials), 0.999)
    return sum(_binomial(k, trials, share) for k in range(worse, trials + 1))


def _binomial(k: int, trials: int, share: float) -> float:
    ways = lgamma(trials + 1) - lgamma(k + 1) - lgamma(trials - k + 1)
    return exp(ways + k * log(share) + (trials - k) * log(1 - share))


def _collapsed(pairs: Sequence[Pair]) -> bool:
    before, after = _right(pairs)
    return before - after >= max(COLLAPSED, COLLAPSE * before)


def _right(pairs: Sequence[Pair]) -> tuple[int, int]:
    return sum(pair.before for pair in pairs), sum(pair.after for pair in pairs)


def _figures(pairs: Sequence[Pair]) -> str:
    (before, after), count = _right(pairs), len(pairs)
    groups = len({pair.group for pair in pairs})
    return f"{after / count:.4f} against {before / count:.4f}, on {count} images in {groups} groups"
