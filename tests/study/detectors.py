"""Hold what the field uses to tell the unknown, on the same frozen features, against the guard. Prints JSON.

    python -m study.detectors DATA

Each detector learns from what a head learns from, less the views, once from the features and once from where
the guard's space has them. It is asked about a product that nobody learnt, and about products of moments that
were left out. `auroc` is how often a stranger scores higher; `sold` is the share of strangers that score no
higher than all but LOST of the products do.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.covariance import ledoit_wolf  # type: ignore[import-untyped]
from sklearn.linear_model import LogisticRegression, RidgeClassifier  # type: ignore[import-untyped]

from study.builds import Array, Rows
from study.learning import FOLDS, Study, auroc
from study.photos import OTHER, unpack

LEFT_OUT = ("tea-earl-grey", "tea-lemon", "tea-green")
LOST = 0.02
NEIGHBOURS = 5
PRINCIPAL = 128
"""Directions of the subspace beyond which ViM looks."""
PROJECTED = 4000
"""Random features, as RanPAC has them."""

Names = NDArray[np.str_]
Score = Callable[[Array], Array]
"""Tells how unknown images are, [N, F] → [N]; more is less known."""
Detector = Callable[[Array, Names, Names], Score]
"""Learns from features [N, F] of unit length, and the classes and the groups that they are of."""


def nearest(x: Array, names: Names, _: Names) -> Score:
    """Go by the nearest images of products (Sun et al. 2022)."""
    products = x[names != OTHER]
    return lambda asked: -np.sort(asked @ products.T, axis=1)[:, -NEIGHBOURS]


def means(x: Array, names: Names, _: Names) -> Score:
    """Go by the nearest mean of a product."""
    return prototypes(x, names, names)


def prototypes(x: Array, names: Names, groups: Names) -> Score:
    """Go by the nearest mean of a product's group, of unit length."""
    own = [x[(groups == group) & (names != OTHER)] for group in np.unique(groups[names != OTHER])]
    centres = _unit(np.stack([rows.mean(axis=0) for rows in own]))
    return lambda asked: -(asked @ centres.T).max(axis=1)


def mahalanobis(x: Array, names: Names, _: Names) -> Score:
    """Go by the Mahalanobis distance to the nearest product (Lee et al. 2018)."""
    is_product = names != OTHER
    centres = np.stack([x[names == name].mean(axis=0) for name in np.unique(names[is_product])])
    of = np.searchsorted(np.unique(names[is_product]), names[is_product])
    precision = np.linalg.inv(ledoit_wolf(x[is_product] - centres[of], assume_centered=True)[0])

    def score(asked: Array) -> Array:
        away = asked[:, None] - centres
        return np.asarray(np.einsum("ncf,fg,ncg->nc", away, precision, away, optimize=True).min(axis=1))

    return score


def energy(x: Array, names: Names, _: Names) -> Score:
    """Go by the energy of the products' logits (Liu et al. 2020)."""
    logits = _logits(x, names)
    return lambda asked: -np.logaddexp.reduce(logits(asked), axis=1)


def vim(x: Array, names: Names, _: Names) -> Score:
    """Go by what lies outside of the principal subspace, beside the energy (Wang et al. 2022)."""
    logits, mean = _logits(x, names), x.mean(axis=0)
    principal = np.linalg.svd(x - mean, full_matrices=False)[2][:PRINCIPAL]

    def residual(asked: Array) -> Array:
        centred = asked - mean
        return np.asarray(np.linalg.norm(centred - centred @ principal.T @ principal, axis=1))

    scale = logits(x).max(axis=1).sum() / residual(x).sum()
    return lambda asked: scale * residual(asked) - np.logaddexp.reduce(logits(asked), axis=1)


def projected(x: Array, names: Names, _: Names) -> Score:
    """Go by ridge regression on random features (McDonnell et al. 2023, RanPAC)."""
    random = np.random.default_rng(0).normal(size=(x.shape[1], PROJECTED)).astype(np.float32)
    model = RidgeClassifier(alpha=10.0).fit(np.maximum(x @ random, 0), names)
    products = [name != OTHER for name in model.classes_]
    return lambda asked: -model.decision_function(np.maximum(asked @ random, 0))[:, products].max(axis=1)


DETECTORS: Mapping[str, Detector] = {
    "nearest images": nearest,
    "means of products": means,
    "prototypes of groups": prototypes,
    "Mahalanobis": mahalanobis,
    "energy": energy,
    "ViM": vim,
    "random projections (RanPAC)": projected,
}


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        study = Study(unpack(Path(sys.argv[1]), Path(folder)), Path(folder))
        sys.stdout.write(json.dumps({name: _asked(study, name) for name in LEFT_OUT}) + "\n")


def _asked(study: Study, stranger: str) -> dict[str, dict[str, float]]:
    """Leave a product out, and return each detector's figures."""
    strangers = study.rows(stranger)
    learnt = np.nonzero(study.names != stranger)[0]
    high, low = _scores(study, learnt, strangers), []
    for fold in range(FOLDS):
        out = learnt[(study.folds[learnt] == fold) & (study.names[learnt] != OTHER)]
        low.append(_scores(study, learnt[study.folds[learnt] != fold], out))
    figures = {}
    for name, scores in high.items():
        known = np.concatenate([each[name] for each in low])
        sold = (scores <= np.quantile(known, 1 - LOST)).mean()
        figures[name] = {"auroc": auroc(scores, known), "sold": float(sold)}
    return figures


def _scores(study: Study, learnt: Rows, asked: Rows) -> dict[str, Array]:
    """Return how unknown each detector takes images for, by its name."""
    head, features = study.build.learn(learnt), study.build.lessons.features
    names = study.names[learnt]
    groups = np.array([photo.moment for photo in study.photos])[learnt]
    scores = {"guard": head.probabilities(features[asked])[:, head.other]}
    for space, place in (("features", lambda x: _unit(x - head.space.mean)), ("space", head.space.placed)):
        x, y = place(features[learnt]), place(features[asked])
        scores |= {f"{name}, {space}": detect(x, names, groups)(y) for name, detect in DETECTORS.items()}
    return scores


def _logits(x: Array, names: Names) -> Score:
    model: Any = LogisticRegression(C=25.0, max_iter=1000).fit(x, names)
    products = [name != OTHER for name in model.classes_]
    return lambda asked: (asked @ model.coef_.T + model.intercept_)[:, products]


def _unit(x: Array) -> Array:
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12))


if __name__ == "__main__":
    main()
