"""Views of photos are the same each time, and near-copies are never on both sides of a split."""

import numpy as np

from training.samples import FOLDS, Samples, folds_of
from training.views import PER_CLASS, Pixels, view_of, views_of


def photo() -> Pixels:
    return np.random.default_rng(0).integers(0, 255, (224, 224, 3), dtype=np.uint8)


def test_a_view_is_the_same_each_time_and_another_for_each_image_and_number() -> None:
    shas = ["1" * 64, "2" * 64]
    views = [view_of(photo(), sha, number) for sha in shas for number in (1, 2)]
    assert {view.shape for view in views} == {(224, 224, 3)}
    assert len({view.tobytes() for view in views}) == len(views)
    np.testing.assert_array_equal(views[0], view_of(photo(), shas[0], 1))


def test_a_class_of_many_images_has_about_as_many_views_as_one_of_few() -> None:
    rng = np.random.default_rng(0)
    members = [
        (name, rng.bytes(32).hex()) for name, count in (("few", 200), ("many", 4000)) for _ in range(count)
    ]
    counts = views_of(members)
    for name in ("few", "many"):
        total = sum(counts[sha] for other, sha in members if other == name)
        assert abs(total - PER_CLASS) < PER_CLASS / 4


def test_images_that_look_alike_are_left_out_together() -> None:
    rng = np.random.default_rng(1)
    moments = np.repeat(rng.normal(size=(20, 32)), 5, axis=0)
    features = (moments + rng.normal(0, 0.05, moments.shape)).astype(np.float32)
    folds = folds_of(Samples.plain(features, ["a"] * 100), seed=0)
    assert set(folds) == set(range(FOLDS))
    assert all(len(set(folds[i : i + 5])) == 1 for i in range(0, 100, 5))
