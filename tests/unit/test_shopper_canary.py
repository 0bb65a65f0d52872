"""shopper: a new version answers a share of the images until it is known to be no worse, or is stopped."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from caravan import evidence
from caravan.contracts import EDGE_METRICS, EDGE_STATUS, OTHER, Event, evidence_key
from caravan.errors import BadInput, Transient, Unavailable
from caravan.evidence import MOST_SHOWN, Evidence
from caravan.testing.waiting import until
from shopper.canary.canary import MOST_WAITING, Canary
from shopper.canary.comparing import Said, digest_of, guess, is_drawn, version_before
from shopper.canary.notes import Comparison
from shopper.canary.telling import tell_evidence
from shopper.catalogue_file import CatalogueFile
from shopper.detection import judge
from shopper.ports import NotServed, Photo, Picture, Pixels, Prediction, Sender
from shopper.scoring.journal import Journal
from shopper.scoring.outbox import ScoringOutbox

MODEL = "tea_model_b64"
CLASSES = ("tea-green", "tea-lemon", OTHER)
SHARE = 0.1


class ModelServer:
    """The versions of a model, and how each answers; it notes what was asked."""

    def __init__(self, *versions: int) -> None:
        self.loaded = dict.fromkeys(versions, True)
        self.says: dict[int, Callable[[bytes], str]] = {}
        self.failing: dict[int, Exception] = {}
        self.asked: Counter[int] = Counter()
        self.status_error: Exception | None = None
        self.looks = 0
        self.gate = asyncio.Event()
        self.gate.set()

    def version(self, number: int) -> "Version":
        return Version(self, number)

    @property
    def newest(self) -> int:
        return max((version for version, is_loaded in self.loaded.items() if is_loaded), default=0)


class Version:
    """One version, or the newest for 0."""

    def __init__(self, server: ModelServer, number: int) -> None:
        self._server = server
        self._number = number

    async def classify(self, image: Picture | Photo) -> Prediction:
        server, number = self._server, self._number or self._server.newest
        server.asked[number] += 1
        await server.gate.wait()
        if not server.loaded.get(number):
            raise NotServed
        if number in server.failing:
            raise server.failing[number]
        assert isinstance(image, bytes)
        item = server.says[number](image) if number in server.says else "tea-green"
        return Prediction(item, 0.9 if item != OTHER else 0.7, MODEL, number, {}, CLASSES)

    async def versions(self) -> dict[int, bool]:
        self._server.looks += 1
        if self._server.status_error:
            raise self._server.status_error
        return dict(self._server.loaded)

    async def is_known(self) -> bool:
        return bool(self._server.loaded)

    async def ping(self) -> None:
        pass


class Shop:
    """A shopper's part that compares, on a disk that outlives it."""

    def __init__(self, server: ModelServer, scoring: ScoringOutbox, rollbacks: frozenset[int]) -> None:
        self.events: list[dict[str, Any]] = []
        self.scoring = scoring
        self.trusted: list[int] = []
        self.unreadable: set[bytes] = set()
        self.number = 0

        async def is_rollback(version: int) -> bool:
            return version in rollbacks

        async def shrink(image: Picture | Photo) -> bytes:
            if image in self.unreadable:
                raise BadInput("the image is damaged", 422)
            return b"small"

        self.canary = Canary(
            MODEL,
            server.version,
            SHARE,
            score_accuracy=0.6,
            on_disk=scoring.on_disk,
            shrink=shrink,
            is_rollback=is_rollback,
            post=self._post,
            look_seconds=0.02,
            soon_seconds=0.01,
        )

    def _post(self, event: Event) -> None:
        if event["name"] == "trusted":
            self.trusted.append(event["version"])
        else:
            self.events.append(dict(event))

    async def detect(self, image: bytes) -> int:
        """Return the version that answered."""
        prediction = await self.canary.classify(image)
        self.number += 1
        recognition = judge(prediction, CatalogueFile().catalogue, 0.6)
        key = f"images/{recognition.product.item}/2026-11-29_12-00-00-{digest_of(image).hex()}.jpg"
        await self.scoring.record(recognition, Sender("http"), b"jpeg", datetime.now(UTC), key)
        self.canary.compare(image, prediction, f"{recognition.bucket}/{key}")
        return prediction.version

    async def day(self, images: int, name: str = "") -> Counter[int]:
        """Return how many images each version answered, one after the other, each compared."""
        answered: Counter[int] = Counter()
        for number in range(images):
            answered[await self.detect(f"{name}-{number}".encode())] += 1
            await until(lambda: not self.canary.waiting)
        return answered

    async def seen(self) -> Evidence:
        comparison = await self.canary.stand()
        assert comparison is not None
        return comparison.evidence


