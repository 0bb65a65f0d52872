"""Near-copies are one group, however many images there are."""

import numpy as np
import pytest

from caravan.moments import MOMENT_SECONDS
from training.groups import LEAF, groups_of, moments_of
from training.head import Array


def scenes(count: int, copies: int, seed: int = 0, noise: float = 0.3) -> Array:
    """Return features of so many scenes, so many photos of each in a row."""
    rng = np.random.default_rng(seed)
    views = np.repeat(rng.standard_normal((count, 200), np.float32), copies, axis=0)
    return 3 + views + noise * rng.standard_normal(views.shape, np.float32)


def test_photos_of_a_scene_are_a_group_and_those_of_another_are_not() -> None:
    groups = groups_of(["tea"] * 12 + ["other"] * 12, scenes(8, 3))
    assert groups.tolist() == np.repeat(np.arange(8), 3).tolist()


def test_images_of_two_classes_are_never_a_group() -> None:
    groups = groups_of(["tea", "other"] * 3, np.ones((6, 200), np.float32))
    assert groups.tolist() == [0, 1] * 3


def test_a_chain_of_images_that_are_alike_is_a_group() -> None:
    rng = np.random.default_rng(1)
    one, other = rng.standard_normal((2, 200))
    turning = [np.cos(angle) * one + np.sin(angle) * other for angle in np.linspace(0, 1.5, 6)]
    features = np.array([*turning, *rng.standard_normal((6, 200))], np.float32)
    groups = groups_of(["tea"] * 6 + ["other"] * 6, features)
    assert len(set(groups[:6])) == 1
    assert len(set(groups)) == 7


def test_the_groups_do_not_depend_on_the_order_of_the_images() -> None:
    names, features = ["tea"] * 30 + ["other"] * 30, scenes(20, 3)
    order = np.random.default_rng(2).permutation(60)
    there, back = groups_of(names, features), groups_of([names[i] for i in order], features[order])
    assert np.array_equal(there[order][:, None] == there[order], back[:, None] == back)


@pytest.mark.parametrize("copies", [2, 4])
def test_near_copies_find_each_other_in_a_class_that_is_too_large_to_compare_all(copies: int) -> None:
    count = 4 * LEAF
    features = scenes((count + 64) // copies, copies, noise=0.15)
    groups = groups_of(["tea"] * count + ["other"] * 64, features)[:count].reshape(-1, copies)
    assert (groups == groups[:, :1]).all(axis=1).mean() > 0.98
    assert len(set(groups.ravel())) >= count // copies


def test_copies_without_end_are_one_group() -> None:
    assert set(groups_of(["tea"] * 3 * LEAF, np.ones((3 * LEAF, 50), np.float32))) == {0}


def test_no_images_have_no_groups() -> None:
    assert groups_of([], np.zeros((0, 200), np.float32)).tolist() == []


def test_groups_of_one_class_and_one_moment_are_one() -> None:
    names, groups = ["tea"] * 5 + ["other"] * 2, np.array([0, 0, 1, 2, 3, 4, 5])
    late = 3 * MOMENT_SECONDS
    taken = np.array([0, late, MOMENT_SECONDS, 9 * late, np.nan, 0, np.nan])
    # Group 0 is in two moments, and so joins what was taken in either of them.
    assert moments_of(names, groups, taken).tolist() == [0, 0, 0, 1, 2, 3, 4]
    nobody_knows = np.full(7, np.nan)
    assert moments_of(names, groups, nobody_knows).tolist() == groups.tolist()
    assert moments_of([], groups[:0], nobody_knows[:0]).tolist() == []
