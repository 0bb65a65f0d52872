"""Measure what the gate and the quarantine decide, with the pipeline's own functions on cached embeddings.

`python tests/bench/bench_gate.py [--photos teas.zip --more bali-tea.zip]` prints two tables and asserts
nothing; the same seeds give the same figures.

- Honest retrains: scikit-learn's digits come in ten batches, and each makes a version, in eight orders.
  Whether it is worse than its parent is known from 800 other digits, of which nobody learns and nobody is
  judged.
- Batches, with photos of packages alone: 61 photos of green tea labelled lemon, sent to a version that knows
  40 others of green tea; and right labels of a place that the version does not know. Each 50 times. Places
  are the minutes in the names of the photos, and groups of near-copies of eight or more.
"""

from __future__ import annotations

import argparse
import os
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

# Small products on many cores cost more than they save.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from rich.console import Console
from rich.table import Table

from lab.samples.digits import digits
from support.lessons import embedded
from training.dataset import Member
from training.embeddings import Embedded
from training.evaluate import Answer, answers_of
from training.fit import fit
from training.gate import Against, gate
from training.groups import groups_of
from training.head import Array, Head
from training.holdout import HeldOut, divide
from training.inspection import contradictions, sure_answers
from training.reference import grown
from training.samples import gather

ORDERS, RETRAINS, FIRST, BATCH, OTHERS = 8, 10, 300, 65, 800
MARGIN = 0.01
SEEDS = 50
KNOWN_GREEN, GREEN_AS_LEMON, OTHER_KEPT = 40, 61, 200
GAP_SECONDS = 300
LEAST_OF_PLACE = 8
PLACES = 30
"""Photos of a new place that are sent at most."""


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cache", type=Path, default=Path(".caravan/bench"), help="for embeddings")
    parser.add_argument("--photos", type=Path, help="a ZIP with tea-lemon, tea-earl-grey and other")
    parser.add_argument("--more", type=Path, help="a ZIP with tea-green")
    arguments = parser.parse_args()
    console = Console(width=110)
    found = {digit.name: digit.png for digit in digits()}
    console.print(_retrains(_embedded(found, arguments.cache)))
    if arguments.photos and arguments.more:
        photos = embedded_photos([arguments.photos, arguments.more], arguments.cache)
        console.print(_batches(photos))


@dataclass(frozen=True)
class Images:
    """N images: class and SHA-256, features [N, F], and the names of their files."""

    members: list[Member]
    features: Array
    files: list[str]
    embedded: Embedded

    @property
    def names(self) -> np.ndarray:
        """The class of each."""
        return np.array([name for name, _ in self.members])

    def among(self, rows: np.ndarray) -> tuple[list[Member], Mapping[str, Array]]:
        """Return some of them, and features by SHA-256."""
        return [self.members[i] for i in rows], {self.members[i][1]: self.features[i] for i in rows}


def embedded_photos(archives: Iterable[Path], kept: Path) -> Images:
    """Embed the photos of some ZIPs."""
    return _embedded({name: photo for path in archives for name, photo in _photos(path)}, kept)


def _photos(path: Path) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        yield from (
            (name, archive.read(name)) for name in sorted(archive.namelist()) if name.endswith(".jpg")
        )


def _embedded(images: Mapping[str, bytes], kept: Path) -> Images:
    members, done = embedded({name: (name.split("/")[1], content) for name, content in images.items()}, kept)
    return Images(
        list(members.values()),
        np.stack([done.features[sha] for _, sha in members.values()]),
        list(members),
        done,
    )


# --- honest retrains ------------------------------------------------------------------------------


@dataclass
class Version:
    """A version, and what it was made of."""

    head: Head
    learnt: frozenset[str]
    out: HeldOut

    def answers(self, out: HeldOut) -> list[Answer]:
        """Answer images."""
        return answers_of(self.head.probabilities(out.features), self.head.classes, out.truths)

    def accuracy(self, images: Images, rows: np.ndarray) -> float:
        """Return the share of right answers."""
        said = self.head.probabilities(images.features[rows]).argmax(axis=1)
        return float((np.array(self.head.classes)[said] == images.names[rows]).mean())


def _trained(
    images: Images, rows: np.ndarray, reference: Mapping[str, str], parent: Version | None
) -> Version:
    members, features = images.among(rows)
    division = divide(members, features, reference, parent.learnt if parent else ())
    head, _ = fit(gather(division.learned, images.embedded), 0)
    return Version(
        head,
        frozenset(sha for _, sha in division.learned),
        HeldOut.of(division.held_out, images.embedded, Path),
    )


@dataclass
class Count:
    """What became of retrains."""

    rejected: int = 0
    not_worse: int = 0
    worse: int = 0
    reasons: list[str] = field(default_factory=list)