@asynccontextmanager
async def opened(
    folder: Path, server: ModelServer, rollbacks: frozenset[int] = frozenset()
) -> AsyncIterator[Shop]:
    async def send(topic: str, value: bytes | None, *, key: bytes | None = None) -> None:
        raise Transient("Kafka is away")

    async def make_topic() -> None:
        pass

    journal = partial(Journal, folder, "edge1", 10.0, 0.8, 10**8, audits_per_week=60)
    outbox = ScoringOutbox(
        journal,
        send,
        make_topic,
        certain_score=0.8,
        audited_model=MODEL,
        window_seconds=10,
        max_message_bytes=10**6,
    )
    async with outbox:
        shop = Shop(server, outbox, rollbacks)
        canary = shop.canary
        loops = [
            asyncio.create_task(loop()) for loop in (outbox.write, canary.run, canary.watch, canary.tell)
        ]
        try:
            yield shop
        finally:
            for loop in loops:
                loop.cancel()
            for loop in loops:
                with suppress(asyncio.CancelledError):
                    await loop


def wrong_at(every: int) -> Callable[[bytes], str]:
    """Answer with another product at one of so many images."""
    return lambda image: "tea-lemon" if digest_of(image)[-1] % every == 0 else "tea-green"


# --- what two answers say -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("candidate", "beside", "what"),
    [
        ("tea-green", "tea-green", "same"),
        (OTHER, OTHER, "same"),
        (OTHER, "tea-green", "worse"),
        ("tea-green", OTHER, "better"),
        ("tea-lemon", "tea-green", "worse"),
        ("tea-new", "tea-green", "same"),
        ("tea-new", OTHER, "better"),
    ],
)
def test_until_somebody_looks_the_version_before_is_taken_at_its_word(
    candidate: str, beside: str, what: str
) -> None:
    assert guess(Said(8, candidate, 0.9), Said(7, beside, 0.9), CLASSES) == what


def test_the_share_of_images_is_drawn_by_their_content_and_the_same_of_a_repeat() -> None:
    digests = [digest_of(str(number).encode()) for number in range(10_000)]
    drawn = [is_drawn(digest, SHARE) for digest in digests]
    assert 900 < sum(drawn) < 1100
    assert drawn == [is_drawn(digest, SHARE) for digest in digests]
    assert not any(is_drawn(digest, 0) for digest in digests)
    assert all(is_drawn(digest, 1) for digest in digests)
    assert digest_of(Photo(b"sent", b"jpeg")) == digest_of(b"sent")
    assert len(digest_of(Pixels(np.zeros((2, 2, 3), np.uint8)))) == 32


def test_the_version_before_is_the_one_that_answers_or_the_newest_that_was_not_stopped() -> None:
    served = (9, 8, 7, 6)
    assert version_before(9, served, [], 0) == 8
    assert version_before(9, served, [], 7) == 7
    assert version_before(9, served, [8], 8) == 7
    assert version_before(9, served, [8, 7, 6], 8) is None
    assert version_before(9, [9], [], 8) is None


# --- at the doors -------------------------------------------------------------------------------------


