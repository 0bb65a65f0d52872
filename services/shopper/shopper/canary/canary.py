"""Lets a new version answer a share of the images, and asks the other version in the shadow."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Concatenate, NoReturn, ParamSpec, Protocol, TypeVar

import structlog

from caravan import telemetry
from caravan.contracts import trusted_event
from caravan.errors import CaravanError, Transient
from caravan.evidence import Differing, Evidence
from shopper import events, metrics
from shopper.canary.comparing import (
    Pair,
    are_sure_and_differ,
    digest_of,
    guess,
    is_drawn,
    said,
    version_before,
)
from shopper.canary.notes import Comparison
from shopper.model.models import Served
from shopper.ports import NotServed, Photo, Picture, Pixels, Post, Prediction
from shopper.scoring.journal import Journal

log = structlog.get_logger()
P = ParamSpec("P")
T = TypeVar("T")

SINK = "canary"
MOST_WAITING = 8
"""Most images that wait to be compared; what comes while they do is not compared."""
MOST_BYTES = 16 * 2**20
"""Most bytes of these images."""
MOST_REMEMBERED = 10_000
"""Most images of which it is remembered that they were compared: a repeat says nothing new."""
LOOK_SECONDS = 10.0
"""Seconds until it is looked again which versions there are, while the newest is not asked."""
SOON_SECONDS = 1.0
AGAIN_SECONDS = 60.0
"""Seconds after which it is told again which version is trusted: the event is best effort."""


class Versioned(Served, Protocol):
    """One version of a model at the model server, or its newest."""

    async def versions(self) -> Mapping[int, bool]:
        """Return the versions that are loaded (true) or on their way; raise CaravanError if unknown."""
        ...


class OnDisk(Protocol):
    """Does a job on the journal, in its thread; raises Transient if the disk will not."""

    async def __call__(
        self, job: Callable[Concatenate[Journal, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Return what the job returns."""
        ...


@dataclass(frozen=True, slots=True)
class _Trial:
    """Two versions that are compared; once the new one is stopped, the one before answers alone."""

    model: str
    candidate: int
    beside: int
    before: Versioned
    is_stopped: bool = False


@dataclass(frozen=True, slots=True)
class _Answer:
    """An answer that was given, of whose image the other version is to be asked."""

    trial: _Trial
    image: Picture | Photo
    prediction: Prediction
    place: str
    digest: bytes

    @property
    def size(self) -> int:
        """Bytes of the image."""
        if isinstance(self.image, Pixels):
            return self.image.values.nbytes
        return (
            len(self.image.sent) + len(self.image.jpeg) if isinstance(self.image, Photo) else len(self.image)
        )


