"""Edge scoring on the edge's disk: what was counted and what is still to be sent, in one SQLite file.

A detection is a row from before its reply is sent; closing a window is one transaction that turns its rows
into a message of the outbox; a message leaves the outbox after Kafka has it. So whenever the process is
killed, each detection is in exactly one of: a row, a message of the outbox, Kafka; and where Kafka has a
message that is still in the outbox, its id tells the repeat.

Write-ahead log, `synchronous=NORMAL`: a commit survives the death of the process, and costs no sync. A loss
of power may take the last commits with it, never the file.

The file is not for network file systems. Every method blocks; one thread calls them all.
"""

from __future__ import annotations

import json
import random
import secrets
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

import structlog

from caravan import strict_json
from caravan.names import MORE
from shopper import metrics
from shopper.canary import notes as canary
from shopper.canary.notes import CanaryNotes
from shopper.quality import notes
from shopper.quality.notes import QualityNotes
from shopper.scoring.values import (
    Message,
    Scored,
    Window,
    WindowDetection,
    uncertain_body,
    window_body,
    window_bounds,
)

log = structlog.get_logger()

FILE = "scoring.sqlite"
DAMAGED = ".damaged"
BUSY_SECONDS = 5.0
EVICTED_AT_ONCE = 64
MOST_CAMERAS = 200
"""Most cameras of one window; the others are counted as one."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS journal (name TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS models (
    id INTEGER PRIMARY KEY, model TEXT NOT NULL, version INTEGER NOT NULL, classes TEXT NOT NULL,
    UNIQUE (model, version, classes)
);
CREATE TABLE IF NOT EXISTS detections (
    id INTEGER PRIMARY KEY AUTOINCREMENT, start REAL NOT NULL, end REAL NOT NULL, camera TEXT NOT NULL,
    model INTEGER NOT NULL, item TEXT NOT NULL, certain INTEGER NOT NULL, prep REAL NOT NULL,
    predict REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS outbox (
    number INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, refused INTEGER NOT NULL DEFAULT 0,
    size INTEGER NOT NULL, camera TEXT NOT NULL, body TEXT NOT NULL, image BLOB
);
CREATE INDEX IF NOT EXISTS uncertain ON outbox (number) WHERE kind = 'uncertain';
"""


