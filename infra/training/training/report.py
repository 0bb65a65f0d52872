"""The report beside a version: one page that needs nothing else, readable on a phone, light or dark.

Its text and form are `pages/report.html.j2`. Images are shrunk and inside the page; of each sort at most so
many are shown, so that its size is bounded.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from caravan.files import write_file
from training import charts
from training.dataset import Member
from training.evaluate import Answer, Evaluation
from training.gate import GateResult
from training.layer import Curves
from training.templates import render
from training.thumbnails import data_url

PAGE = "index.html"
MOST_MISTAKES = 60
"""Most misclassified images on the page, which says how many more there are."""
MOST_CHANGED = 24
"""Most images that are newly right, and as many newly wrong, against the parent."""
PICTURE_SIDE = 160
"""Pixels per side of a picture."""
SAMPLES = 4
MOST_SAMPLED = 30
"""Most classes with sample pictures."""
SAMPLE_SIDE = 80
MOST_CLASSES = 100
"""Most classes with a line of their own, those with the lowest F1."""


@dataclass(frozen=True)
class Facts:
    """What the page tells beside the figures: where the version comes from, and the verdict.

    Attributes:
        parent: the version that served when this one was made; None for the first.
        learned: images that it learned from, by class.
        groups: on how many groups each class stands.
        left_aside: number of images left out, by reason.
        not_compared: why there is no comparison though there is a version before; empty otherwise.

    """

    edge: str
    model: str
    digest: str
    parent: int | None
    learned: Mapping[str, int]
    groups: Mapping[str, int]
    left_aside: Mapping[str, int]
    seed: int
    backbone: str
    verdict: GateResult
    not_compared: str = ""


@dataclass(frozen=True)
class Material:
    """All that a report is made of.

    Attributes:
        evaluation: the version's figures on the held-out images.
        before: the parent's on the same; None if there is none, or it cannot answer.
        members: (class, SHA-256) of every image, held out or not.
        images: the file of each of them, by SHA-256.

    """

    evaluation: Evaluation
    before: Evaluation | None
    curves: Curves
    facts: Facts
    members: Sequence[Member]
    images: Mapping[str, Path]


def write_report(directory: Path, material: Material) -> None:
    """Write the page, `index.html`."""
    write_file(directory / PAGE, page(material).encode(), durable=False)


def page(material: Material) -> str:
    """Return the page: HTML, at most some two megabytes."""
    evaluation, facts = material.evaluation, material.facts
    rows = _rows(material)
    mistakes = sorted((a for a in evaluation.answers if not a.right), key=lambda a: -a.probability)
    return render(
        "report.html.j2",
        facts=facts,
        evaluation=evaluation,
        rows=rows[:MOST_CLASSES],
        class_count=len(rows),
        warnings=_warnings(rows[:MOST_CLASSES]),
        comparison=_comparison(material.before, evaluation)
        if evaluation.answers and material.before
        else None,
        matrix=charts.matrix(evaluation),
        pairs=charts.commonest(evaluation),
        mistakes=mistakes,
        plot=charts.plot(material.curves),
        charts=charts,
        most_mistakes=MOST_MISTAKES,
        most_changed=MOST_CHANGED,
        sample=lambda sha: data_url(material.images[sha], SAMPLE_SIDE),
        picture=lambda sha: data_url(material.images[sha], PICTURE_SIDE),
    )


@dataclass(frozen=True)
class Row:
    """One class: its images and groups, a few images by SHA-256, and its figures if some are held out."""

    name: str
    learned: int
    held_out: int
    groups: int
    samples: tuple[str, ...]
    precision: float | None
    recall: float | None
    f1: float | None


def _rows(material: Material) -> list[Row]:
    """Return the classes by name; if not all get a line, those to look at come first."""
    evaluation, learned = material.evaluation, material.facts.learned
    names = sorted({*learned, *evaluation.classes})
    if len(names) > MOST_CLASSES:
        names.sort(key=lambda name: evaluation.f1.get(name, 2.0))
    by_class: dict[str, list[str]] = {}
    for name, sha in sorted(material.members):
        by_class.setdefault(name, []).append(sha)
    held_out = dict(zip(evaluation.classes, evaluation.confusion.sum(axis=1).tolist(), strict=True))
    return [
        Row(
            name,
            learned.get(name, 0),
            held_out.get(name, 0),
            material.facts.groups.get(name, 0),
            tuple(by_class.get(name, ())[:SAMPLES]) if number < MOST_SAMPLED else (),
            evaluation.precision.get(name),
            evaluation.recall.get(name),
            evaluation.f1.get(name),
        )
        for number, name in enumerate(names)
    ]


def _warnings(rows: Sequence[Row]) -> list[str]:
    """Return a sentence per class whose figures promise more than a shop will see."""
    lone = [row.name for row in rows if row.learned + row.held_out == 1]
    alike = [row.name for row in rows if row.groups == 1 and row.name not in lone]
    return [
        *(f"There is one photo of {name}: how well it is recognised is not measured." for name in lone),
        *(f"All photos of {name} look as if taken in one place: take some elsewhere." for name in alike),
    ]


@dataclass(frozen=True)
class Changed:
    """An image that is newly right or newly wrong, and what the parent had answered."""

    answer: Answer
    before: str


@dataclass(frozen=True)
class Comparison:
    """The parent's figures, and what changed since."""

    before: Evaluation
    newly_right: list[Changed]
    newly_wrong: list[Changed]


def _comparison(before: Evaluation, after: Evaluation) -> Comparison:
    was = {answer.sha256: answer for answer in before.answers}
    changed = [
        Changed(answer, was[answer.sha256].label)
        for answer in after.answers
        if answer.right != was[answer.sha256].right
    ]
    return Comparison(
        before, [c for c in changed if c.answer.right], [c for c in changed if not c.answer.right]
    )
