"""How soon a worse version is stopped beside the one before, and how seldom an equal one: seeded days.

    python tests/bench/bench_canary.py [--runs 100] [--photos teas.zip --more bali-tea.zip]

A run is a new version at one edge with `CANARY=10%`: image after image is drawn, a tenth are answered by
the new version, the other version is asked of each, and the shopper's own `guess` and `verdict` decide. How
often two versions differ is measured on real heads, by the training's own functions: pairs made from other
parts of the same photos, asked of photos that neither has seen. A run takes one pair, and its shares. A
version that is worse by so many points live, and equal on held-out images, has not seen a place that the
other has: of that place's photos it errs at so many more, mostly sure of another product. With photos the
pairs are measured anew; without, the counts of the last measurement are taken. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from rich.console import Console
from rich.table import Table

from caravan.contracts import OTHER
from caravan.evidence import Evidence, Outcome, verdict
from shopper.canary.comparing import Said, guess

SHARE = 0.1
SURE = 0.6
ANSWERS = 60
"""Answers of a new version within which it is to be stopped."""
IMAGES = 5000
LEARNT, OTHERS = 0.85, 230
SPLITS = 12


@dataclass(frozen=True)
class Pair:
    """Of how many images two versions said what: the older sure alone, the newer, or both of another."""

    images: int
    older: int
    newer: int
    other: int


EQUAL = [
    *(Pair(230, older, newer, 0) for older, newer in [(0, 1), (1, 1), (0, 0), (0, 1), (1, 0), (0, 1)]),
    *(Pair(230, older, newer, 0) for older, newer in [(1, 0), (0, 0), (0, 1), (1, 0), (4, 1), (4, 0)]),
]
"""Measured on 590 photos of teas and 101 of another: twelve pairs of versions, each of 230 photos."""
PLACE = Pair(25, 2, 0, 9)
"""The same of 25 photos of a place that the newer version had not seen; its older one was right at all."""


@dataclass(frozen=True)
class Run:
    """How a run ended: after how many answers of the new version, and how many images compared."""

    outcome: Outcome
    answers: int
    images: int


def run(pair: Pair, points: float, chance: random.Random, *, promotes: bool = True) -> Run:
    """Let a version come to an edge; `points` is by how much it is worse than the one before.

    Args:
        pair: how often equal versions differ.
        points: share of the images at which it errs because of their place, 0..1.
        chance: draws.
        promotes: whether a version that is no worse ends the comparison.

    """
    errs = PLACE.other / (PLACE.other + PLACE.older)
    whats = [
        *(("worse", points * errs), ("unsure", points * (1 - errs))),
        *(("unsure", pair.older / pair.images), ("better", pair.newer / pair.images)),
        ("worse", pair.other / pair.images),
    ]
    names = [*(name for name, _ in whats), "same"]
    weights = [*(share for _, share in whats), 1 - sum(share for _, share in whats)]
    seen = Evidence("tea", 8, 7)
    for what in chance.choices(names, weights, k=IMAGES):
        new, old = _SAID[what]
        guessed = guess(new, old, ())
        seen = replace(
            seen,
            answers=seen.answers + (chance.random() < SHARE),
            compared=seen.compared + 1,
            worse=seen.worse + (guessed == "worse"),
            better=seen.better + (guessed == "better"),
        )
        outcome = verdict(seen).outcome
        if outcome == "stop" or (outcome == "promote" and promotes):
            return Run(outcome, seen.answers, seen.compared)
    return Run("wait", seen.answers, seen.compared)


def _pair(new: str, old: str) -> tuple[Said, Said]:
    return Said(8, new, 0.9), Said(7, old, 0.9)


_SAID = {
    "same": _pair("tea-green", "tea-green"),
    "worse": _pair("tea-lemon", "tea-green"),
    "unsure": _pair(OTHER, "tea-green"),
    "better": _pair("tea-green", OTHER),
}


def main() -> None:
    """Print how runs ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cache", type=Path, default=Path(".caravan/bench"), help="for embeddings")
    parser.add_argument("--photos", type=Path, help="a ZIP with tea-lemon, tea-earl-grey and other")
    parser.add_argument("--more", type=Path, help="a ZIP with tea-green")
    options = parser.parse_args()
    console = Console(width=118)
    pairs = EQUAL
    if options.photos and options.more:
        pairs = list(measured(options.photos, options.more, options.cache))
        console.print(f"measured: {pairs}")
    images = sum(pair.images for pair in pairs)
    console.print(
        f"equal versions, of {images} answers: the older sure alone {sum(p.older for p in pairs)},"
        f" the newer {sum(p.newer for p in pairs)}, both and of other products {sum(p.other for p in pairs)}"
    )
    table = Table(
        *("new version", "stopped", f"within {ANSWERS} answers", "promoted", "neither"),
        *("answers at its end: median, most", "images compared: median, most"),
        title=f"{options.runs} runs each, {SHARE:.0%} of the images answered by the new version",
    )
    for name, points, promotes in (
        ("5 points worse", 0.05, True),
        ("10 points worse", 0.10, True),
        ("3 points worse", 0.03, True),
        ("2 points worse", 0.02, True),
        ("equal", 0.0, True),
        (f"equal, for {IMAGES} images", 0.0, False),
    ):
        chance = random.Random(options.seed)
        table.add_row(
            name,
            *_row(
                [run(chance.choice(pairs), points, chance, promotes=promotes) for _ in range(options.runs)]
            ),
        )
    console.print(table)
    sys.stdout.write(
        "goal: 5 points worse, stopped within 60 answers in 95 of 100; equal, stopped in 5 at most\n"
    )


def _row(runs: Sequence[Run]) -> Iterator[str]:
    stopped = [each for each in runs if each.outcome == "stop"]
    yield str(len(stopped))
    yield str(sum(each.answers <= ANSWERS for each in stopped))
    for outcome in ("promote", "wait"):
        yield str(sum(each.outcome == outcome for each in runs))
    for counts in ([each.answers for each in runs], [each.images for each in runs]):
        yield f"{statistics.median(counts):g}, {max(counts)}"


def measured(photos: Path, more: Path, cache: Path) -> Iterator[Pair]:
    """Train pairs of versions on other parts of the same photos, and ask them about photos of neither."""
    import numpy as np  # noqa: PLC0415 - and what follows takes seconds to load
    from bench.bench_gate import embedded_photos  # noqa: PLC0415

    from training.fit import fit  # noqa: PLC0415
    from training.samples import gather  # noqa: PLC0415

    images = embedded_photos([photos, more], cache)
    for seed in range(SPLITS):
        chance = np.random.default_rng(seed)
        order = chance.permutation(len(images.members))
        asked, rest = images.features[order[:OTHERS]], order[OTHERS:]
        said = []
        for number in range(2):
            learnt = chance.permutation(rest)[: int(len(rest) * LEARNT)]
            head, _ = fit(gather([images.members[row] for row in learnt], images.embedded), number)
            p = head.probabilities(asked)
            items = np.array(head.classes)[p.argmax(axis=1)]
            said.append(np.where(p.max(axis=1) >= SURE, items, OTHER))
        older, newer = said
        both = (older != OTHER) & (newer != OTHER)
        yield Pair(
            OTHERS,
            int(((older != OTHER) & ~both).sum()),
            int(((newer != OTHER) & ~both).sum()),
            int((both & (older != newer)).sum()),
        )


if __name__ == "__main__":
    main()
