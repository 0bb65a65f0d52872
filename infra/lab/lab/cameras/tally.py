"""What a camera was answered, and how that compares with what the hub counted for it. Pure."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field

MOST_TIMES = 100_000
"""Latencies kept of a camera; the oldest give way."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the shopper said of an image: the model's own first choice, and its probability."""

    label: str
    score: float


@dataclass(slots=True)
class Tally:
    """One camera. Every image sent ends as answered, refused or unknown.

    Args:
        threshold: from which score on an answer is certain; the shopper's `CERTAIN_SCORE`.

    """

    threshold: float
    sent: int = 0
    answered: int = 0
    refused: int = 0
    """The shopper, or the way to it, said no: it was not counted anywhere."""
    unknown: int = 0
    """Sent without an answer: it may have been counted, or not."""
    retried: int = 0
    labelled: int = 0
    """Answered, and the data set tells the class."""
    right: int = 0
    """Answered with just that class."""
    certain: Counter[str] = field(default_factory=Counter)
    uncertain: Counter[str] = field(default_factory=Counter)
    seconds: deque[float] = field(default_factory=lambda: deque(maxlen=MOST_TIMES))
    first_error: str = ""

    def take(self, answer: Answer, truth: str = "", seconds: float | None = None) -> None:
        """Note an answer; `seconds` is how long it took, `truth` the class of the image where it is known."""
        self.answered += 1
        self.labelled += bool(truth)
        self.right += bool(truth) and answer.label == truth
        counts = self.certain if answer.score >= self.threshold else self.uncertain
        counts[answer.label] += 1
        if seconds is not None:
            self.seconds.append(seconds)

    def take_late(self, answer: Answer) -> None:
        """Note an answer that came after its image had been given up."""
        self.unknown -= 1
        self.take(answer)

    def fail(self, error: str, *, unknown: bool) -> None:
        """Note an image without an answer."""
        self.first_error = self.first_error or error
        if unknown:
            self.unknown += 1
        else:
            self.refused += 1


def percentile(seconds: list[float], percent: int) -> float:
    """Return the nearest-rank percentile of times that are sorted; 0 of none."""
    return seconds[min(len(seconds) - 1, len(seconds) * percent // 100)] if seconds else 0.0


@dataclass(frozen=True, slots=True)
class Counted:
    """What the hub counted for a camera, images by class."""

    certain: Mapping[str, int] = field(default_factory=dict)
    uncertain: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Comparison:
    """A camera's answers against the hub's counts.

    `missing` images were answered and are not at the hub, `surplus` are at the hub and were not answered;
    each by kind and class. `unknown` images were sent and not answered: so many may be in surplus.
    """

    missing: Mapping[tuple[str, str], int]
    surplus: Mapping[tuple[str, str], int]
    unknown: int = 0

    @property
    def equal(self) -> bool:
        """Whether nothing was lost, and nothing counted twice."""
        return not self.missing and sum(self.surplus.values()) <= self.unknown

    def __str__(self) -> str:
        parts = [
            f"{n} {kind} {label} {what}"
            for what, differences in (("missing", self.missing), ("too many", self.surplus))
            for (kind, label), n in sorted(differences.items())
        ]
        return ", ".join(parts) or "equal"


def compare(tally: Tally, counted: Counted) -> Comparison:
    """Compare class by class, certain and uncertain apart."""
    kinds = {"certain": (tally.certain, counted.certain), "uncertain": (tally.uncertain, counted.uncertain)}
    sent = Counter({(kind, name): n for kind, (ours, _) in kinds.items() for name, n in ours.items()})
    seen = Counter({(kind, name): n for kind, (_, theirs) in kinds.items() for name, n in theirs.items()})
    return Comparison(sent - seen, seen - sent, tally.unknown)
