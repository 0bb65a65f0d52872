"""Which images are held out: whole groups, the same ones however the data grows."""

import hashlib
from pathlib import Path

import numpy as np

from training.embeddings import FEATURES, Embedded
from training.holdout import LARGE, SHARE, HeldOut, Judged, divide, held_out


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


MANY = [(name, sha(f"{name}{i}")) for name in ("tea-a", "tea-b") for i in range(600)]
ALONE = np.arange(len(MANY))
BURSTS = ALONE // 3


def test_about_a_fifth_is_held_out_and_an_image_stays_on_its_side() -> None:
    out = held_out(MANY, ALONE)
    assert abs(len(out) / len(MANY) - SHARE) < 0.05
    more = [*MANY, *(("tea-c", sha(f"new{i}")) for i in range(500))]
    assert held_out(more, np.arange(len(more))) & {s for _, s in MANY} == out


def test_a_group_is_on_one_side_as_a_whole_and_its_size_does_not_decide() -> None:
    out = held_out(MANY, BURSTS)
    sides = np.array([s in out for _, s in MANY]).reshape(-1, 3)
    assert (sides == sides[:, :1]).all()
    assert abs(len(out) / len(MANY) - SHARE) < 0.05


def test_every_class_of_two_or_more_has_images_on_both_sides() -> None:
    for count in (2, 3, 9):
        for start in range(100):
            members = [("tea-a", sha(f"{start}-{i}")) for i in range(count)]
            for groups in (np.arange(count), np.zeros(count, int), np.arange(count) // 2):
                assert (2 if count == 9 else 1) <= len(held_out(members, groups)) < count


def test_a_lone_image_is_trained_on() -> None:
    assert all(not held_out([("tea-a", sha(str(i)))], np.zeros(1, int)) for i in range(50))


def test_a_group_that_is_most_of_its_class_is_on_both_sides() -> None:
    members = MANY[:600]
    out = held_out(members, np.where(np.arange(600) < 550, 0, np.arange(600)))
    assert 0.1 < len(out & {s for _, s in members[:550]}) / 550 < 0.3


def test_no_more_than_a_third_of_a_class_is_held_out() -> None:
    for start in range(100):
        members = [("tea-a", sha(f"{start}-{i}")) for i in range(20)]
        assert len(held_out(members, np.arange(20) // 4)) <= 20 * LARGE


def test_what_is_kept_out_stays_out_and_its_group_with_it() -> None:
    free = held_out(MANY, BURSTS)
    kept = {MANY[0][1], MANY[31][1]} | {next(s for _, s in MANY[60:] if s not in free)}
    out = held_out(MANY, BURSTS, kept)
    assert kept <= out
    assert {s for _, s in [*MANY[:3], *MANY[30:33]]} <= out


def test_what_the_parent_learnt_from_is_learnt_again_and_its_group_with_it() -> None:
    free = held_out(MANY, BURSTS)
    learnt = {s for _, s in MANY} - free
    joined = BURSTS // 2  # Groups have met since: some of these were on both sides.
    assert held_out(MANY, joined, free, learnt) == free
    assert held_out(MANY, joined, frozenset(), learnt) < free
    assert len(held_out(MANY[:600], BURSTS[:600], frozenset(), {s for _, s in MANY})) == 3


def test_images_that_are_alike_are_divided_as_one() -> None:
    rng = np.random.default_rng(0)
    scenes = np.repeat(rng.standard_normal((400, FEATURES), np.float32), 3, axis=0)
    rows = scenes + 0.2 * rng.standard_normal(scenes.shape, np.float32)
    features = {s: row for (_, s), row in zip(MANY, rows, strict=True)}
    division = divide(MANY, features)
    assert division.groups == {"tea-a": 200, "tea-b": 200}
    assert {image.sha256 for image in division.held_out} == held_out(MANY, BURSTS)
    evening = {s: 0.0 for _, s in MANY[:600]}
    assert divide(MANY, features, taken=evening).groups == {"tea-a": 1, "tea-b": 200}
    assert {*division.learned, *((image.name, image.sha256) for image in division.held_out)} == {*MANY}


def test_the_reference_set_is_held_out_under_its_own_labels() -> None:
    rng = np.random.default_rng(0)
    features = {s: rng.standard_normal(FEATURES, np.float32) for _, s in [*MANY, ("", "e" * 64)]}
    free = divide(MANY, features)
    relabelled = free.learned[0]
    reference = {relabelled[1]: "tea-z", "e" * 64: "tea-a", "f" * 64: "tea-a"}
    division = divide(MANY, features, reference)
    assert {("tea-z", relabelled[1]), ("tea-a", "e" * 64)} <= {(i.name, i.sha256) for i in division.held_out}
    assert relabelled[1] not in {s for _, s in division.learned}
    assert "f" * 64 not in {image.sha256 for image in division.held_out}, "it has no features"


def test_what_is_held_out_is_gathered_with_its_features_and_files() -> None:
    features = {"a" * 64: np.ones(FEATURES, np.float32)}
    judged = Judged("tea", "a" * 64, 7), Judged("tea", "b" * 64, 8)
    out = HeldOut.of(judged, Embedded(features, {"a" * 64: 0.5}, {}, {}), Path)
    assert (out.judged, out.files, out.sharpness) == (judged[:1], (Path("a" * 64),), (0.5,))
    assert out.features.shape == (1, FEATURES)
    assert HeldOut.of((), Embedded(features, {}, {}, {}), Path).features.shape == (0, FEATURES)