class Canary:
    """A model whose newest version answers a share of the images until it is known to be no worse.

    The others are answered by the version before. After each answer the other version is asked about the same
    image too, one at a time; where there are more, they are passed over. Where one version fails, the other
    answers. A model with one version is asked as without all this.

    Args:
        model: its name.
        serve: makes what asks one version of the model; 0 stands for the newest.
        share: share of the images that a new version answers, 0..1.
        score_accuracy: least score of a known answer.
        on_disk: does a job on the journal.
        shrink: makes a small JPEG of an image; CaravanError if it cannot.
        is_rollback: tells whether a version is one that an operator rolled back to; it answers at once.
        post: takes events.
        look_seconds: until it is looked again which versions there are, while the newest is not asked.
        soon_seconds: between two such looks.

    """

    def __init__(
        self,
        model: str,
        serve: Callable[[int], Versioned],
        share: float,
        *,
        score_accuracy: float,
        on_disk: OnDisk,
        shrink: Callable[[Picture | Photo], Awaitable[bytes]],
        is_rollback: Callable[[int], Awaitable[bool]],
        post: Post,
        look_seconds: float = LOOK_SECONDS,
        soon_seconds: float = SOON_SECONDS,
    ) -> None:
        self._model = model
        self._serve = serve
        self._share = share
        self._score_accuracy = score_accuracy
        self._on_disk = on_disk
        self._shrink = shrink
        self._is_rollback = is_rollback
        self._post = post
        self._look_seconds = look_seconds
        self._soon_seconds = soon_seconds
        self._newest = serve(0)
        self._version = 0
        self._new = 0  # had not answered when it was seen first
        self._answering = 0
        self._trusts_another = asyncio.Event()
        self._trial: _Trial | None = None
        self._looking = asyncio.Lock()
        self._is_stale = asyncio.Event()
        self._waiting: asyncio.Queue[_Answer | None] = asyncio.Queue(MOST_WAITING)
        self._bytes = 0
        self._compared: OrderedDict[bytes, None] = OrderedDict()
        self._unnoted: Evidence | None = None

    @property
    def waiting(self) -> int:
        """Number of images that wait to be compared."""
        return self._waiting.qsize()

    # --- answering --------------------------------------------------------------------------------

    async def classify(self, image: Picture | Photo) -> Prediction:
        """Return the opinion of the version whose turn it is; raises as the model's own `classify` does."""
        if self._trial is not None:
            return await self._tried(self._trial, image)
        prediction = await self._newest.classify(image)
        if prediction.version != self._version:
            await self._look(prediction.version)
            if self._trial is not None:
                return await self._tried(self._trial, image)
        return prediction

    async def is_known(self) -> bool:
        """Tell whether the model server knows the model."""
        return await self._newest.is_known()

    async def ping(self) -> None:
        """Check that the model server answers."""
        await self._newest.ping()

    async def _tried(self, trial: _Trial, image: Picture | Photo) -> Prediction:
        if trial.is_stopped:
            return await self._stopped(trial, image)
        digest = digest_of(image)
        drawn = is_drawn(digest, self._share)
        first, second = (self._newest, trial.before) if drawn else (trial.before, self._newest)
        try:
            prediction = await first.classify(image)
        except CaravanError as exc:
            try:
                prediction = await second.classify(image)
            except CaravanError:
                raise exc from None
            if isinstance(exc, NotServed):
                self._is_stale.set()  # it is gone, which says nothing of its answers
            elif self._remember(digest):
                self._failed(trial, of_candidate=drawn)
            self._answered(trial, prediction)
            return replace(prediction, digest=digest)
        self._answered(trial, prediction)
        if drawn and prediction.version < trial.candidate:
            self._is_stale.set()  # the new version was withdrawn
        if prediction.version > trial.candidate:
            await self._look(prediction.version)
        now = self._trial
        if prediction.version > trial.candidate and now is not None and now.candidate == prediction.version:
            return await self._tried(now, image)
        return replace(prediction, digest=digest)

    def _answered(self, trial: _Trial, prediction: Prediction) -> None:
        if prediction.version == trial.candidate:
            metrics.CANARY_ANSWERS.inc()
            self._unnoted = _sum(self._unnoted, replace(_none(trial), answers=1))

    async def _stopped(self, trial: _Trial, image: Picture | Photo) -> Prediction:
        try:
            return await trial.before.classify(image)
        except NotServed:
            self._is_stale.set()
            return await self._newest.classify(image)

    # --- comparing --------------------------------------------------------------------------------

    def compare(self, image: Picture | Photo, prediction: Prediction, place: str) -> None:
        """Have the other version asked about an image that was answered; this never waits or fails.

        Args:
            image: the image, as the model was shown it.
            prediction: the answer, of whatever model.
            place: where the image is kept: `<bucket>/<key>`.

        """
        trial = self._trial
        if trial is None or trial.is_stopped or prediction.model != self._model:
            return
        answer = _Answer(trial, image, prediction, place, prediction.digest or digest_of(image))
        if self._waiting.full() or self._bytes + answer.size > MOST_BYTES:
            metrics.CANARY_PASSED_OVER.inc()
        elif self._remember(answer.digest):
            self._bytes += answer.size
            self._waiting.put_nowait(answer)

    async def run(self) -> NoReturn:
        """Compare, one image at a time; to be run as a task."""
        while True:
            answer = await self._waiting.get()
            with telemetry.best_effort(SINK):
                if answer is None:
                    await self._note(None, None)
                else:
                    self._bytes -= answer.size
                    await self._ask_other(answer)

    async def _ask_other(self, answer: _Answer) -> None:
        trial, first = answer.trial, answer.prediction
        if trial is not self._trial or first.version not in {trial.candidate, trial.beside}:
            return
        is_candidate = first.version == trial.candidate
        try:
            second = await (trial.before if is_candidate else self._newest).classify(answer.image)
        except NotServed:
            self._is_stale.set()
            return
        except CaravanError:
            self._failed(trial, of_candidate=not is_candidate)
            return
        new, old = (first, second) if is_candidate else (second, first)
        if (new.version, old.version) != (trial.candidate, trial.beside):
            self._is_stale.set()
            return
        candidate, beside = (said(each, self._score_accuracy) for each in (new, old))
        what = guess(candidate, beside, old.classes)
        metrics.CANARY_IMAGES.labels(what).inc()
        seen = replace(_none(trial), compared=1, worse=int(what == "worse"), better=int(what == "better"))
        picture = await self._picture(answer.image) if are_sure_and_differ(candidate, beside) else b""
        await self._note(seen, Pair(answer.place, candidate, beside, what, answer.digest, picture))

    async def _picture(self, image: Picture | Photo) -> bytes:
        try:
            return await self._shrink(image)
        except CaravanError as exc:
            log.warning("an image where versions differ has no picture", model=self._model, error=str(exc))
            return b""

    def _remember(self, digest: bytes) -> bool:
        """Remember an image; return whether it is a new one."""
        if digest in self._compared:
            return False
        self._compared[digest] = None
        while len(self._compared) > MOST_REMEMBERED:
            self._compared.popitem(last=False)
        return True

    def _failed(self, trial: _Trial, *, of_candidate: bool) -> None:
        """Count an image at which one version failed, and the other did not."""
        metrics.CANARY_IMAGES.labels("failed" if of_candidate else "failed-before").inc()
        failure = replace(_none(trial), errors=int(of_candidate), errors_beside=int(not of_candidate))
        self._unnoted = _sum(self._unnoted, failure)
        if self._waiting.empty():
            self._waiting.put_nowait(None)  # to be noted though no image is compared

    async def _note(self, seen: Evidence | None, pair: Pair | None) -> None:
        unnoted, self._unnoted = self._unnoted, None
        seen = _sum(unnoted, seen)
        if seen is None:
            return
        try:
            comparison = await self._on_disk(_add, seen, pair, time.time())
        except Transient:
            self._unnoted = _sum(seen, self._unnoted)
            raise
        self._take(comparison)

    # --- deciding ---------------------------------------------------------------------------------

    async def stand(self) -> Comparison | None:
        """Return the comparison that runs, or else the latest; None if there was none.

        Raises:
            Transient: if the disk will not.

        """
        trial = self._trial
        if trial is None or trial.is_stopped:
            comparison = await self._on_disk(_latest, self._model)
            if comparison is None:
                return None
        else:
            comparison = await self._on_disk(_begin, _none(trial))
            self._take(comparison)
        return replace(comparison, differing=await self._on_disk(_differing, comparison.evidence))

    async def picture(self, differing: str) -> bytes:
        """Return a small JPEG of an image where versions differ, by its id; empty where there is none.

        Raises:
            Transient: if the disk will not.

        """
        return await self._on_disk(_shown, differing)

    def _take(self, comparison: Comparison) -> None:
        """Go by what was decided, if it is of the versions that are compared now."""
        trial, seen, outcome = self._trial, comparison.evidence, comparison.outcome
        if outcome == "wait" or trial is None or trial.is_stopped:
            return
        if (seen.version, seen.beside) != (trial.candidate, trial.beside):
            return
        self._trial = replace(trial, is_stopped=True) if outcome == "stop" else None
        self._trust(trial.beside if outcome == "stop" else trial.candidate)
        self._is_stale.set()
        metrics.CANARY_VERDICTS.labels(outcome).inc()
        log.warning(
            "versions were compared", outcome=outcome, model=self._model, reason=comparison.verdict.says
        )
        self._post(events.canary(comparison))

    def _trust(self, version: int) -> None:
        if version != self._answering:
            self._answering = version
            self._trusts_another.set()

    async def tell(self) -> NoReturn:
        """Tell which version is trusted, when that changes and each minute; to be run as a task.

        The edge-manager has it served as long as it is, however many newer ones come.
        """
        while True:
            self._trusts_another.clear()
            if self._answering:
                self._post(trusted_event(self._model, self._answering))
            with suppress(TimeoutError):
                async with asyncio.timeout(AGAIN_SECONDS):
                    await self._trusts_another.wait()

    async def watch(self) -> NoReturn:
        """Look which versions there are when an answer was not as expected; to be run as a task."""
        while True:
            is_stopped = self._trial is not None and self._trial.is_stopped
            with suppress(TimeoutError):
                async with asyncio.timeout(self._look_seconds if is_stopped else None):
                    await self._is_stale.wait()
            self._is_stale.clear()
            await self._look()
            await asyncio.sleep(self._soon_seconds)

    async def _look(self, seen: int = 0) -> None:
        """Ask which versions there are, and compare the newest with the one before.

        `seen` is a version that answered, and was not expected to.

        Where that cannot be known, the newest answers, and it is tried again.
        """
        async with self._looking:
            if seen and seen == self._version:
                return
            try:
                if seen and not await self._on_disk(_has_answered, self._model, seen):
                    self._new = seen
                served = await self._newest.versions()
                newest = seen or max(
                    (version for version, is_loaded in served.items() if is_loaded), default=0
                )
                if newest:
                    self._begin(newest, await self._paired(newest, served))
            except CaravanError as exc:
                log.warning("versions are not known", model=self._model, error=str(exc))
                self._is_stale.set()
                if seen:
                    self._version, self._trial = seen, None

    async def _paired(self, newest: int, served: Collection[int]) -> _Trial | None:
        if newest != self._new and await self._on_disk(_has_answered, self._model, newest):
            return None
        if await self._on_disk(_has_won, self._model, newest) or await self._is_rollback(newest):
            return None
        stopped = await self._on_disk(_stopped, self._model)
        beside = version_before(newest, served, stopped, self._answering)
        if beside is None:
            if stopped:
                log.warning("no version before is served any more", model=self._model, version=newest)
            return None
        if newest not in stopped:
            await self._on_disk(_begin, Evidence(self._model, newest, beside))
        return _Trial(self._model, newest, beside, self._serve(beside), newest in stopped)

    def _begin(self, newest: int, trial: _Trial | None) -> None:
        self._version = newest
        self._trust(newest if trial is None else trial.beside)
        known = self._trial
        if trial is not None and known is not None and replace(trial, before=known.before) == known:
            return
        self._trial = trial
        self._compared.clear()
        if trial is None:
            log.info("newest version answers", model=self._model, version=newest)
            return
        what = "version stays stopped" if trial.is_stopped else "versions are compared"
        log.info(what, model=self._model, version=newest, beside=trial.beside, share=self._share)