def _retrains(images: Images) -> Table:
    count, plain = Count(), Count()
    for seed in range(ORDERS):
        order = np.random.default_rng(seed).permutation(len(images.members))
        others, pool = order[:OTHERS], order[OTHERS:]
        parent = _trained(images, pool[:FIRST], {}, None)
        reference = grown({}, parent.out.judged)
        for retrain in range(1, RETRAINS + 1):
            new = _trained(images, pool[: FIRST + retrain * BATCH], reference, parent)
            before, after = (version.accuracy(images, others) for version in (parent, new))
            old_answers, answers = parent.answers(new.out), new.answers(new.out)
            verdict = gate(new.out.judged, answers, Against(retrain, old_answers), margin=MARGIN)
            worse_by_count = sum(a.right for a in answers) < sum(a.right for a in old_answers)
            for tally, is_rejected in ((count, not verdict.passed), (plain, worse_by_count)):
                tally.rejected += is_rejected
                tally.not_worse += is_rejected and after >= before - 1e-9
                tally.worse += not is_rejected and after < before - 0.01 - 1e-9
            if verdict.passed:
                parent, reference = new, grown(reference, new.out.judged)
    table = Table(
        "decided by",
        "rejected",
        "though not worse",
        "accepted though over a point worse",
        title=f"{ORDERS * RETRAINS} retrains on digits, each beside {OTHERS} others",
    )
    for name, tally in (("the gate", count), ("a plain comparison", plain)):
        table.add_row(name, str(tally.rejected), str(tally.not_worse), str(tally.worse))
    return table


# --- batches --------------------------------------------------------------------------------------


def _contradicted(version: Version, images: Images, rows: np.ndarray, label: str) -> bool:
    members = [(label, images.members[i][1]) for i in rows]
    probabilities = version.head.probabilities(images.features[rows])
    answers = sure_answers(members, probabilities, version.head.classes)
    return bool(contradictions(members, [("", "")] * len(rows), answers))


def _batches(images: Images) -> Table:
    every = np.arange(len(images.members))
    green = every[images.names == "tea-green"]
    held = rejected = 0
    for seed in range(SEEDS):
        shuffled = np.random.default_rng(seed).permutation(green)
        known, bad = shuffled[:KNOWN_GREEN], shuffled[KNOWN_GREEN : KNOWN_GREEN + GREEN_AS_LEMON]
        rest = np.concatenate([every[images.names != "tea-green"], known])
        parent = _trained(images, rest, {}, None)
        held += _contradicted(parent, images, bad, "tea-lemon")
        members = [*images.members]
        for i in bad:
            members[i] = ("tea-lemon", members[i][1])
        wrong = replace(images, members=members)
        new = _trained(wrong, np.concatenate([rest, bad]), grown({}, parent.out.judged), parent)
        against = Against(1, parent.answers(new.out))
        rejected += not gate(new.out.judged, new.answers(new.out), against, margin=MARGIN).passed
    clean = 0
    places = list(_places(images))
    for seed in range(SEEDS):
        rng = np.random.default_rng(1000 + seed)
        label, place = places[seed % len(places)]
        others = rng.permutation(every[images.names == "other"])[:OTHER_KEPT]
        products = every[(images.names != "other") & ~np.isin(every, place)]
        # Another product may be there or not: the fewer there are, the surer a version errs.
        left_out = rng.choice(sorted({*images.names} - {"other", label}))
        if rng.random() < 0.5:
            products = products[images.names[products] != left_out]
        parent = _trained(images, np.concatenate([others, products]), {}, None)
        clean += _contradicted(parent, images, rng.permutation(place)[:PLACES], label)
    table = Table("batches", "in quarantine", "rejected by the gate", title=f"{SEEDS} of each")
    table.add_row(f"{GREEN_AS_LEMON} photos of green tea labelled lemon", str(held), str(rejected))
    table.add_row(f"right labels of a new place, of {len(places)} places", str(clean), "not tried")
    return table


def _places(images: Images) -> Iterator[tuple[str, np.ndarray]]:
    """Yield each place of the products: label, and rows."""
    groups = groups_of(list(images.names), images.features)
    for label in sorted({*images.names} - {"other"}):
        rows = np.nonzero(images.names == label)[0]
        times = np.array([_seconds(images.files[i]) for i in rows])
        rows, times = rows[np.argsort(times)], np.sort(times)
        cuts = [0, *(i + 1 for i, (a, b) in enumerate(pairwise(times)) if b - a > GAP_SECONDS), len(rows)]
        runs = [rows[a:b] for a, b in pairwise(cuts)]
        alike = [rows[groups[rows] == group] for group in sorted(set(groups[rows].tolist()))]
        yield from (
            (label, place) for place in (*runs, *alike) if LEAST_OF_PLACE <= len(place) < len(rows) * 0.8
        )


def _seconds(file: str) -> float:
    """Return the time in a photo's name, in seconds of its day."""
    found = re.search(r"[_-](\d\d)-?(\d\d)-?(\d\d)(?=\D|\d{3}\b)", file)
    return 0.0 if found is None else float(found[1]) * 3600 + float(found[2]) * 60 + float(found[3])


if __name__ == "__main__":
    main()
