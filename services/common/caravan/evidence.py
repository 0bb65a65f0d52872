"""Whether a new version is worse than the one before, by what both said of the same images. Pure.

Each image is a number: 1 where the new version did worse, -1 where it did better, 0 else. A bet of size l
multiplies a capital of 1 by `1 + l(d - m)` at each. If the mean of d is at most m, no bet makes the capital
grow on average, so it ever reaches 20 in one case of 20 at most (Ville 1939), however often one looks and
whenever one stops. Bets of several sizes are averaged, as none is the best for all (Waudby-Smith and Ramdas
2024). The capital depends on the counts alone, so the evidence of several edges can be summed.

What reviewers say of an image takes the place of the guess. They say it later, and of images that they
choose: there the bound holds as long as they do not choose by which version is right.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from caravan import strict_json
from caravan.contracts import to_json
from caravan.strict_json import NotJson, faults_of

SCHEMA = 1

MARGIN = 0.01
"""Share of images, net, by which an equal version may do worse: it wavers at other images than the last."""
HARM = 0.03
"""Share of images, net, by which no version may do worse."""
ENOUGH = 20.0
"""Capital at which a bet is won."""
LEAST_ANSWERS = 30
"""Answers that a version has given before it gives all."""
MOST_SHOWN = 6
"""Images, the newest, that are named where both versions are sure and differ."""
_BETS = (0.3, 0.6, 0.9)
"""Sizes of the bets, as shares of the largest that no image can ruin."""

Outcome = Literal["stop", "promote", "wait"]
Count = Annotated[int, Field(ge=0)]
Number = Annotated[int, Field(gt=0)]
Name = Annotated[str, Field(max_length=1024)]
Score = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of a new version beside the one before. An image that both were asked counts once.

    Args:
        model: name of the model.
        version: the new version, the candidate.
        beside: the version before.
        answers: answers that the candidate gave to senders.
        errors: images at which the candidate failed, and the version before did not.
        errors_beside: the reverse.
        compared: images that both answered.
        worse: of these, where the candidate seems to be wrong, and nobody has looked.
        better: the reverse.
        candidate_right: of these, where a reviewer found the candidate right and the version before wrong.
        candidate_wrong: the reverse.

    Raises:
        ValueError: if more images were judged than compared.

    """

    model: str
    version: Number
    beside: Number
    answers: Count = 0
    errors: Count = 0
    errors_beside: Count = 0
    compared: Count = 0
    worse: Count = 0
    better: Count = 0
    candidate_right: Count = 0
    candidate_wrong: Count = 0

    def __post_init__(self) -> None:
        if self.worse + self.better + self.candidate_right + self.candidate_wrong > self.compared:
            raise ValueError("more images are judged than compared")

    @property
    def images(self) -> int:
        """Images that both versions were asked, less those at which both failed."""
        return self.compared + self.errors + self.errors_beside

    @property
    def losses(self) -> int:
        """Images at which the candidate did worse."""
        return self.worse + self.candidate_wrong + self.errors

    @property
    def gains(self) -> int:
        """Images at which the candidate did better."""
        return self.better + self.candidate_right + self.errors_beside

    def __add__(self, other: Evidence) -> Evidence:
        """Return the evidence of two edges; ValueError if they compare other versions."""
        if (self.model, self.version, self.beside) != (other.model, other.version, other.beside):
            raise ValueError("evidence of other versions cannot be added")
        theirs = other.counts
        sums: dict[str, Any] = {name: count + theirs[name] for name, count in self.counts.items()}
        return replace(self, **sums)

    @property
    def counts(self) -> dict[str, int]:
        """What was counted, by name."""
        return {name: getattr(self, name) for name in type(self).__dataclass_fields__ if name not in _NAMES}


_NAMES = frozenset({"model", "version", "beside"})


