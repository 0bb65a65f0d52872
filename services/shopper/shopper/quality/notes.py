"""What is noted of answers to tell how good they are, in the tables of the scoring's journal.

`add`, `forget` and `said` run inside a transaction of the caller, so an answer is counted here when, and only
when, it is counted for the hub. All is bounded: a row for each day, version, product and kind of answer; and
of each day and kind, as many images as a week's sample has. So is whether a version's answers drift.
"""

from __future__ import annotations

import json
import sqlite3
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import structlog

from caravan import strict_json
from caravan.contracts import OTHER
from shopper import metrics
from shopper.canary.comparing import Said
from shopper.quality.drift import STATISTICS, DriftTest, spread, statistics
from shopper.quality.report import Answers, Drift
from shopper.quality.sampling import DAYS, MOST, Reservoir, length, size

log = structlog.get_logger()

DAY = 86_400.0
UNSURE_SHARE = 2
"""Confident answers drawn per unsure one: an unsure one waits for a label in any case."""

RECENT = 300
"""Most recent answers among which those that show a drift best are chosen."""
SHOWN = 20
"""Images that people are shown if answers drift."""
LATE_VERSIONS = 3
"""Most versions whose tests are kept, so that a rollback goes on with its own."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
    day INTEGER NOT NULL, model INTEGER NOT NULL, item TEXT NOT NULL, sure INTEGER NOT NULL,
    count INTEGER NOT NULL, score REAL NOT NULL, PRIMARY KEY (day, model, item, sure)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS audits (
    sure INTEGER NOT NULL, day INTEGER NOT NULL, number REAL NOT NULL, image TEXT NOT NULL UNIQUE,
    at REAL NOT NULL, model INTEGER NOT NULL, item TEXT NOT NULL, said TEXT, PRIMARY KEY (sure, day, number)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS drifts (model INTEGER PRIMARY KEY, at REAL NOT NULL, state TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS drifting (
    image TEXT PRIMARY KEY, at REAL NOT NULL, model INTEGER NOT NULL
) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer as it was given to the sender.

    Args:
        image: place of the image: `<bucket>/<key>`.
        item: the product that was answered, `other` where it was not known.
        score: score of the model's first choice, 0..1.
        sure: whether it was known, and its score reaches `CERTAIN_SCORE`.
        guess: the model's first choice.
        products: probabilities of all classes but `other`; empty where the model does not say.

    """

    image: str
    item: str
    score: float
    sure: bool
    guess: str = ""
    products: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Audit:
    """An image that waits for a label: when it was answered (seconds since 1970), why it is asked about.

    Where two versions differ, `answers` has what each said, the older first.
    """

    image: str
    at: float
    why: Literal["audit", "drift", "differing"] = "audit"
    answers: tuple[Said, ...] = ()