async def test_a_model_with_one_version_is_asked_as_ever(tmp_path: Path) -> None:
    server = ModelServer(7)
    async with opened(tmp_path, server) as shop:
        assert await shop.day(20) == {7: 20}
        assert (server.asked, server.looks) == ({7: 20}, 1)
        assert await shop.canary.stand() is None


async def test_a_new_version_answers_its_share_and_both_are_asked(tmp_path: Path) -> None:
    server = ModelServer(7)
    async with opened(tmp_path, server) as shop:
        await shop.day(5)
        server.loaded[8] = True
        answered = await shop.day(100, "b")
        drawn = sum(is_drawn(digest_of(f"b-{number}".encode()), SHARE) for number in range(100))
        assert answered == {7: 100 - drawn, 8: drawn}
        await until(lambda: server.asked[8] >= 100)
        await until(lambda: server.asked[7] >= 105)
        seen = await shop.seen()
        assert (seen.answers, seen.compared, seen.images, seen.losses, seen.gains) == (drawn, 100, 100, 0, 0)
        assert server.looks == 2


async def test_a_repeat_gets_the_same_answer_and_is_compared_once(tmp_path: Path) -> None:
    server = ModelServer(7, 8)
    async with opened(tmp_path, server) as shop:
        answered = {await shop.detect(b"one and the same") for _ in range(20)}
        assert len(answered) == 1
        await until(lambda: not shop.canary.waiting)
        assert (await shop.seen()).compared <= 1


async def test_a_version_that_is_worse_is_stopped_for_good_and_it_is_said(tmp_path: Path) -> None:
    server = ModelServer(7, 8)
    server.says[8] = wrong_at(10)
    async with opened(tmp_path, server) as shop:
        answered = await shop.day(300)
        assert 0 < answered[8] < 40
        (event,) = shop.events
        assert (event["name"], event["outcome"], event["version"], event["beside"]) == (
            "canary",
            "stop",
            8,
            7,
        )
        assert event["reason"].startswith("version 8 is worse than version 7: it did worse at ")
        asked = server.asked[8]
        assert await shop.day(50, "later") == {7: 50}
        assert server.asked[8] == asked
        told = await shop.canary.stand()
    async with opened(tmp_path, server) as again:
        assert await again.canary.stand() == told  # central may not have heard it
        assert await again.day(50, "after a restart") == {7: 50}
        assert again.events == []


async def test_a_version_that_is_no_worse_answers_alone_in_the_end(tmp_path: Path) -> None:
    server = ModelServer(7, 8)
    server.says[8] = server.says[7] = wrong_at(10)
    async with opened(tmp_path, server) as shop:
        for _ in range(10):
            await shop.day(100, str(shop.number))
            if shop.events:
                break
        (event,) = shop.events
        assert (event["outcome"], event["version"]) == ("promote", 8)
        asked = server.asked[7]
        assert await shop.day(50, "later") == {8: 50}
        assert server.asked[7] == asked
    async with opened(tmp_path, server) as again:
        assert await again.day(50, "after a restart") == {8: 50}


async def test_evidence_outlives_a_restart(tmp_path: Path) -> None:
    server = ModelServer(7, 8)
    async with opened(tmp_path, server) as shop:
        await shop.day(40, "a")
        await shop.canary.stand()
    async with opened(tmp_path, server) as again:
        await again.day(40, "b")
        assert (await again.seen()).compared in {79, 80}  # one may have been on its way


async def test_a_version_that_answered_before_any_was_compared_is_no_new_one(tmp_path: Path) -> None:
    server = ModelServer(8)
    async with opened(tmp_path, server) as shop:
        await shop.day(5)
    server.loaded[7] = True
    async with opened(tmp_path, server) as again:
        assert await again.day(20, "b") == {8: 20}


async def test_a_version_that_an_operator_rolled_back_to_answers_at_once(tmp_path: Path) -> None:
    server = ModelServer(7, 8)
    async with opened(tmp_path, server, frozenset({9})) as shop:
        assert (await shop.day(20))[7]
        server.loaded = {8: True, 9: True}
        await eventually_answered(shop, 9)
        assert await shop.day(20, "b") == {9: 20}