@dataclass(frozen=True, slots=True)
class Differing:
    """An image of which both versions are sure, and not of the same product.

    Args:
        id: SHA-256 of the image as it was sent, and the candidate's number; by it the hub has a picture.
        image: where the edge keeps it, `<bucket>/<key>`, until a reviewer has said what it shows.
        item: what the candidate said.
        score: its probability, 0..1.
        beside_item: what the version before said.
        beside_score: its probability, 0..1.
        reviewed: what a reviewer said, `other` for no product; empty while none has.
        edge: where that was; an edge leaves it to central.

    """

    id: Annotated[str, Field(pattern=r"^[0-9a-f]{64}-[1-9][0-9]{0,18}$")]
    image: Name
    item: Name
    score: Score
    beside_item: Name
    beside_score: Score
    reviewed: Name = ""
    edge: Name = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """What an edge tells: the evidence, what came of it for good, and images to look at, the newest first."""

    evidence: Evidence
    outcome: Outcome = "wait"
    differing: tuple[Differing, ...] = ()


_EVIDENCE = TypeAdapter(Evidence)
_DIFFERING = TypeAdapter(tuple[Differing, ...])


@dataclass(frozen=True, slots=True)
class Verdict:
    """What evidence says.

    Args:
        outcome: `stop` a version that is worse, `promote` one that is not, or `wait`.
        against: capital of the bets that the candidate is worse by more than `MARGIN`.
        in_favour: capital of the bets that it is worse by less than `HARM`.
        says: why, a sentence.

    """

    outcome: Outcome
    against: float
    in_favour: float
    says: str


def verdict(evidence: Evidence) -> Verdict:
    """Return what evidence says. It may be asked after every image; the first answer but `wait` counts."""
    plus, minus, images = evidence.losses, evidence.gains, evidence.images
    against = _capital(plus, minus, images, MARGIN)
    in_favour = _capital(minus, plus, images, -HARM)
    outcome: Outcome = "wait"
    if against >= ENOUGH:
        outcome = "stop"
    elif in_favour >= ENOUGH and evidence.answers >= LEAST_ANSWERS:
        outcome = "promote"
    return Verdict(outcome, against, in_favour, _sentence(evidence, outcome))


def total(several: Iterable[Evidence]) -> Evidence:
    """Return the evidence of all edges; ValueError for none, or if they compare other versions."""
    first, *rest = several
    for each in rest:
        first += each
    return first


def write(finding: Finding, at: str) -> bytes:
    """Return a finding as JSON, with the time (ISO 8601) at which it is told."""
    members: dict[str, Any] = asdict(finding)
    return to_json({"schema": SCHEMA, "at": at, **members.pop("evidence"), **members})


def read(raw: bytes) -> Finding:
    """Return the finding in JSON; members that are not known are passed over.

    Raises:
        NotJson: if it is no evidence; the message says why, and quotes nothing.

    """
    members = strict_json.loads_object(raw)
    if members.get("schema") != SCHEMA:
        raise NotJson("its schema is not known")
    try:
        found = _EVIDENCE.validate_json(raw, strict=True)
        differing = _DIFFERING.validate_python(members.get("differing", ()))
    except ValidationError as exc:
        raise NotJson(faults_of(exc)) from exc
    outcome: Outcome = "wait"
    if (told := members.get("outcome")) in {"stop", "promote"}:
        outcome = told
    return Finding(found, outcome, differing[:MOST_SHOWN])


def _capital(plus: int, minus: int, images: int, mean: float) -> float:
    """Return what bets on a mean above `mean` have made of 1; infinite beyond what a double holds."""
    largest = 1 / (1 + mean)
    logs = [
        plus * math.log1p(size * (1 - mean))
        + minus * math.log1p(size * (-1 - mean))
        + (images - plus - minus) * math.log1p(-size * mean)
        for size in (share * largest for share in _BETS)
    ]
    most = max(logs)
    if most > 700:  # noqa: PLR2004 - of exp
        return math.inf
    return math.exp(most) * sum(math.exp(each - most) for each in logs) / len(logs)


def _sentence(evidence: Evidence, outcome: Outcome) -> str:
    words = {
        "stop": "is worse than",
        "promote": f"is not worse by {HARM:.0%} than",
        "wait": "is not yet told from",
    }
    return (
        f"version {evidence.version} {words[outcome]} version {evidence.beside}: it did worse at "
        f"{evidence.losses} and better at {evidence.gains} of {evidence.images} images, failed at "
        f"{evidence.errors}, and gave {evidence.answers} answers"
    )