class Journal:
    """The file, open.

    Args:
        folder: made if it is not there.
        edge: the edge named in messages.
        window_seconds: length of a window.
        certain_score: named in the messages as the threshold.
        max_bytes: of all messages that wait; beyond it uncertain images give way, the oldest first. Counts
            never do; but where they alone are more, cameras are no longer told apart.
        audits_per_week: confident answers of which people are asked whether they are right.
        draw: a random number in [0, 1).

    Attributes:
        messages: number of waiting messages.
        bytes: bytes of all waiting messages.
        quality: samples and tests of the answers' quality.
        canary: what is known of versions that are compared.

    """

    def __init__(
        self,
        folder: Path,
        edge: str,
        window_seconds: float,
        certain_score: float,
        max_bytes: int,
        *,
        audits_per_week: int = 0,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._edge = edge
        self._window_seconds = window_seconds
        self._certain_score = certain_score
        self._max_bytes = max_bytes
        self._models: dict[tuple[str, int, tuple[str, ...]], int] = {}
        self._cameras: tuple[float, set[str]] = (0.0, set())
        self._file = folder / FILE
        folder.mkdir(parents=True, exist_ok=True)
        try:
            self._db = _opened(self._file)
        except sqlite3.DatabaseError as exc:
            if not is_damage(exc):
                raise
            _mark_damaged(self._file)
            self._db = _opened(self._file)
        self.quality = QualityNotes(self._db, audits_per_week, draw)
        self.canary = CanaryNotes(self._db)
        with self.transaction():
            self._name = self._named()
            self._db.execute("UPDATE outbox SET refused = 0 WHERE refused")
        self.messages, self.bytes = self._db.execute("SELECT count(*), total(size) FROM outbox").fetchone()
        self.bytes = int(self.bytes)

    def add(self, detections: Sequence[Scored], now: float) -> None:
        """Note detections, all or none; `now` says in which window, in seconds since 1970.

        It is the time of noting, not that of the image, so that no window ever gets a row after it is closed.

        Raises:
            sqlite3.Error: if the disk does not take them.

        """
        start, end = window_bounds(now, self._window_seconds)
        before = self.messages, self.bytes
        try:
            with self.transaction():
                for scored in detections:
                    self._add(scored, start, end, now)
                self._make_room()
        except sqlite3.Error:
            self.messages, self.bytes = before
            self._models.clear()
            self.quality.read_again()
            raise

    def look(self, scored: Scored, look: tuple[float, ...], now: float) -> None:
        """Ask whether the answers of a version drift; `look` is how the photo looks.

        Raises:
            sqlite3.Error: if the disk does not take it.

        """
        if scored.answered is None:
            return
        prediction = scored.prediction
        try:
            with self.transaction():
                model = self._model(prediction.model, prediction.version, prediction.classes)
                self.quality.look(scored.answered, look, model, now)
        except sqlite3.Error:
            self._models.clear()
            self.quality.read_again()
            raise

    def close_windows(self, now: float) -> int:
        """Turn the windows that have ended into messages; return how many.

        So are those that have not begun: the clock was ahead when they were noted.

        Raises:
            sqlite3.Error: if the disk does not take them.

        """
        before = self.messages, self.bytes
        closed = 0
        try:
            with self.transaction():
                rows = self._db.execute(
                    "SELECT d.start, d.end, d.camera, m.model, m.version, m.classes,"
                    " d.id, d.item, d.certain, d.prep, d.predict FROM detections d, models m"
                    " WHERE m.id = d.model AND (d.end <= ? OR d.start > ?)"
                    " ORDER BY d.start, d.end, d.camera, d.model, d.id",
                    (now, now),
                )
                for (start, end, camera, model, version, classes), group in groupby(
                    rows, lambda row: row[:6]
                ):
                    found = list(group)
                    window = Window(start, end, camera, model, version, tuple(strict_json.loads(classes)))
                    counts = [
                        WindowDetection(item, bool(certain), prep, predict)
                        for *_, item, certain, prep, predict in found
                    ]
                    # Named by its last row: a clock set back gives a window more rows and one more message.
                    name = f"{self._name}-{found[-1][6]}w"
                    body = window_body(name, self._edge, self._certain_score, window, counts)
                    self._post("window", camera, body, None)
                    closed += 1
                self._db.execute("DELETE FROM detections WHERE end <= ? OR start > ?", (now, now))
                self.quality.forget(now)
        except sqlite3.Error:
            self.messages, self.bytes = before
            raise
        return closed

    def oldest(self, most: int, most_bytes: int) -> list[Message]:
        """Return the oldest messages, in order: up to `most`, and up to so many bytes, but at least one."""
        found: list[Message] = []
        total = 0
        for number, kind, size, camera, body in self._db.execute(
            "SELECT number, kind, size, camera, body FROM outbox WHERE NOT refused ORDER BY number LIMIT ?",
            (most,),
        ):
            total += size
            if found and total > most_bytes:
                break
            found.append(Message(number, kind, camera, body, self._image(number)))
        return found

    def remove(self, numbers: Iterable[int]) -> None:
        """Take messages out that Kafka has."""
        removed = [0, 0]
        with self.transaction():
            for number in numbers:
                row = self._db.execute("SELECT size FROM outbox WHERE number = ?", (number,)).fetchone()
                if row is not None:  # else it gave way meanwhile
                    self._db.execute("DELETE FROM outbox WHERE number = ?", (number,))
                    removed[0] += 1
                    removed[1] += row[0]
        self.messages -= removed[0]
        self.bytes -= removed[1]

    def refuse(self, number: int) -> None:
        """Keep a message that Kafka refuses out of the way; it is tried again after the next start."""
        with self.transaction():
            self._db.execute("UPDATE outbox SET refused = 1 WHERE number = ?", (number,))

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def mark_damaged(self) -> None:
        """Close the file and rename it: the next journal is a new one."""
        self.close()
        _mark_damaged(self._file)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Do all of what is within, or nothing."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    # --- inside a transaction ---------------------------------------------------------------------

    def _add(self, scored: Scored, start: float, end: float, now: float) -> None:
        prediction = scored.prediction
        model = self._model(prediction.model, prediction.version, prediction.classes)
        row = self._db.execute(
            "INSERT INTO detections (start, end, camera, model, item, certain, prep, predict)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                start,
                end,
                self._camera(scored.camera, start),
                model,
                prediction.item,
                scored.certain,
                prediction.prep_seconds,
                prediction.predict_seconds,
            ),
        )
        if scored.answered is not None:
            self.quality.add(scored.answered, model, now)
        if not scored.certain:
            body = uncertain_body(f"{self._name}-{row.lastrowid}", self._edge, scored)
            self._post("uncertain", scored.camera, body, scored.image)

    def _post(self, kind: str, camera: str, body: str, image: bytes | None) -> None:
        size = len(body) + len(image or b"")
        self._db.execute(
            "INSERT INTO outbox (kind, size, camera, body, image) VALUES (?, ?, ?, ?, ?)",
            (kind, size, camera, body, image),
        )
        self.messages += 1
        self.bytes += size

    def _make_room(self) -> None:
        while self.bytes > self._max_bytes:
            oldest = self._db.execute(
                "SELECT number, size FROM outbox WHERE kind = 'uncertain' ORDER BY number LIMIT ?",
                (EVICTED_AT_ONCE,),
            ).fetchall()
            if not oldest:
                return
            for number, size in oldest:
                if self.bytes <= self._max_bytes:
                    return
                self._db.execute("DELETE FROM outbox WHERE number = ?", (number,))
                self.messages -= 1
                self.bytes -= size
                metrics.SCORING_DROPPED.labels("full").inc()

    def _camera(self, name: str, start: float) -> str:
        """Return the name that a camera's image is counted under in a window: made-up names are many."""
        if self._cameras[0] != start:
            rows = self._db.execute("SELECT DISTINCT camera FROM detections WHERE start = ?", (start,))
            self._cameras = start, {camera for (camera,) in rows}
        known = self._cameras[1]
        if name not in known:
            if self.bytes > self._max_bytes or len(known) >= MOST_CAMERAS:
                return MORE
            known.add(name)
        return name

    def _model(self, model: str, version: int, classes: tuple[str, ...]) -> int:
        key = model, version, classes
        if key not in self._models:
            text = json.dumps(classes)
            self._db.execute(
                "INSERT OR IGNORE INTO models (model, version, classes) VALUES (?, ?, ?)",
                (model, version, text),
            )
            (self._models[key],) = self._db.execute(
                "SELECT id FROM models WHERE model = ? AND version = ? AND classes = ?",
                (model, version, text),
            ).fetchone()
        return self._models[key]

    def _named(self) -> str:
        # Numbers start over with a new file; its own name keeps its messages apart from the old one's.
        row = self._db.execute("SELECT name FROM journal").fetchone()
        if row is None:
            row = (secrets.token_hex(6),)
            self._db.execute("INSERT INTO journal VALUES (?)", row)
        return str(row[0])

    def _image(self, number: int) -> bytes | None:
        row = self._db.execute("SELECT image FROM outbox WHERE number = ?", (number,)).fetchone()
        return None if row is None else row[0]


def is_damage(error: sqlite3.Error) -> bool:
    """Tell whether an error says that the file is no database any more, not only that the disk will not."""
    return (error.sqlite_errorcode or 0) & 0xFF in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def _mark_damaged(file: Path) -> None:
    log.error("damaged journal is renamed", file=str(file), as_=f"{file.name}{DAMAGED}")
    for suffix in ("", "-wal", "-shm"):  # a new file must not be given the log of the old one
        part = file.with_name(file.name + suffix)
        if part.exists():
            part.rename(part.with_name(part.name + DAMAGED))


def _opened(file: Path) -> sqlite3.Connection:
    # Made in one thread and closed, after the loops have ended, perhaps in another.
    db = sqlite3.connect(file, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.executescript(SCHEMA + notes.SCHEMA + canary.SCHEMA)
    except BaseException:
        db.close()
        raise
    return db
