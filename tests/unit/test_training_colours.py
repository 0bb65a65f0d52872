"""Packages of one shape are told apart by their colours, in any light."""

import numpy as np
import pytest

from caravan.contracts import OTHER
from training.fit import fit
from training.head import Array
from training.samples import Samples

tf = pytest.importorskip("tensorflow")
from training.measures import COARSE_CELLS, SIDE  # noqa: E402 - after the check for TensorFlow
from training.template import colours_of  # noqa: E402

SHAPES, COLOURS = 48, 8
RED, BLUE, GREY = (200, 40, 40), (40, 40, 200), (120, 120, 120)


def colours(*rgb: tuple[float, float, float]) -> Array:
    """Return the colours of pictures that are of one colour each, [N, 2 · HUES + 1]."""
    pixels = np.ones((len(rgb), SIDE, SIDE, 3), np.float32) * np.array(rgb, np.float32)[:, None, None]
    weights = tf.fill([len(rgb), COARSE_CELLS, COARSE_CELLS, 1], 1 / COARSE_CELLS**2)
    found: Array = colours_of(tf.constant((pixels - 127) / 128), weights).numpy()
    return found


def test_a_colour_is_the_same_in_half_the_light() -> None:
    red, dim, blue = colours(RED, (100, 20, 20), BLUE)
    assert red @ dim > 0.99
    assert red @ blue < 0.1


def test_what_has_no_colour_is_told_from_all_that_have_one() -> None:
    found = colours(GREY, (230, 230, 230), (0, 0, 0), RED, BLUE)
    np.testing.assert_allclose(found[:3, -1], 1, atol=1e-3)
    assert (found[3:, -1] < 0.1).all()


def test_a_pale_colour_is_told_from_a_strong_one_of_the_same_hue() -> None:
    strong, dim, pale = colours((220, 200, 60), (180, 160, 50), (200, 190, 150))
    assert strong @ dim > 0.95
    assert strong @ pale < 0.5


def packages(shape: int, hue: int, count: int, seed: int) -> Array:
    rng = np.random.default_rng(seed)
    rows = rng.normal(0, 0.1, (count, SHAPES + COLOURS))
    rows[:, shape] += 2
    rows[:, SHAPES + hue] += 1
    return np.asarray(rows, np.float32)


def scattered(count: int, seed: int) -> Array:
    rng = np.random.default_rng(seed)
    picks = zip(rng.integers(10, SHAPES, count), rng.integers(0, COLOURS, count), strict=True)
    return np.concatenate([packages(shape, hue, 1, seed + i) for i, (shape, hue) in enumerate(picks)])


def samples(views: Array) -> Samples:
    features = np.concatenate([packages(0, 0, 40, 1), packages(1, 1, 40, 2), scattered(80, 3)])
    names = ["a"] * 40 + ["b"] * 40 + [OTHER] * 80
    return Samples(names, features, views, np.arange(len(views)), np.zeros(len(views), np.bool_), SHAPES)


def test_a_package_of_a_known_shape_in_another_colour_is_less_like_the_product() -> None:
    head, _ = fit(samples(packages(0, 0, 0, 0)), seed=0)
    own, twins = (head.space.likeness(packages(0, hue, 60, 9))[:, 0] for hue in (0, 5))
    assert own.min() > twins.max()


def test_colours_that_differ_by_rounding_alone_tell_nothing() -> None:
    features = np.concatenate([packages(0, 0, 40, 1), packages(1, 0, 40, 2)])
    features[:, SHAPES:] = 1
    features[::2, SHAPES] = np.nextafter(np.float32(1), np.float32(2))
    none = np.zeros(0, np.intp)
    grey = Samples(["a"] * 40 + ["b"] * 40, features, features[:0], none, none.astype(np.bool_), SHAPES)
    head, _ = fit(grey, seed=0)
    one, other = features[:1], features[:1].copy()
    other[:, SHAPES:] = np.nextafter(np.float32(1), np.float32(0))
    np.testing.assert_allclose(head.space.likeness(one), head.space.likeness(other), atol=1e-3)


def test_what_views_show_beside_the_product_does_not_change_its_colours() -> None:
    plain, _ = fit(samples(packages(0, 0, 0, 0)), seed=0)
    odd, _ = fit(samples(packages(0, 6, 40, 5)), seed=0)
    of_plain, of_odd = (head.space.centres[0, SHAPES:] for head in (plain, odd))
    assert of_plain @ of_odd / (np.linalg.norm(of_plain) * np.linalg.norm(of_odd)) > 0.99
