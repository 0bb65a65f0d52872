"""Measure what one build learns: new places, damage, the unknown, calibration. Prints JSON.

    python -m study.learning DATA

The build is the `training` package that Python finds.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from study.builds import Answers, Array, Lesson, Rows, ask, build
from study.photos import DAMAGE, OTHER, Photo, damaged, unpack

SURE = 0.6
"""The score from which a shopper takes an answer for known."""
FOLDS = 5
DRAWS = 3
FEW = 5
"""Photos of the new place that are learnt beside the old ones."""
BINS = 10


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        photos = unpack(Path(sys.argv[1]), Path(folder))
        study = Study(photos, Path(folder))
        figures = study.new_place() | study.damage() | study.unknown() | study.by_group()
    sys.stdout.write(json.dumps(figures) + "\n")


class Study:
    """The photos, and the build that learns from them."""

    def __init__(self, photos: list[Photo], scratch: Path) -> None:
        self.photos = photos
        self.scratch = scratch
        self.names = np.array([photo.name for photo in photos])
        self.places = np.array([photo.place for photo in photos])
        self.build = build([Lesson(photo.name, photo.file, photo.sha256) for photo in photos])
        self.folds = self._folds()

    def _folds(self) -> NDArray[np.intp]:
        """Deal each class's moments over FOLDS piles."""
        moments = [photo.moment for photo in self.photos]
        rng = np.random.default_rng(0)
        pile: dict[str, int] = {}
        for name in np.unique(self.names):
            own = sorted({m for m, n in zip(moments, self.names, strict=True) if n == name})
            pile |= {own[at]: place % FOLDS for place, at in enumerate(rng.permutation(len(own)))}
        return np.array([pile[moment] for moment in moments])

    def rows(self, name: str, place: int | None = None) -> Rows:
        """Return the photos of a class, of one place."""
        is_there = (self.places == place) if place is not None else True
        return np.nonzero((self.names == name) & is_there)[0]

    def ask(self, learnt: Rows, asked: Rows) -> Answers:
        """Learn from some photos and ask about others."""
        return ask(self.build.learn(learnt), self.build.lessons[asked])

    # --- figures ------------------------------------------------------------------------------------

    def new_place(self) -> dict[str, float]:
        """Learn a product in one place, ask about it in the other."""
        beside = np.concatenate([self.rows("tea-earl-grey"), self.rows(OTHER)[::2]])
        figures: dict[str, float] = {}
        for place in (0, 1):
            old, new = self.rows("tea-lemon", place), self.rows("tea-lemon", 1 - place)
            answers = self.ask(np.concatenate([old, beside]), new)
            figures[f"new place {place}, right and sure"] = self._right_and_sure(answers, new)
            few = []
            for draw in range(DRAWS):
                shuffled = np.random.default_rng(draw).permutation(new)
                answers = self.ask(np.concatenate([old, beside, shuffled[:FEW]]), shuffled[FEW:])
                few.append(self._right(answers, shuffled[FEW:]).mean())
            figures[f"new place {place}, {FEW} photos of it learnt, right"] = float(np.mean(few))
        return figures

    def damage(self) -> dict[str, float]:
        """Learn from most moments, ask about damaged photos of the others."""
        out = self.folds == 0
        head = self.build.learn(np.nonzero(~out)[0])
        asked = np.nonzero(out & (self.names != OTHER))[0]
        figures: dict[str, float] = {}
        scores, rights = [], []
        for how in DAMAGE:
            files = [damaged(self.photos[row], how, self.scratch) for row in asked]
            answers = ask(head, self.build.embed(files))
            right = self._right(answers, asked)
            figures[f"{how}, right"] = float(right.mean())
            scores.append(answers.scores)
            rights.append(right)
        figures["calibration error after damage"] = ece(np.concatenate(scores), np.concatenate(rights))
        return figures

    def unknown(self) -> dict[str, float]:
        """Leave a product out, and see what it is taken for, and how well the guard ranks it."""
        figures: dict[str, float] = {}
        for name in ("tea-earl-grey", "tea-lemon", "tea-green"):
            learnt, strangers = np.nonzero(self.names != name)[0], self.rows(name)
            answers = self.ask(learnt, strangers)
            sold = (answers.labels != OTHER) & (answers.scores >= SURE)
            figures[f"{name} left out, sold as another"] = float(sold.mean())
            known = self._left_out(learnt)
            products = self.names[known[0]] != OTHER
            figures[f"{name} left out, AUROC"] = auroc(answers.other, known[1].other[products])
        return figures

    def by_group(self) -> dict[str, float]:
        """Hold each moment out once."""
        rows, answers = self._left_out(np.arange(len(self.photos)))
        products = self.names[rows] != OTHER
        return {
            "knowns taken for other, by group": float((answers.labels == OTHER)[products].mean()),
            "right, by group": float(self._right(answers, rows).mean()),
            "calibration error by group": ece(answers.scores, self._right(answers, rows)),
        }

    # --- counting -----------------------------------------------------------------------------------

    def _left_out(self, rows: Rows) -> tuple[Rows, Answers]:
        """Ask about each photo a head that learnt from the other moments."""
        parts = []
        for fold in range(FOLDS):
            asked = rows[self.folds[rows] == fold]
            parts.append((asked, self.ask(rows[self.folds[rows] != fold], asked)))
        gathered = (np.concatenate([getattr(a, f) for _, a in parts]) for f in ("labels", "scores", "other"))
        return np.concatenate([asked for asked, _ in parts]), Answers(*gathered)

    def _right(self, answers: Answers, rows: Rows) -> NDArray[np.bool_]:
        return np.asarray(answers.labels == self.names[rows])

    def _right_and_sure(self, answers: Answers, rows: Rows) -> float:
        return float((self._right(answers, rows) & (answers.scores >= SURE)).mean())


def ece(scores: Array, right: NDArray[np.bool_]) -> float:
    """Return the expected calibration error, in BINS bins of equal width."""
    places = np.minimum((scores * BINS).astype(int), BINS - 1)
    bins = [places == place for place in np.unique(places)]
    return float(sum(abs(scores[own].mean() - right[own].mean()) * own.mean() for own in bins))


def auroc(higher: Array, lower: Array) -> float:
    """Return how often the first is above the second; ties count half."""
    above = (higher[:, None] > lower).mean() + (higher[:, None] == lower).mean() / 2
    return float(above)


if __name__ == "__main__":
    main()
