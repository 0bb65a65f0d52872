"""Edge scoring in the event loop: notes detections before their replies, closes windows, sends messages."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Any, Concatenate, NoReturn, ParamSpec, Protocol, Self, TypeVar

import structlog

from caravan import telemetry, times
from caravan.contracts import EDGE_METRICS, OTHER
from caravan.errors import Permanent, Transient
from shopper import metrics, routes
from shopper.detection import Recognition
from shopper.ports import Ends, Sender
from shopper.quality.drift import appearance
from shopper.quality.notes import Answered, Audit
from shopper.quality.report import accuracy
from shopper.scoring import values as scoring
from shopper.scoring.journal import Journal, is_damage
from shopper.scoring.values import Message, Scored

log = structlog.get_logger()
P = ParamSpec("P")
T = TypeVar("T")

NOTE_SECONDS = 1.0
"""Seconds that a reply waits for its note."""
AWAY_SECONDS = 5.0
"""Seconds for which no reply waits for a disk that was too slow."""
MOST_WAITING = 1000
"""Most notes on their way to the disk."""
LATE_SECONDS = 0.05
"""Seconds between a window's end and its closing."""
SENT_AT_ONCE = 64
BYTES_AT_ONCE = 2**20
LOOK_SECONDS = 1.0
"""Least seconds between two answers whose appearance is tested."""
LAST_SECONDS = 2.0
"""Deadline in seconds for the last messages when the process ends."""


class Send(Protocol):
    """Sends a message to Kafka."""

    async def __call__(self, topic: str, value: bytes | None, *, key: bytes | None = None) -> None:
        """Return once the broker has it."""
        ...