def _none(trial: _Trial) -> Evidence:
    return Evidence(trial.model, trial.candidate, trial.beside)


def _sum(one: Evidence | None, other: Evidence | None) -> Evidence | None:
    if one is None or other is None:
        return one or other
    is_same = (one.version, one.beside) == (other.version, other.beside)
    return one + other if is_same else other


def _add(journal: Journal, seen: Evidence, pair: Pair | None, now: float) -> Comparison:
    with journal.transaction():
        return journal.canary.add(seen, pair, now)


def _begin(journal: Journal, seen: Evidence) -> Comparison:
    with journal.transaction():
        return journal.canary.begin(seen.model, seen.version, seen.beside)


def _latest(journal: Journal, model: str) -> Comparison | None:
    return journal.canary.latest(model)


def _differing(journal: Journal, seen: Evidence) -> tuple[Differing, ...]:
    return journal.canary.differing(seen)


def _shown(journal: Journal, differing: str) -> bytes:
    return journal.canary.picture(differing)


def _stopped(journal: Journal, model: str) -> frozenset[int]:
    return journal.canary.stopped(model)


def _has_won(journal: Journal, model: str, version: int) -> bool:
    return journal.canary.has_won(model, version)


def _has_answered(journal: Journal, model: str, version: int) -> bool:
    return journal.canary.has_answered(model, version)