async def test_of_a_newer_version_still_a_comparison_begins_anew_with_what_answers(tmp_path: Path) -> None:
    server = ModelServer(7, 8)
    async with opened(tmp_path, server) as shop:
        await shop.day(20)
        server.loaded[9] = True
        await shop.day(100, "b")
        seen = await shop.seen()
        assert (seen.version, seen.beside) == (9, 7)
        server.loaded.pop(7)
        await eventually_seen(shop, 9, 8)


async def test_it_is_told_which_version_is_trusted_when_that_changes_and_after_a_restart(
    tmp_path: Path,
) -> None:
    server = ModelServer(7)
    server.says[8] = wrong_at(2)
    async with opened(tmp_path, server) as shop:
        await shop.day(3)
        await until(lambda: shop.trusted == [7])
        server.loaded[8] = True
        await shop.day(60, "b")
        assert shop.events[0]["outcome"] == "stop"
        server.loaded = {7: True, 9: True}  # what is trusted is served beside the newest
        for _ in range(10):
            await shop.day(100, str(shop.number))
            if len(shop.events) > 1:
                break
        assert (shop.events[1]["outcome"], shop.events[1]["version"], shop.events[1]["beside"]) == (
            "promote",
            9,
            7,
        )
        await until(lambda: shop.trusted == [7, 9])
    async with opened(tmp_path, server) as again:
        await again.day(3, "c")
        await until(lambda: again.trusted == [9])


async def test_where_what_was_stopped_is_all_that_is_left_the_newest_answers(tmp_path: Path) -> None:
    server = ModelServer(7, 8)
    server.says[8] = lambda _: "tea-lemon"
    async with opened(tmp_path, server) as shop:
        await shop.day(60)
        assert shop.events
        server.loaded = {8: True, 9: True}
        await eventually_answered(shop, 9)
        assert await shop.day(20, "b") == {9: 20}


async def test_a_new_version_that_is_withdrawn_is_not_compared_any_more(tmp_path: Path) -> None:
    server = ModelServer(6)
    async with opened(tmp_path, server) as shop:
        await shop.day(5)
        server.loaded = {6: True, 7: True}
        await shop.day(20, "b")
        server.loaded = {6: True}
        assert await shop.day(40, "c") == {6: 40}
        looks = server.looks
        assert await shop.day(40, "d") == {6: 40}
        assert server.looks == looks


async def test_where_a_version_fails_the_other_answers_and_it_counts(tmp_path: Path) -> None:
    server = ModelServer(7, 8)
    async with opened(tmp_path, server) as shop:
        await shop.day(5)
        server.failing[8] = Unavailable("the model did not answer in time: try again")
        answered = await shop.day(100, "b")
        assert answered == {7: 100}
        (event,) = shop.events
        assert event["outcome"] == "stop"
        assert ", failed at " in event["reason"]


async def test_where_both_fail_the_sender_is_told_and_nothing_counts(tmp_path: Path) -> None:
    server = ModelServer(7, 8)
    async with opened(tmp_path, server) as shop:
        await shop.day(10)
        before = await shop.seen()
        for error in (Unavailable("away"), BadInput("the model cannot read this image", 422)):
            server.failing = {7: error, 8: error}
            with pytest.raises(type(error)):
                await shop.detect(b"new")
        server.failing = {}
        assert (await shop.seen()).images == before.images
        assert (await shop.day(10, "c")).total() == 10


async def test_where_the_versions_cannot_be_asked_for_the_newest_answers_until_they_can(
    tmp_path: Path,
) -> None:
    server = ModelServer(7, 8)
    server.status_error = Unavailable("the model server does not answer")
    async with opened(tmp_path, server) as shop:
        assert await shop.canary.classify(b"first")
        server.status_error = None
        await eventually_seen(shop, 8, 7)