class ScoringOutbox:
    """Notes every detection on the disk in the same breath as its reply, and carries the notes to Kafka.

    The note is best effort towards the sender: when the disk fails or hangs, detections go on, and what
    could not be noted is logged and counted (`caravan_best_effort_failures_total{sink="edge-metrics"}`). What
    is noted is sent, once, whatever is killed when.

    Notes that come while one transaction is on its way to the disk share the next.

    Args:
        open_journal: opens the file; in the outbox's own thread, and again after a failure.
        send: sends one message to Kafka.
        make_topic: makes the topic if it is not there.
        certain_score: the score from which a detection is certain.
        audited_model: the one whose answers are audited, as training images are for it alone.
        window_seconds: length of a window.
        max_message_bytes: most bytes of one Kafka message.
        look_seconds: between two answers that are asked whether they look like those before.
        clock: seconds since 1970.

    """

    def __init__(
        self,
        open_journal: Callable[[], Journal],
        send: Send,
        make_topic: Callable[[], Awaitable[None]],
        *,
        certain_score: float,
        audited_model: str = "",
        window_seconds: float,
        max_message_bytes: int,
        look_seconds: float = LOOK_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._open_journal = open_journal
        self._send_one = send
        self._make_topic = make_topic
        self._certain_score = certain_score
        self._audited_model = audited_model
        self._window_seconds = window_seconds
        self._max_message_bytes = max_message_bytes
        self._look_seconds = look_seconds
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, "scoring")
        self._journal: Journal | None = None
        self._waiting: list[tuple[Scored, asyncio.Future[None]]] = []
        self._arrived = asyncio.Event()
        self._filled = asyncio.Event()
        self._away_until = 0.0
        self._newest: tuple[Scored, bytes] | None = None
        self._answered = asyncio.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        with suppress(Transient, TimeoutError):
            async with asyncio.timeout(LAST_SECONDS):
                await self._close_windows()
                while messages := await self._oldest():
                    with routes.EDGE_METRICS.exchange(begins_trace=False):
                        await self.settle(messages, await self.send(messages))
        if self._journal is not None and self._journal.messages:
            log.info("messages stay on disk for the next start", messages=self._journal.messages)
        self._thread.submit(self._shut)
        self._thread.shutdown(wait=False)

    # --- noting -----------------------------------------------------------------------------------

    async def record(
        self, recognition: Recognition, sender: Sender, photo: bytes, at: datetime, key: str
    ) -> None:
        """Note a detection; on return it survives the death of the process, or is counted as missing."""
        prediction = recognition.prediction
        certain = prediction.score >= self._certain_score
        camera = sender.camera or scoring.UNKNOWN
        answered = None
        if prediction.model == self._audited_model:
            image, item = f"{recognition.bucket}/{key}", recognition.product.item
            answered = Answered(
                image,
                item,
                prediction.score,
                sure=certain and recognition.known,
                guess=prediction.item,
                products=tuple(p for name, p in prediction.probabilities.items() if name != OTHER),
            )
        scored = Scored(camera, prediction, certain, at, None if certain else photo, answered)
        if answered is not None:
            self._newest = scored, photo
            self._answered.set()
        with telemetry.best_effort(routes.EDGE_METRICS.id):
            await self._noted(scored)

    async def _noted(self, scored: Scored) -> None:
        if len(self._waiting) >= MOST_WAITING:
            message = f"{MOST_WAITING} detections wait for the disk already"
            raise Transient(message)
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._waiting.append((scored, done))
        self._arrived.set()
        if loop.time() < self._away_until:
            done.add_done_callback(_taken_note_of)
            return
        try:
            async with asyncio.timeout(NOTE_SECONDS):
                await done
        except TimeoutError:
            self._away_until = loop.time() + AWAY_SECONDS
            raise

    async def write(self) -> NoReturn:
        """Write what arrives, all that has come meanwhile in one transaction; to be run as a task."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            taken, self._waiting = self._waiting, []
            error: Exception | None = None
            try:
                await self.on_disk(_add, [scored for scored, _ in taken], self._clock())
            except Transient as exc:
                error = exc
            for _, done in taken:
                if done.done():
                    continue
                if error is None:
                    done.set_result(None)
                else:
                    done.set_exception(error)
            if self._journal is not None and self._journal.messages:
                self._filled.set()

    # --- how good the answers are -----------------------------------------------------------------

    async def watch(self, shrink: Callable[[bytes], Awaitable[bytes]]) -> NoReturn:
        """Ask of the newest answer whether it looks like those before, once a second at most; as a task.

        `shrink` returns a photo's pixels as `appearance` takes them.

        No reply waits for it. Of a burst only some are asked, which keeps one camera from speaking for all.
        """
        while True:
            await self._answered.wait()
            self._answered.clear()
            newest, self._newest = self._newest, None
            if newest is not None:
                with telemetry.best_effort(routes.EDGE_METRICS.id):
                    look = appearance(await shrink(newest[1]))
                    await self.on_disk(Journal.look, newest[0], look, self._clock())
            await asyncio.sleep(self._look_seconds)

    async def audits(self) -> list[Audit]:
        """Return the images that wait for a label, whatever the answer was; none while the disk fails."""
        with suppress(Transient):
            return await self.on_disk(_audits, self._clock())
        return []

    async def said(self, image: str, item: str) -> None:
        """Note what people say that an image shows; best effort."""
        with telemetry.best_effort(routes.REVIEW_DECIDE.id):
            await self.on_disk(_said, image, item)

    async def accuracy(self, name: Callable[[str], str]) -> dict[str, Any]:
        """Return how good the answers of the last seven days were; `name` returns a product's label.

        Raises:
            Transient: if the disk will not.

        """
        return await self.on_disk(_accuracy, self._clock(), name)

    # --- closing and sending ----------------------------------------------------------------------

    async def close_windows(self) -> NoReturn:
        """Close each window when it has ended, whether detections come or not; to be run as a task."""
        while True:
            with telemetry.best_effort(routes.EDGE_METRICS.id):
                await self._close_windows()
            now = self._clock()
            _, end = scoring.window_bounds(now, self._window_seconds)
            await asyncio.sleep(end - now + LATE_SECONDS)

    async def _close_windows(self) -> None:
        if await self.on_disk(Journal.close_windows, self._clock()):
            self._filled.set()

    async def batches(self) -> AsyncIterator[Sequence[Message]]:
        """Yield the oldest messages, as soon as there are some, until they are settled; makes the topic."""
        await self._make_topic()
        while True:
            self._filled.clear()
            if messages := await self._oldest():
                yield messages
            else:
                await self._filled.wait()

    async def send(self, messages: Sequence[Message]) -> Ends:
        """Send messages side by side; return how each ended: None, or its error."""
        return await asyncio.gather(*map(self._sent, messages), return_exceptions=True)

    async def settle(self, messages: Sequence[Message], ends: Ends) -> None:
        """Remove the messages that Kafka has, and hold back those that it refuses.

        Raises:
            Transient: if Kafka, or the disk, was away for any of them: it stays.

        """
        sent = [message.number for message, end in zip(messages, ends, strict=True) if end is None]
        await self.on_disk(Journal.remove, sent)
        for message, end in zip(messages, ends, strict=True):
            if isinstance(end, Permanent):
                # It must not hold up the others, and what it counted must not be lost.
                await self.on_disk(Journal.refuse, message.number)
            elif end is not None:
                raise end

    async def _oldest(self) -> list[Message]:
        return await self.on_disk(Journal.oldest, SENT_AT_ONCE, BYTES_AT_ONCE)

    async def _sent(self, message: Message) -> None:
        try:
            await self._send_value(message)
        except Permanent as exc:
            log.warning("Kafka refuses a message", kind=message.kind, error=str(exc))
            if message.image is None:
                raise
            metrics.SCORING_DROPPED.labels("too-large").inc()
            await self._send_value(replace(message, image=None))

    async def _send_value(self, message: Message) -> None:
        # An image may be large, or have to be scaled down; counts are not worth a thread.
        value = (
            scoring.encode(message, self._max_message_bytes)
            if message.image is None
            else await asyncio.to_thread(scoring.encode, message, self._max_message_bytes)
        )
        await self._send_one(EDGE_METRICS, value, key=message.camera.encode())

    # --- the thread -------------------------------------------------------------------------------

    async def on_disk(
        self, job: Callable[Concatenate[Journal, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Do a job on the journal, in the one thread that ever touches it.

        Raises:
            Transient: if the disk will not.

        """

        def run() -> T:
            if self._journal is None:
                self._journal = self._open_journal()
            try:
                return job(self._journal, *args, **kwargs)
            except sqlite3.DatabaseError as exc:
                if is_damage(exc):
                    self._journal.mark_damaged()
                    self._journal = None
                raise

        try:
            result = await asyncio.get_running_loop().run_in_executor(self._thread, run)
        except (sqlite3.Error, OSError) as exc:
            message = f"the journal of edge scoring: {exc}"
            raise Transient(message) from exc
        if self._journal is not None:
            metrics.SCORING_OUTBOX_MESSAGES.set(self._journal.messages)
            metrics.SCORING_OUTBOX_BYTES.set(self._journal.bytes)
        return result

    def _shut(self) -> None:
        if self._journal is not None:
            self._journal.close()


