"""How well the audits' interval holds: simulated weeks of answers, drawn and weighed as live.

    python tests/bench/study_audits.py [--weeks 100] [--seed 11]

Each week has its own traffic (busy and quiet days), share of unsure answers, and true accuracies. Its answers
go through the shopper's own `Reservoir`, `size`, `length` and `joined`. The truth is the share of right ones
among all answers of the week, which is known here alone. Half as many unsure answers are labelled as
confident ones: that was chosen on weeks of other seeds (11 to 13), and how the sample grows with what is
wrong on 8,000 more.
"""

from __future__ import annotations

import argparse
import random
import sys
from statistics import fmean

from shopper.quality.intervals import Stratum, joined
from shopper.quality.notes import UNSURE_SHARE
from shopper.quality.sampling import DAYS, MOST, Reservoir, length, size

LABELS = 60
GOAL = 0.06


def week(chance: random.Random) -> tuple[float, float, float, float, dict[bool, int]]:
    """Return truth, estimate, low and high, and how many labels of each kind one week had."""
    answers = int(chance.lognormvariate(8, 0.8)) + 300
    unsure_share = chance.uniform(0.02, 0.2)
    wrong = {True: chance.choice([0.0, 0.005, 0.01, 0.02, 0.03, 0.04]), False: chance.uniform(0.2, 0.5)}
    days = chance.choices(range(DAYS), [1, 1, 1, 1.2, 1.6, 2, 0.5], k=answers)
    most = {True: MOST * LABELS, False: -(-LABELS // UNSURE_SHARE)}
    reservoirs = {(sure, day): Reservoir(most[sure]) for sure in most for day in range(DAYS)}
    right_numbers = {True: set[float](), False: set[float]()}
    counts = {True: 0, False: 0}
    right_ones = 0
    for day in days:
        sure = chance.random() >= unsure_share
        right = chance.random() >= wrong[sure]
        counts[sure] += 1
        right_ones += right
        number = chance.random()
        reservoirs[sure, day].takes(number)
        reservoirs[sure, day].given_way()
        if right:
            right_numbers[sure].add(number)
    strata = []
    for sure, count in counts.items():
        numbers = sorted(n for day in range(DAYS) for n in reservoirs[sure, day].kept)
        sample = numbers[: size(most[sure], DAYS)]
        if sure:
            sample = sample[: length((n not in right_numbers[sure] for n in sample), LABELS, DAYS)]
        strata.append(Stratum(count, len(sample), sum(n in right_numbers[sure] for n in sample)))
    estimate = joined(strata)
    assert estimate is not None
    labels = {True: strata[0].labelled, False: strata[1].labelled}
    return right_ones / answers, estimate.accuracy, estimate.low, estimate.high, labels


def main() -> None:
    """Print how often the interval holds the truth, and how wide it is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weeks", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    held = 0
    halves: list[float] = []
    drawn: list[dict[bool, int]] = []
    for _ in range(options.weeks):
        truth, _, low, high, labelled = week(chance)
        held += low <= truth <= high
        halves.append((high - low) / 2)
        drawn.append(labelled)
    halves.sort()
    within = sum(half <= GOAL for half in halves)
    lines = [
        *(
            f"labels of {kind} answers a week: {min(each[sure] for each in drawn)}"
            f" to {max(each[sure] for each in drawn)}, {fmean(each[sure] for each in drawn):.1f} on average"
            for kind, sure in (("confident", True), ("unsure", False))
        ),
        f"the interval holds the truth in {held} of {options.weeks} weeks (goal: 93 of 100)",
        f"its half width: median {halves[len(halves) // 2]:.3f}, largest {halves[-1]:.3f}",
        f"a half width of at most {GOAL}: in {within} of {options.weeks} weeks (goal: all)",
    ]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
