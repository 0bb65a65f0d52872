"""What is noted of versions that are compared, in tables of the scoring's journal.

All is bounded: the latest comparisons, of the images where versions differ the latest, and a few pictures.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

from caravan import evidence, times
from caravan.evidence import MOST_SHOWN, Differing, Evidence, Finding, Outcome, Verdict, verdict
from caravan.strict_json import NotJson
from shopper.canary.comparing import Guess, Pair, Said, are_sure_and_differ
from shopper.quality.notes import Audit

MOST_COMPARISONS = 20
MOST_DIFFERING = 500
"""Most images where versions differed whose review is waited for."""
SHOWN = 20
"""Images that people are shown at once because two versions are sure of different products."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS comparisons (
    number INTEGER PRIMARY KEY AUTOINCREMENT, model TEXT NOT NULL, version INTEGER NOT NULL,
    beside INTEGER NOT NULL, outcome TEXT NOT NULL, evidence TEXT NOT NULL, UNIQUE (model, version, beside)
);
CREATE TABLE IF NOT EXISTS differing (
    number INTEGER PRIMARY KEY AUTOINCREMENT, image TEXT NOT NULL UNIQUE, at REAL NOT NULL,
    comparison INTEGER NOT NULL, guess TEXT NOT NULL, item TEXT NOT NULL, score REAL NOT NULL,
    beside_item TEXT NOT NULL, beside_score REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS shown (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, model TEXT NOT NULL,
    version INTEGER NOT NULL, beside INTEGER NOT NULL, image TEXT NOT NULL, item TEXT NOT NULL,
    score REAL NOT NULL, beside_item TEXT NOT NULL, beside_score REAL NOT NULL,
    reviewed TEXT NOT NULL DEFAULT '', picture BLOB NOT NULL
);
"""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A comparison as it stands: `wait` while it runs, and then what came of it for good.

    What `differing` names is read where it is told, the newest first.
    """

    evidence: Evidence
    outcome: Outcome
    differing: tuple[Differing, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """What the evidence says, whatever was decided before."""
        return verdict(self.evidence)

    @property
    def finding(self) -> Finding:
        """What central is told."""
        return Finding(self.evidence, self.outcome, self.differing)


class CanaryNotes:
    """The tables, open; all but the reading runs inside a transaction of the caller.

    Args:
        db: the journal's connection.

    """

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def begin(self, model: str, version: int, beside: int) -> Comparison:
        """Return the comparison of two versions, a new one where there is none."""
        found = self._found(model, version, beside)
        if found is None:
            found = Comparison(Evidence(model, version, beside), "wait")
            self._db.execute(
                "INSERT OR REPLACE INTO comparisons (model, version, beside, outcome, evidence)"
                " VALUES (?, ?, ?, ?, ?)",
                (model, version, beside, found.outcome, _text(found.evidence)),
            )
            self._db.execute(
                "DELETE FROM comparisons WHERE number <= (SELECT max(number) FROM comparisons) - ?",
                (MOST_COMPARISONS,),
            )
        return found

    def add(self, seen: Evidence, pair: Pair | None, now: float) -> Comparison:
        """Count what was seen since, and where versions differ; once it is decided nothing is counted."""
        before = self.begin(seen.model, seen.version, seen.beside)
        if before.outcome != "wait":
            return before
        if pair is not None and pair.candidate.item != pair.beside.item:
            self._db.execute(
                "INSERT OR IGNORE INTO differing (image, at, comparison, guess, item, score, beside_item,"
                " beside_score) SELECT ?, ?, number, ?, ?, ?, ?, ? FROM comparisons"
                " WHERE model = ? AND version = ? AND beside = ?",
                (
                    *(pair.image, now, pair.guess, pair.candidate.item, pair.candidate.score),
                    *(pair.beside.item, pair.beside.score, seen.model, seen.version, seen.beside),
                ),
            )
            self._db.execute(
                "DELETE FROM differing WHERE number <= (SELECT max(number) FROM differing) - ?",
                (MOST_DIFFERING,),
            )
            if are_sure_and_differ(pair.candidate, pair.beside):
                self._show(seen, pair)
        return self._write(Comparison(before.evidence + seen, "wait"))

    def _show(self, seen: Evidence, pair: Pair) -> None:
        self._db.execute(
            "INSERT OR IGNORE INTO shown (id, model, version, beside, image, item, score, beside_item,"
            " beside_score, picture) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(f"{pair.digest.hex()}-{seen.version}", seen.model, seen.version, seen.beside, pair.image),
                *(pair.candidate.item, pair.candidate.score, pair.beside.item, pair.beside.score),
                pair.picture,
            ),
        )
        self._db.execute(
            "DELETE FROM shown WHERE number <= (SELECT max(number) FROM shown) - ?", (MOST_SHOWN,)
        )

    def said(self, image: str, item: str) -> None:
        """Note what people say that an image shows, `other` where it is no product, in place of the guess."""
        self._db.execute("UPDATE shown SET reviewed = ? WHERE image = ? AND reviewed = ''", (item, image))
        row = self._db.execute(
            "SELECT c.model, c.version, c.beside, d.guess, d.item, d.beside_item FROM differing d"
            " JOIN comparisons c ON c.number = d.comparison WHERE d.image = ?",
            (image,),
        ).fetchone()
        if row is None:
            return
        self._db.execute("DELETE FROM differing WHERE image = ?", (image,))
        model, version, beside, guess, candidate_item, beside_item = row
        before = self.begin(model, version, beside)
        looked = _without(before.evidence, guess)
        if item == candidate_item:
            looked = replace(looked, candidate_right=looked.candidate_right + 1)
        elif item == beside_item:
            looked = replace(looked, candidate_wrong=looked.candidate_wrong + 1)
        self._write(replace(before, evidence=looked))

    # --- reading ------------------------------------------------------------------------------------

    def waiting(self) -> Iterator[Audit]:
        """Yield images of which two versions are sure, and not of the same product; the latest first."""
        rows = self._db.execute(
            "SELECT d.image, d.at, c.version, d.item, d.score, c.beside, d.beside_item, d.beside_score"
            " FROM differing d JOIN comparisons c ON c.number = d.comparison"
            " WHERE d.item != 'other' AND d.beside_item != 'other' ORDER BY d.number DESC LIMIT ?",
            (SHOWN,),
        )
        for image, at, version, item, score, beside, beside_item, beside_score in rows:
            answers = Said(beside, beside_item, beside_score), Said(version, item, score)
            yield Audit(image, at, "differing", answers)

    def differing(self, seen: Evidence) -> tuple[Differing, ...]:
        """Return the newest images of a comparison of which both versions were sure, and not of the same."""
        rows = self._db.execute(
            "SELECT id, image, item, score, beside_item, beside_score, reviewed FROM shown"
            " WHERE model = ? AND version = ? AND beside = ? ORDER BY number DESC",
            (seen.model, seen.version, seen.beside),
        )
        return tuple(Differing(*row) for row in rows)

    def picture(self, differing: str) -> bytes:
        """Return a small JPEG of an image where versions differ, by its id; empty where there is none."""
        row = self._db.execute("SELECT picture FROM shown WHERE id = ?", (differing,)).fetchone()
        return b"" if row is None else bytes(row[0])

    def latest(self, model: str) -> Comparison | None:
        """Return the comparison of a model's versions that began last."""
        row = self._db.execute(
            "SELECT version, beside FROM comparisons WHERE model = ? ORDER BY number DESC LIMIT 1", (model,)
        ).fetchone()
        return None if row is None else self._found(model, *row)

    def stopped(self, model: str) -> frozenset[int]:
        """Return the versions of a model that were found to be worse than the one before."""
        rows = self._db.execute(
            "SELECT version FROM comparisons WHERE model = ? AND outcome = 'stop'", (model,)
        )
        return frozenset(version for (version,) in rows)

    def has_won(self, model: str, version: int) -> bool:
        """Tell whether a version was found to be no worse than the one before."""
        return "promote" in self._outcomes(model, version)

    def has_answered(self, model: str, version: int) -> bool:
        """Tell whether a version has answered, and was never compared."""
        answered = self._db.execute(
            "SELECT 1 FROM answers a JOIN models m ON m.id = a.model WHERE m.model = ? AND m.version = ?",
            (model, version),
        )
        return not self._outcomes(model, version) and answered.fetchone() is not None

    def _outcomes(self, model: str, version: int) -> list[Outcome]:
        rows = self._db.execute(
            "SELECT outcome FROM comparisons WHERE model = ? AND version = ?", (model, version)
        )
        return [outcome for (outcome,) in rows]

    def _found(self, model: str, version: int, beside: int) -> Comparison | None:
        row = self._db.execute(
            "SELECT outcome, evidence FROM comparisons WHERE model = ? AND version = ? AND beside = ?",
            (model, version, beside),
        ).fetchone()
        if row is None:
            return None
        with suppress(NotJson):
            return Comparison(evidence.read(row[1].encode()).evidence, row[0])
        return None

    def _write(self, comparison: Comparison) -> Comparison:
        seen = comparison.evidence
        if comparison.outcome == "wait":
            comparison = replace(comparison, outcome=comparison.verdict.outcome)
        self._db.execute(
            "UPDATE comparisons SET outcome = ?, evidence = ? WHERE model = ? AND version = ? AND beside = ?",
            (comparison.outcome, _text(seen), seen.model, seen.version, seen.beside),
        )
        return comparison


def _without(seen: Evidence, guess: Guess) -> Evidence:
    if guess == "worse":
        return replace(seen, worse=seen.worse - 1)
    return replace(seen, better=seen.better - 1) if guess == "better" else seen


def _text(seen: Evidence) -> str:
    return evidence.write(Finding(seen), times.now()).decode()