def _add(journal: Journal, detections: list[Scored], now: float) -> None:
    try:
        journal.add(detections, now)
    except sqlite3.Error:
        # A disk that is full takes a count sooner than an image.
        images = sum(not scored.certain for scored in detections)
        if not images:
            raise
        journal.add([replace(scored, image=None) for scored in detections], now)
        metrics.SCORING_DROPPED.labels("disk").inc(images)


def _audits(journal: Journal, now: float) -> list[Audit]:
    differing = list(journal.canary.waiting())
    shown = {audit.image for audit in differing}
    return [*differing, *(audit for audit in journal.quality.waiting(now) if audit.image not in shown)]


def _said(journal: Journal, image: str, item: str) -> None:
    with journal.transaction():
        journal.canary.said(image, item)
        journal.quality.said(image, item)


def _accuracy(journal: Journal, now: float, name: Callable[[str], str]) -> dict[str, Any]:
    quality = journal.quality
    drift = quality.drift()
    return {
        "drift": drift
        and {"version": drift.version, "since": times.iso(drift.since), "images": drift.images},
        "asked": quality.asked(now),
        "versions": quality.versions(now),
        **accuracy(quality.answers(now), name),
    }


def _taken_note_of(done: asyncio.Future[None]) -> None:
    if not done.cancelled() and done.exception() is not None:
        telemetry.BEST_EFFORT_FAILURES.labels(routes.EDGE_METRICS.id).inc()