async def test_images_are_passed_over_where_too_many_wait_and_no_sender_waits_for_them(
    tmp_path: Path,
) -> None:
    server = ModelServer(7, 8)
    async with opened(tmp_path, server) as shop:
        await shop.day(1)
        await until(lambda: not shop.canary.waiting)
        server.gate.clear()
        for number in range(60):
            shop.canary.compare(
                f"many-{number}".encode(), Prediction("tea-green", 0.9, MODEL, 7, {}, CLASSES), "valid/x"
            )
        assert shop.canary.waiting == MOST_WAITING
        server.gate.set()
        await until(lambda: not shop.canary.waiting)
        assert (await shop.seen()).compared <= MOST_WAITING + 2


# --- reviewers ----------------------------------------------------------------------------------------


async def test_people_are_shown_both_answers_and_their_word_takes_the_place_of_the_guess(
    tmp_path: Path,
) -> None:
    server = ModelServer(7, 8)
    server.says[8] = lambda image: "tea-lemon" if image == b"b-3" else "tea-green"
    async with opened(tmp_path, server) as shop:
        await shop.day(10, "b")
        await eventually_counted(shop, 10)
        (audit,) = [audit for audit in await shop.scoring.audits() if audit.why == "differing"]
        assert [(each.version, each.item) for each in audit.answers] == [(7, "tea-green"), (8, "tea-lemon")]
        assert (await shop.seen()).worse == 1
        await shop.scoring.said(audit.image, "tea-lemon")
        seen = await shop.seen()
        assert (seen.worse, seen.candidate_right, seen.candidate_wrong, seen.compared) == (0, 1, 0, 10)
        assert [audit for audit in await shop.scoring.audits() if audit.why == "differing"] == []
        await shop.scoring.said(audit.image, "tea-green")  # a repeat
        assert await shop.seen() == seen


# --- central ------------------------------------------------------------------------------------------


async def test_central_is_told_all_counts_when_they_changed_and_survives_a_broker_that_is_away(
    tmp_path: Path,
) -> None:
    server = ModelServer(7, 8)
    sent: list[tuple[str, bytes | None, bytes | None]] = []
    away = 2

    async def send(topic: str, value: bytes | None, *, key: bytes | None = None) -> None:
        nonlocal away
        away -= 1
        if away >= 0:
            raise Transient("Kafka is away")
        sent.append((topic, value, key))

    async def make_topic() -> None:
        pass

    async with opened(tmp_path, server) as shop:
        telling = asyncio.create_task(
            tell_evidence(
                "edge1", shop.canary.stand, shop.canary.picture, make_topic, send, tell_seconds=0.01
            )
        )
        await shop.day(10)
        await eventually_counted(shop, 10)
        seen = await shop.seen()
        await until(lambda: bool(sent) and evidence.read(sent[-1][1] or b"").evidence == seen)
        told = len(sent)
        for _ in range(5):
            await shop.canary.stand()
        assert len(sent) == told
        telling.cancel()
    topic, value, key = sent[-1]
    assert (topic, key) == (EDGE_STATUS, evidence_key("edge1", MODEL))
    assert json.loads(value or b"")["compared"] == 10


