"""The head learns what it is shown, and knows what it was not shown."""

import numpy as np
import pytest

from caravan.contracts import OTHER
from caravan.errors import Permanent
from training.fit import fit
from training.head import Array, Head
from training.samples import Samples

FEATURES = 64


def around(axis: int, count: int, seed: int) -> Array:
    """Images of one product: near one direction, with noise."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(0, 0.12, (count, FEATURES)) + np.eye(FEATURES)[axis] * 2 + 0.5
    return np.asarray(rows, np.float32)


def scattered(count: int, seed: int, first: int = 10, last: int = 40) -> Array:
    """Images of all sorts of things, none of them a product."""
    rng = np.random.default_rng(seed)
    axes = rng.integers(first, last, count)
    return np.concatenate([around(int(axis), 1, seed * 1000 + i) for i, axis in enumerate(axes)])


@pytest.fixture(scope="module")
def head() -> Head:
    features = np.concatenate([around(0, 40, 1), around(1, 30, 2), scattered(80, 3)])
    return fit(Samples.plain(features, ["a"] * 40 + ["b"] * 30 + [OTHER] * 80), seed=0)[0]


def test_known_products_are_answered_with_confidence(head: Head) -> None:
    for name, axis in (("a", 0), ("b", 1)):
        p = head.probabilities(around(axis, 50, 9))[:, head.classes.index(name)]
        assert np.median(p) > 0.9
        assert (p > 0.6).mean() > 0.95


def test_a_product_that_it_was_not_shown_is_other(head: Head) -> None:
    p = head.probabilities(around(50, 50, 9))
    known = np.delete(p, head.other, axis=1)
    assert (known.max(axis=1) < 0.6).all()
    assert (p.argmax(axis=1) == head.other).mean() > 0.95


def test_without_any_image_of_other_things_the_unknown_is_still_other() -> None:
    features = np.concatenate([around(0, 40, 1), around(1, 40, 2)])
    head, _ = fit(Samples.plain(features, ["a"] * 40 + ["b"] * 40), seed=0)
    assert head.classes == ("a", "b", OTHER)
    assert (head.probabilities(around(50, 50, 9)).argmax(axis=1) == head.other).all()
    assert (head.probabilities(around(0, 50, 9)).argmax(axis=1) == 0).mean() > 0.9


def test_probabilities_are_probabilities(head: Head) -> None:
    p = head.probabilities(
        np.concatenate([scattered(20, 5), around(0, 20, 6), np.zeros((1, FEATURES), np.float32)])
    )
    assert p.dtype == np.float32
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-5)
    assert p.min() >= 0


def test_the_same_images_give_the_same_head() -> None:
    features = np.concatenate([around(0, 20, 1), around(1, 20, 2)])
    names = ["a"] * 20 + ["b"] * 20
    assert (
        fit(Samples.plain(features, names), seed=3)[0].to_bytes()
        == fit(Samples.plain(features, names), seed=3)[0].to_bytes()
    )


def test_a_few_images_or_a_single_one_are_enough_to_train() -> None:
    features = np.concatenate([around(0, 3, 1), around(1, 1, 2)])
    head, curves = fit(Samples.plain(features, ["a"] * 3 + ["b"]), seed=0)
    assert np.isfinite(head.probabilities(features)).all()
    assert len(curves.train_loss) >= curves.best_step > 0


def test_images_that_are_all_alike_train_a_head_that_cannot_tell_them_apart() -> None:
    features = np.ones((20, 8), np.float32)
    head, _ = fit(Samples.plain(features, ["a"] * 10 + ["b"] * 10), seed=0)
    np.testing.assert_allclose(head.probabilities(features)[:, :2], 0.5, atol=0.1)


def test_the_loss_falls_and_both_sides_are_kept() -> None:
    features = np.concatenate([around(0, 40, 1), around(1, 40, 2), scattered(40, 3)])
    _, curves = fit(Samples.plain(features, ["a"] * 40 + ["b"] * 40 + [OTHER] * 40), seed=0)
    assert curves.validation_loss[curves.best_step - 1] < curves.validation_loss[0]
    assert len(curves.train_loss) == len(curves.validation_loss) == len(curves.validation_accuracy)


def test_one_class_is_refused() -> None:
    with pytest.raises(Permanent, match="two classes"):
        fit(Samples.plain(around(0, 10, 1), ["a"] * 10), seed=0)


def test_a_head_that_learnt_other_with_a_capital_is_compared_without() -> None:
    features = np.concatenate([around(0, 40, 1), around(50, 40, 2)])
    head, _ = fit(Samples.plain(features, ["Other"] * 40 + ["a"] * 40), seed=0)
    assert head.classes == ("Other", "a", OTHER)
    assert head.names == (OTHER, "a", OTHER)
    assert head.other == 2


def test_a_head_survives_being_stored_and_something_else_is_refused(head: Head) -> None:
    again = Head.from_bytes(head.to_bytes())
    features = around(0, 5, 4)
    np.testing.assert_array_equal(again.probabilities(features), head.probabilities(features))
    for raw in (b"", b"not an archive", head.to_bytes()[:200]):
        with pytest.raises(Permanent, match="head"):
            Head.from_bytes(raw)


def test_where_nobody_showed_other_things_the_guard_lets_the_products_pass() -> None:
    features = np.concatenate([around(0, 60, 1), around(1, 60, 2)])
    head, _ = fit(Samples.plain(features, ["a"] * 60 + ["b"] * 60), seed=0)
    for axis in (0, 1):
        assert (head.probabilities(around(axis, 400, 9))[:, axis] > 0.6).mean() > 0.98


def test_other_things_that_come_near_a_product_are_kept_from_it() -> None:
    def near(count: int, seed: int) -> Array:
        """Things that share much with the product of axis 0, and differ among themselves."""
        mixed = around(0, count, seed) + 1.2 * scattered(count, seed)
        return np.asarray(mixed / 2, np.float32)

    features = np.concatenate([around(0, 60, 1), around(1, 60, 2), near(60, 3)])
    head, _ = fit(Samples.plain(features, ["a"] * 60 + ["b"] * 60 + [OTHER] * 60), seed=0)
    p = head.probabilities(near(200, 7))
    assert (np.delete(p, head.other, axis=1).max(axis=1) > 0.6).mean() < 0.02
    assert (head.probabilities(around(0, 200, 9))[:, 0] > 0.6).mean() > 0.95


def test_a_product_is_known_where_only_the_other_one_was_seen() -> None:
    """One product was photographed in two places, which tells what a place looks like; the other in one."""
    here, there = (3 * around(axis, 1, 0)[0] for axis in (40, 41))
    learnt = [around(0, 40, 1) + here, around(0, 40, 2) + there, around(1, 40, 3) + there]
    features = np.concatenate([*learnt, scattered(80, 4)])
    head, _ = fit(Samples.plain(features, ["a"] * 80 + ["b"] * 40 + [OTHER] * 80), seed=0)
    products = head.probabilities(around(1, 50, 9) + here)[:, :2]
    assert (products.argmax(axis=1) == head.classes.index("b")).mean() > 0.8
