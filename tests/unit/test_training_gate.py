"""The gate rejects what is significantly worse than its parent, and nothing else."""

import numpy as np
import pytest

from training.evaluate import Answer
from training.gate import Against, GateResult, Pair, gate, p_value
from training.holdout import Judged

NAMES = ("tea-a", "tea-b", "tea-c", "other")


def answers(right: dict[str, list[bool]], start: int = 0) -> list[Answer]:
    """Return an answer for each flag of each class: right or wrong."""
    flat = [(name, flag) for name, flags in right.items() for flag in flags]
    return [
        Answer(f"{number:064x}", name, name if flag else "neither", 0.9)
        for number, (name, flag) in enumerate(flat, start)
    ]


def verdict_on(
    before: dict[str, list[bool]], after: dict[str, list[bool]], copies: int = 1, **marks: range
) -> GateResult:
    """Hold one against the other; so many images in a row are a group, and some are marked."""
    old, new = answers(before), answers(after)
    images = [
        Judged(
            answer.truth,
            answer.sha256,
            number // copies,
            **{mark: number in some for mark, some in marks.items()},
        )
        for number, answer in enumerate(new)
    ]
    return gate(images, new, Against(3, old), margin=0.01)


def flags(count: int, wrong: int = 0) -> list[bool]:
    return [False] * wrong + [True] * (count - wrong)


def test_a_first_version_passes_and_so_does_an_equal_or_better_one() -> None:
    half = {"tea-a": flags(20, 10), "other": flags(20)}
    assert gate([], [], None, margin=0).passed
    assert verdict_on(half, half).passed
    assert verdict_on(half, {"tea-a": flags(20), "other": flags(20)}).passed


def test_one_image_of_forty_decides_nothing() -> None:
    before = {"tea-a": flags(20), "other": flags(20)}
    assert verdict_on(before, before | {"tea-a": flags(20, 1)}).passed
    assert verdict_on(before, {name: flags(20, 1) for name in before}).passed


def test_a_version_that_is_significantly_worse_is_rejected_and_told_why() -> None:
    before = {name: flags(25) for name in NAMES}
    verdict = verdict_on(before, {name: flags(25, 3) for name in NAMES})
    assert verdict.rejected is not None
    assert "worse than version 3" in verdict.rejected
    assert "accuracy 0.8800 against 1.0000, on 100 images in 100 groups" in verdict.rejected


def test_what_is_newly_right_counts_for_a_version() -> None:
    worse = {"tea-a": flags(100, 8)}
    assert not verdict_on({"tea-a": flags(100)}, worse).passed
    assert verdict_on({"tea-a": [*flags(92), *[False] * 8]}, worse).passed


def test_a_class_that_is_lost_is_not_made_up_for_by_others() -> None:
    before = {"tea-a": flags(20), "tea-b": flags(40, 30), "other": flags(40, 30)}
    after = {"tea-a": flags(20, 9), "tea-b": flags(40), "other": flags(40)}
    verdict = verdict_on(before, after)
    assert verdict.rejected is not None
    assert "recall of tea-a 0.5500 against 1.0000" in verdict.rejected


def test_a_class_that_collapses_is_noticed_with_two_images_and_one_is_chance() -> None:
    before = {"tea-a": flags(2), "other": flags(100)}
    assert "recall of tea-a" in str(verdict_on(before, before | {"tea-a": flags(2, 2)}).rejected)
    before = {"tea-a": flags(1), "other": flags(100)}
    assert verdict_on(before, before | {"tea-a": flags(1, 1)}).passed


def test_the_images_of_a_group_speak_with_one_voice() -> None:
    before = {"tea-a": flags(100)}
    after = {"tea-a": flags(100, 10)}
    assert not verdict_on(before, after).passed
    assert verdict_on(before, after, copies=10).passed


def test_the_reference_set_is_a_gate_of_its_own() -> None:
    """New images whose labels the version shares, and its parent does not, cannot hide what it forgot."""
    before = {"tea-a": [*flags(20), *[False] * 40]}
    after = {"tea-a": [*flags(20, 9), *[True] * 40]}
    assert verdict_on(before, after).passed
    verdict = verdict_on(before, after, in_reference=range(20))
    assert "on the reference set 0.5500 against 1.0000" in str(verdict.rejected)


def test_what_the_parent_learnt_from_is_not_asked_of_both() -> None:
    before, after = {"tea-a": flags(20)}, {"tea-a": flags(20, 12)}
    assert not verdict_on(before, after).passed
    assert verdict_on(before, after, parent_learnt=range(12)).passed


def test_a_version_that_fails_the_smoke_test_is_rejected_however_good() -> None:
    verdict = gate([], [], None, margin=1, fault="it does not load")
    assert verdict.rejected == "the smoke test failed: it does not load"


def pairs(worse: int, better: int, same: int) -> list[Pair]:
    kinds = [(True, False)] * worse + [(False, True)] * better + [(True, True)] * same
    return [Pair("tea", number, before, after) for number, (before, after) in enumerate(kinds)]


@pytest.mark.parametrize(("worse", "better", "p"), [(5, 0, 1 / 32), (3, 1, 5 / 16), (0, 3, 1), (0, 0, 1)])
def test_without_a_margin_it_is_mcnemars_exact_test(worse: int, better: int, p: float) -> None:
    assert p_value(pairs(worse, better, 30), 0) == pytest.approx(p)


def test_a_margin_forgives_and_thousands_of_groups_are_counted() -> None:
    assert p_value(pairs(8, 0, 200), 0.01) > p_value(pairs(8, 0, 200), 0)
    assert p_value(pairs(1500, 1400, 4000), 0.05) > 0.5
    assert p_value(pairs(1750, 1150, 4000), 0.05) < 0.001


def test_a_version_that_is_just_as_good_is_seldom_rejected() -> None:
    rng = np.random.default_rng(0)
    shape = (200, len(NAMES), 40)
    both = rng.random((2, *shape)) < 0.95
    named = [
        [{name: row.tolist() for name, row in zip(NAMES, trial, strict=True)} for trial in side]
        for side in both
    ]
    verdicts = [verdict_on(before, after) for before, after in zip(*named, strict=True)]
    assert sum(not verdict.passed for verdict in verdicts) <= 200 * 0.05