async def test_central_is_told_of_a_few_images_where_both_are_sure_and_differ_with_a_picture_of_each(
    tmp_path: Path,
) -> None:
    server = ModelServer(7, 8)
    server.says[8] = lambda image: "tea-lemon" if image.startswith(b"odd") else "tea-green"
    sent: list[tuple[str, bytes | None, bytes | None]] = []

    async def send(topic: str, value: bytes | None, *, key: bytes | None = None) -> None:
        sent.append((topic, value, key))

    async def make_topics() -> None:
        pass

    def told() -> evidence.Finding:
        words = [value or b"" for topic, value, _ in sent if topic == EDGE_STATUS]
        return evidence.read(words[-1]) if words else evidence.Finding(Evidence(MODEL, 8, 7))

    def pictures() -> list[dict[str, Any]]:
        bodies = [json.loads(value or b"") for topic, value, _ in sent if topic == EDGE_METRICS]
        return [json.loads(body["uncertain_metrics_json"]) for body in bodies]

    telling = partial(tell_evidence, "edge1", make_topics=make_topics, send=send, tell_seconds=0.01)
    async with opened(tmp_path, server) as shop:
        looks, read = 0, list[str]()

        async def stand() -> Comparison | None:
            nonlocal looks
            looks += 1
            return await shop.canary.stand()

        async def picture(differing: str) -> bytes:
            read.append(differing)
            return await shop.canary.picture(differing)

        loop = asyncio.create_task(telling(stand, picture))
        shop.unreadable = {b"odd-1"}
        await shop.day(3, "odd")
        await until(lambda: len(told().differing) == 3)
        newest = told().differing[0]
        assert newest.id == f"{digest_of(b'odd-2').hex()}-8"
        assert (newest.item, newest.score, newest.beside_item) == ("tea-lemon", 0.9, "tea-green")
        assert newest.image.startswith("valid/images/tea-")
        assert [each["image"] for each in sorted(pictures(), key=lambda each: each["id"])].count(None) == 1
        assert {each["id"] for each in pictures()} == {each.id for each in told().differing}
        assert pictures()[0]["differs"] == {"item": "tea-green", "score": 0.9, "version": 7}
        await shop.scoring.said(newest.image, "tea-lemon")
        await until(lambda: told().differing[0].reviewed == "tea-lemon")
        await shop.day(MOST_SHOWN, "odd-more")
        await until(lambda: f"{digest_of(b'odd-more-5').hex()}-8" in {each.id for each in told().differing})
        assert len(told().differing) == MOST_SHOWN
        assert newest.id not in {each.id for each in told().differing}
        assert len(pictures()) == len({each["id"] for each in pictures()}) == 3 + MOST_SHOWN  # each once
        await until(lambda: told().evidence.compared == 3 + MOST_SHOWN)
        last = told()
        looked = looks
        await until(lambda: looks > looked + 5)
        assert Counter(read) == Counter(each["id"] for each in pictures()), "each is read as it is sent"
        loop.cancel()
    sent.clear()
    async with opened(tmp_path, server) as again:  # the hub may have forgotten them
        loop = asyncio.create_task(telling(again.canary.stand, again.canary.picture, again_seconds=0.05))
        await until(lambda: len(pictures()) >= 2 * MOST_SHOWN)
        loop.cancel()
    assert told() == last


async def test_an_image_is_hashed_once_to_be_drawn_and_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, hashed = ModelServer(7, 8), 0

    def counted(image: Picture | Photo) -> bytes:
        nonlocal hashed
        hashed += 1
        return digest_of(image)

    monkeypatch.setattr("shopper.canary.canary.digest_of", counted)
    async with opened(tmp_path, server) as shop:
        await shop.canary.classify(b"first")
        hashed = 0
        for number in range(10):
            image = f"new {number}".encode()
            shop.canary.compare(image, await shop.canary.classify(image), "valid/x")
        assert hashed == 10


async def holds(is_so: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await is_so():
            await asyncio.sleep(0.001)


async def eventually_answered(shop: Shop, version: int) -> None:
    async def answers() -> bool:
        return await shop.detect(f"until {shop.number}".encode()) == version

    await holds(answers)


async def eventually_seen(shop: Shop, version: int, beside: int) -> None:
    async def compares() -> bool:
        await shop.detect(f"until {shop.number}".encode())
        comparison = await shop.canary.stand()
        found = comparison and (comparison.evidence.version, comparison.evidence.beside)
        return found == (version, beside)

    await holds(compares)


async def eventually_counted(shop: Shop, images: int) -> None:
    async def counts() -> bool:
        return (await shop.seen()).images == images

    await holds(counts)