class QualityNotes:
    """The tables, open.

    Args:
        db: the journal's connection.
        per_week: confident answers in the sample of a week, about; 0 for none.
        draw: a random number in [0, 1).

    """

    def __init__(self, db: sqlite3.Connection, per_week: int, draw: Callable[[], float]) -> None:
        self._db = db
        self._draw = draw
        self._per_week = per_week
        self._most_per_week = {True: MOST * per_week, False: -(-per_week // UNSURE_SHARE)}
        self._reservoirs: dict[tuple[bool, int], Reservoir] = {}
        self._tests: dict[int, DriftTest] = {}
        self._recent: deque[tuple[int, float, Answered, tuple[float, ...]]] = deque(maxlen=RECENT)

    def read_again(self) -> None:
        """Go back to what the disk has, after a transaction that failed."""
        self._reservoirs.clear()
        self._tests.clear()

    # --- inside a transaction -----------------------------------------------------------------------

    def add(self, answered: Answered, model: int, now: float) -> None:
        """Count an answer, and draw whether it may be audited."""
        sure, day = answered.sure, int(now // DAY)
        self._db.execute(
            "INSERT INTO answers VALUES (?, ?, ?, ?, 1, ?) ON CONFLICT DO UPDATE"
            " SET count = count + 1, score = score + excluded.score",
            (day, model, answered.item, sure, answered.score),
        )
        reservoir = self._reservoir(sure, day)
        number = self._draw()
        if reservoir.takes(number):
            self._db.execute(
                "INSERT OR IGNORE INTO audits VALUES (?, ?, ?, ?, ?, ?, ?, NULL)",
                (sure, day, number, answered.image, now, model, answered.item),
            )
            for gone in reservoir.given_way():
                self._db.execute(
                    "DELETE FROM audits WHERE sure = ? AND day = ? AND number = ?", (sure, day, gone)
                )

    def look(self, answered: Answered, look: tuple[float, ...], model: int, now: float) -> None:
        """Ask whether answers drift; `look` is how the photo looks. An alarm chooses images for a label."""
        test = self._test(model)
        scores = statistics(answered.guess, answered.score, answered.products, OTHER)
        self._recent.append((model, now, answered, (*scores, *look)))
        draws = [self._draw() for _ in range(STATISTICS)]
        is_news = test.look((*scores, *look), now, draws, is_product=answered.guess != OTHER)
        self._db.execute(
            "INSERT OR REPLACE INTO drifts VALUES (?, ?, ?)", (model, test.last, json.dumps(test.state))
        )
        if not is_news:
            return
        since = [each for each in self._recent if each[0] == model and each[1] >= test.since]
        said = min(len(one.products) for _, _, one, _ in since)  # a model may say less at times
        points = [(*seen, *one.products[:said]) for _, _, one, seen in since]
        chosen = [since[index] for index in spread(points, SHOWN)]
        self._db.executemany(
            "INSERT OR IGNORE INTO drifting VALUES (?, ?, ?)",
            [(one.image, at, model) for _, at, one, _ in chosen],
        )
        metrics.DRIFTS.inc()
        log.warning("answers drift", since=test.since, images=len(chosen))

    def forget(self, now: float) -> None:
        """Let go of the days that are not asked about any more, and of versions long gone."""
        self._db.execute(
            "DELETE FROM drifts WHERE model NOT IN (SELECT model FROM drifts ORDER BY at DESC LIMIT ?)",
            (LATE_VERSIONS,),
        )
        first = _first_day(now)
        self._db.execute(
            "DELETE FROM drifting WHERE at < ? OR model NOT IN (SELECT model FROM drifts)", (first * DAY,)
        )
        self._begin_anew()
        self._db.execute("DELETE FROM answers WHERE day < ?", (first,))
        self._db.execute("DELETE FROM audits WHERE day < ?", (first,))
        self._reservoirs = {key: kept for key, kept in self._reservoirs.items() if key[1] >= first}

    def _begin_anew(self) -> None:
        """Forget the tests whose alarm has no image left that waits: what comes now is usual."""
        for (model,) in self._db.execute(
            "SELECT model FROM drifts WHERE model NOT IN (SELECT model FROM drifting)"
        ).fetchall():
            if self._test(model).alarm:
                self._db.execute("DELETE FROM drifts WHERE model = ?", (model,))
                del self._tests[model]

    def said(self, image: str, item: str) -> None:
        """Note what people say that an image shows: a product, or `other` where it is none.

        Once all images of a drift are labelled, its test begins anew.
        """
        asked = self._db.execute("SELECT model FROM drifting WHERE image = ?", (image,)).fetchone()
        if asked is not None:
            self._db.execute("DELETE FROM drifting WHERE image = ?", (image,))
            self._begin_anew()
        row = self._db.execute(
            "SELECT a.item, m.classes FROM audits a JOIN models m ON m.id = a.model"
            " WHERE a.image = ? AND a.said IS NULL",
            (image,),
        ).fetchone()
        if row is None:
            return
        answered, classes = row[0], strict_json.loads(row[1])
        # For a product that the model cannot know, `other` is the right answer.
        truth = item if not classes or item in classes else OTHER
        self._db.execute("UPDATE audits SET said = ? WHERE image = ?", (truth, image))
        metrics.AUDITS.labels("right" if truth == answered else "wrong").inc()

    # --- reading ------------------------------------------------------------------------------------

    def waiting(self, now: float) -> list[Audit]:
        """Return images that wait for a label: those that show a drift, then confident ones; oldest first.

        The unsure of the sample are not among them: people look at them in any case.
        """
        rows = self._db.execute("SELECT image, at FROM drifting ORDER BY at")
        drifting = {image: Audit(image, at, "drift") for image, at in rows}
        sample = self._sample(True, now)  # noqa: FBT003
        waiting = [
            Audit(image, at) for image, at, _, said in sample if said is None and image not in drifting
        ]
        return [*drifting.values(), *sorted(waiting, key=lambda audit: audit.at)]

    def drift(self) -> Drift | None:
        """Return the drift of the version that answers; None where its answers look as before."""
        row = self._db.execute(
            "SELECT d.state, m.version, (SELECT count(*) FROM drifting WHERE model = d.model)"
            " FROM drifts d JOIN models m ON m.id = d.model ORDER BY d.at DESC LIMIT 1"
        ).fetchone()
        if row is None:
            return None
        state, version, images = row
        test = DriftTest.of(strict_json.loads_object(state))
        return Drift(version, test.since, images) if test.alarm else None

    def asked(self, now: float) -> int:
        """Return how many confident answers the sample has."""
        return len(self._sample(True, now))  # noqa: FBT003

    def answers(self, now: float) -> list[Answers]:
        """Return the answers of today and the days before, with the labels that the sample has."""
        labels: dict[tuple[str, bool], list[str]] = {}
        for sure in (True, False):
            for _, _, item, said in self._sample(sure, now):
                if said is not None:
                    labels.setdefault((item, sure), []).append(said)
        rows = self._db.execute(
            "SELECT item, sure, sum(count), sum(score) FROM answers WHERE day >= ? GROUP BY item, sure",
            (_first_day(now),),
        )
        return [
            Answers(item, bool(sure), count, score / count, tuple(labels.get((item, bool(sure)), ())))
            for item, sure, count, score in rows
        ]

    def versions(self, now: float) -> list[int]:
        """Return the versions that gave these answers, oldest first."""
        rows = self._db.execute(
            "SELECT DISTINCT m.version FROM answers a JOIN models m ON m.id = a.model WHERE a.day >= ?"
            " ORDER BY m.version",
            (_first_day(now),),
        )
        return [version for (version,) in rows]

    def _sample(self, sure: bool, now: float) -> list[tuple[str, float, str, str | None]]:
        """Return image, time, answer and label of what is in the sample."""
        first = _first_day(now)
        (begin,) = self._db.execute(
            "SELECT min(day) FROM audits WHERE sure = ? AND day >= ?", (sure, first)
        ).fetchone()
        if begin is None:
            return []
        days = now / DAY - begin
        sample = self._db.execute(
            "SELECT image, at, item, said FROM audits WHERE sure = ? AND day >= ? ORDER BY number LIMIT ?",
            (sure, first, size(self._most_per_week[sure], days)),
        ).fetchall()
        if not sure:
            return sample
        wrong = (said not in {None, item} for _, _, item, said in sample)
        return sample[: length(wrong, self._per_week, days)]

    def _test(self, model: int) -> DriftTest:
        if model not in self._tests:
            row = self._db.execute("SELECT state FROM drifts WHERE model = ?", (model,)).fetchone()
            self._tests[model] = DriftTest.of(strict_json.loads_object(row[0])) if row else DriftTest()
        return self._tests[model]

    def _reservoir(self, sure: bool, day: int) -> Reservoir:
        if (sure, day) not in self._reservoirs:
            rows = self._db.execute(
                "SELECT number FROM audits WHERE sure = ? AND day = ? ORDER BY number", (sure, day)
            )
            most = size(self._most_per_week[sure], DAYS + 1)
            self._reservoirs[sure, day] = Reservoir(most, [number for (number,) in rows])
        return self._reservoirs[sure, day]


def _first_day(now: float) -> int:
    return int(now // DAY) - DAYS
