"""Rendered photos suit the demo: an untrained head fails on them, a trained one learns, `other` holds."""

from collections.abc import Mapping

import numpy as np
import pytest
from numpy.typing import NDArray

from caravan.graphs.twin import pixels_of
from lab.photos import OTHER, render
from training.embedder import Embedder
from training.embeddings import FEATURES, SHAPES
from training.fit import fit
from training.head import Head
from training.samples import Samples

Array = NDArray[np.float32]
KNOWN = {OTHER: 48, "tea-earl-grey": 20, "tea-lemon": 20}
NEW = "tea-green"
NEW_PHOTOS = 20
TRIALS = 10
SURE = 0.6


@pytest.fixture(scope="module")
def embedded() -> Mapping[str, Array]:
    """Features `[N, F]` of each product; the last TRIALS rows are for trying."""
    embedder = Embedder()
    features: dict[str, Array] = {}
    for product, count in (KNOWN | {NEW: NEW_PHOTOS}).items():
        photos = [render(product, i) for i in range(count + TRIALS)]
        rows = [embedder.embeddings(pixels_of(photo)[None]) for photo in photos]
        features[product] = np.concatenate(rows)[:, :FEATURES]
    return features


def _trained(embedded: Mapping[str, Array], *products: str) -> Head:
    rows = [embedded[product][:-TRIALS] for product in products]
    names = [product for product, some in zip(products, rows, strict=True) for _ in some]
    return fit(Samples.plain(np.concatenate(rows), names, SHAPES), seed=0)[0]


def _recall(head: Head, embedded: Mapping[str, Array], product: str) -> float:
    """Return the share of a product's trial photos that are answered with it, surely enough for a shopper."""
    probabilities = head.probabilities(embedded[product][-TRIALS:])
    sure = probabilities.max(axis=1) >= SURE
    return float(((probabilities.argmax(axis=1) == head.classes.index(product)) & sure).mean())


def _known(head: Head, features: Array) -> float:
    """Return the share of photos that a shopper would be given a price for."""
    probabilities = head.probabilities(features)
    named = probabilities.argmax(axis=1) != head.classes.index(OTHER)
    return float((named & (probabilities.max(axis=1) >= SURE)).mean())


def test_an_untrained_layer_does_not_recognise_the_products(embedded: Mapping[str, Array]) -> None:
    rng = np.random.default_rng(0)
    right = []
    for _ in range(20):
        weights = rng.normal(0, 1, (embedded[OTHER].shape[1], len(KNOWN)))
        right += [
            (embedded[product][-TRIALS:] @ weights).argmax(axis=1) == i for i, product in enumerate(KNOWN)
        ]
    assert np.concatenate(right).mean() < 0.5


def test_a_trained_head_recognises_what_it_learned(embedded: Mapping[str, Array]) -> None:
    head = _trained(embedded, *KNOWN)
    assert np.mean([_recall(head, embedded, product) for product in KNOWN]) >= 0.8


def test_a_product_never_seen_is_answered_other_until_it_is_learned(embedded: Mapping[str, Array]) -> None:
    assert _known(_trained(embedded, *KNOWN), embedded[NEW]) <= 0.15
    assert _recall(_trained(embedded, *KNOWN, NEW), embedded, NEW) >= 0.75
