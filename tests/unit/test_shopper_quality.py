"""shopper: a share of the answers is audited, and the accuracy is told with its interval."""

import asyncio
import json
import math
import random
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from caravan.contracts import EDGE_STATUS
from caravan.errors import BadInput
from caravan.testing.waiting import until
from shopper.catalogue_file import CatalogueFile
from shopper.detection import judge
from shopper.ports import Prediction, Sender
from shopper.quality import drift
from shopper.quality.drift import BINS, LOOK_SIDE, STATISTICS, DriftTest, appearance, spread
from shopper.quality.intervals import Stratum, beta_cdf, is_confidently_wrong, joined, limits
from shopper.quality.notes import DAY, Answered
from shopper.quality.report import accuracy
from shopper.quality.telling import tell_quality
from shopper.scoring.journal import Journal
from shopper.scoring.outbox import ScoringOutbox
from shopper.scoring.values import Scored

AT = datetime(2026, 11, 21, 12, tzinfo=UTC)
START = AT.timestamp() // DAY * DAY
CLASSES = ("other", "tea-green", "tea-lemon")


def opened(folder: Path, per_week: int = 60, seed: int = 0) -> Journal:
    draw = random.Random(seed).random
    return Journal(folder, "edge1", 10, 0.8, 10**9, audits_per_week=per_week, draw=draw)


def answer(name: object, item: str = "tea-green", score: float = 0.99, *, sure: bool = True) -> Scored:
    prediction = Prediction(item, score, "tea_model_b64", 3, {}, CLASSES)
    answered = Answered(f"valid/images/{item}/{name}.jpg", item, score, sure)
    return Scored("till-3", prediction, sure, AT, b"jpeg", answered)


def told(journal: Journal, now: float) -> dict[str, Any]:
    return accuracy(journal.quality.answers(now), str.title)


def say(journal: Journal, image: str, item: str) -> None:
    with journal.transaction():
        journal.quality.said(image, item)


# --- which answers are audited ------------------------------------------------------------------


def test_at_every_moment_each_answer_is_in_the_sample_with_the_same_probability(tmp_path: Path) -> None:
    counts: Counter[int] = Counter()
    for shop in range(20):
        journal = opened(tmp_path / str(shop), per_week=14, seed=shop)
        for day in range(10):
            busy = 40 if day == 5 else 10
            journal.add([answer(f"{day}-{n}") for n in range(busy)], START + day * DAY + 60)
        now = START + 10 * DAY - 1
        drawn = [audit for audit in journal.quality.waiting(now) if audit.why == "audit"]
        sample = [audit.image.rpartition("/")[2] for audit in drawn]
        assert len(sample) == 14
        counts.update(int(name.partition("-")[0]) for name in sample)
        journal.close()
    assert set(counts) == set(range(2, 10))
    # 40 of 110 answers came on the fifth day; five standard errors either way.
    assert 0.23 < counts[5] / counts.total() < 0.5


def test_the_first_days_sample_is_small_and_grows_with_the_days(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    asked = []
    for day in range(9):
        journal.add([answer(f"{day}-{n}") for n in range(100)], START + day * DAY + 60)
        asked.append(journal.quality.asked(START + (day + 1) * DAY - 1))
    assert asked == [8, 15, 22, 30, 37, 44, 51, 59, 59]


def test_hardly_an_image_is_asked_for_in_vain(tmp_path: Path) -> None:
    journal, ever = opened(tmp_path), set()
    for quarter in range(28 * 4):
        now = START + quarter * DAY / 4
        journal.add([answer(f"{quarter}-{n}") for n in range(50)], now)
        if quarter >= 14 * 4:
            ever |= {audit.image for audit in journal.quality.waiting(now) if audit.why == "audit"}
    assert 3 * 51 <= len(ever) <= 3.6 * 51  # two weeks, and the week that the first sample was from


def test_each_wrong_answer_asks_for_more_labels_to_twice_as_many(tmp_path: Path) -> None:
    journal, now = opened(tmp_path), START + 7 * DAY - 1
    for day in range(7):
        journal.add([answer(f"{day}-{n}") for n in range(100)], START + day * DAY + 60)
    asked = [journal.quality.asked(now)]
    for wrong in (1, 2, 3, 100):
        for audit in journal.quality.waiting(now)[:wrong]:
            say(journal, audit.image, "tea-lemon")
        asked.append(journal.quality.asked(now))
    assert asked == [51, 57, 69, 87, 120]
    for audit in journal.quality.waiting(now):
        say(journal, audit.image, "tea-green")
    assert journal.quality.asked(now) == 120
    assert told(journal, now)["labelled"] == 120


def test_no_audit_is_asked_for_where_none_is_wanted(tmp_path: Path) -> None:
    journal = opened(tmp_path, per_week=0)
    journal.add([answer(number) for number in range(50)], START)
    assert journal.quality.waiting(START) == []


def test_what_was_drawn_survives_a_restart_and_goes_on_from_there(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    for hour in range(12):
        journal.add([answer(f"{hour}-{number}") for number in range(20)], START + hour * 3600)
    waiting = journal.quality.waiting(START + DAY)
    assert len(waiting) == 8
    journal.close()
    journal = opened(tmp_path)
    assert journal.quality.waiting(START + DAY) == waiting
    for hour in range(12, 24):  # so many more that some of them are surely drawn
        journal.add([answer(f"{hour}-{number}") for number in range(400)], START + hour * 3600)
    later = journal.quality.waiting(START + DAY)
    assert len(later) == 8
    assert later != waiting


def test_an_audit_that_nobody_labels_is_let_go(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal.add([answer(1)], START)
    later = START + 8 * DAY
    assert journal.quality.waiting(later) == []
    journal.close_windows(later)
    assert told(journal, later)["answers"] == 0


# --- accuracy and its interval ------------------------------------------------------------------


def test_the_beta_distribution_agrees_with_sums_of_the_binomial() -> None:
    for trials, least, share in [(20, 3, 0.2), (60, 1, 0.01), (60, 57, 0.97), (5, 5, 0.5)]:
        exact = sum(
            math.comb(trials, k) * share**k * (1 - share) ** (trials - k) for k in range(least, trials + 1)
        )
        assert beta_cdf(share, least, trials - least + 1) == pytest.approx(exact, rel=1e-9)


def test_limits_hold_their_level_at_every_accuracy() -> None:
    found = [limits(60 - wrong, 60) for wrong in range(61)]
    for share in [0.5, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995, 0.998]:
        covered = sum(
            math.comb(60, wrong) * (1 - share) ** wrong * share ** (60 - wrong)
            for wrong, (low, high) in enumerate(found)
            if low <= share <= high
        )
        assert covered >= 0.92, share


def test_answers_of_which_none_is_labelled_widen_the_interval() -> None:
    alone = joined([Stratum(900, 60, 58)])
    beside = joined([Stratum(900, 60, 58), Stratum(100, 0, 0)])
    assert alone is not None
    assert beside is not None
    assert beside.high - beside.low > alone.high - alone.low
    assert joined([Stratum(100, 0, 0)]) is None


def test_a_product_is_named_only_where_its_confident_answers_are_surely_worse_than_they_say() -> None:
    assert not is_confidently_wrong(12, 1, 0.98, 5)
    assert not is_confidently_wrong(12, 0, 0.98, 5)
    assert is_confidently_wrong(12, 5, 0.98, 5)
    assert not is_confidently_wrong(12, 3, 0.8, 5)


def test_what_people_say_becomes_each_products_accuracy(tmp_path: Path) -> None:
    journal = opened(tmp_path, per_week=10_000)
    names = {item: [f"{item}-{n}" for n in range(30)] for item in ("tea-green", "tea-lemon")}
    for n in range(30):
        journal.add([answer(names[item][n], item) for item in names], START + n * 600)
    journal.add([answer("x", "other", 0.5, sure=False)], START)
    now = START + DAY / 2
    assert told(journal, now)["accuracy"] is None
    drawn = [audit.image for audit in journal.quality.waiting(now)]
    assert len(drawn) > 50
    assert not [image for image in drawn if "other" in image]
    say(journal, "valid/images/other/x.jpg", "oolong")  # which the model does not know: `other` is right
    for image in drawn:
        if "tea-green" in image:
            say(journal, image, "tea-green")
        else:
            say(journal, image, "tea-green" if image[-5] in "13579" else "tea-lemon")
    found = told(journal, now)
    products = {each["item"]: each for each in found["products"]}
    assert products["tea-green"]["accuracy"] == 1
    assert products["other"]["accuracy"] == 1
    assert not products["tea-green"]["confidently_wrong"]
    assert products["tea-lemon"]["confidently_wrong"]
    assert products["tea-lemon"]["taken_for_it"] == "Tea-Green"
    assert (
        products["tea-lemon"]["low"] < products["tea-lemon"]["accuracy"] < products["tea-lemon"]["high"] < 0.8
    )
    assert found["labelled"] == len(drawn) + 1
    assert found["low"] < found["accuracy"] < found["high"]
    say(journal, drawn[0], "tea-lemon")
    assert told(journal, now) == found  # the first word counts
    assert told(journal, now + 8 * DAY)["answers"] == 0


# --- drift --------------------------------------------------------------------------------------


LOOK = (0.5, 0.2, 0.5, 0.5)


class Shop:
    """Answers of a shop, one each 17 seconds, and their test."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.test = DriftTest()
        self.now = START

    def answers(self, count: int, sure: float) -> int | None:
        """Look at answers, of which some share is sure; return how many came before the alarm."""
        for number in range(count):
            self.now += 17
            score = 1 - self.chance.random() / 50 if self.chance.random() < sure else self.chance.random()
            draws = [self.chance.random() for _ in range(STATISTICS)]
            if self.test.look((score, score, *LOOK), self.now, draws, is_product=True):
                return number
        return None


def test_answers_that_become_less_sure_are_noticed_soon_and_the_time_of_the_change_is_told() -> None:
    for seed in range(20):
        shop = Shop(seed)
        assert shop.answers(1000, 0.9) is None
        change = shop.now
        noticed = shop.answers(150, 0.5)
        assert noticed is not None
        assert abs(shop.test.since - change) < 150 * 17


def test_answers_that_stay_as_they_are_raise_no_alarm() -> None:
    assert [Shop(seed).answers(3000, 0.7) for seed in range(10)] == [None] * 10


def test_ranks_are_uniform_whatever_the_scores_are_so_that_bets_win_nothing_on_average() -> None:
    chance, counts = random.Random(5), [0] * BINS
    ranks = []
    for _ in range(4000):
        score = chance.choice([0.0, 1.0, 0.999, math.nan, 0.3])
        ranks.append(drift._rank(counts, drift._bin(0, score), chance.random()))
    tenths = Counter(int(min(rank, 0.999) * 10) for rank in ranks)
    assert all(320 < tenths[tenth] < 480 for tenth in range(10))


def test_a_test_goes_on_from_its_state() -> None:
    one, two = Shop(3), Shop(3)
    one.answers(500, 0.9)
    two.answers(250, 0.9)
    two.test = DriftTest.of(json.loads(json.dumps(two.test.state)))
    two.answers(250, 0.9)
    assert one.test == two.test


def test_photos_that_become_darker_are_noticed_though_the_model_is_as_sure_as_before() -> None:
    chance, test, now = random.Random(9), DriftTest(), START
    noticed = []
    for number in range(1060):
        now += 17
        light = chance.gauss(0.6, 0.1) / (1 if number < 1000 else 1.6)
        draws = [chance.random() for _ in range(STATISTICS)]
        if test.look((0.99, 0.99, light, *LOOK[1:]), now, draws, is_product=True):
            noticed.append(number)
    assert len(noticed) == 1
    assert noticed[0] >= 1000


def test_photos_of_a_new_kind_are_noticed_where_they_are_few_of_all_but_most_of_other() -> None:
    for seed in range(10):
        chance, test, now = random.Random(seed), DriftTest(), START
        noticed = []
        for number in range(1150):
            now += 17
            is_new = number >= 1000 and chance.random() < 1 / 3
            is_product = not is_new and chance.random() < 0.8
            # As light as products are, and lighter than whatever else is shown.
            light = chance.gauss(0.6 if is_new or is_product else 0.3, 0.05)
            draws = [chance.random() for _ in range(STATISTICS)]
            if test.look((0.99, 0.99, light, *LOOK[1:]), now, draws, is_product=is_product):
                noticed.append(number)
        assert len(noticed) == 1
        assert noticed[0] >= 1000


def test_a_photos_appearance_is_its_light_contrast_and_colour() -> None:
    light, contrast, blue, red = appearance(picture("white"))
    assert (light, contrast, blue, red) == pytest.approx((1, 0, 0.5, 0.5), abs=0.01)
    assert appearance(picture("blue"))[2] > 0.9
    assert appearance(picture("red"))[3] > 0.9


def picture(colour: str) -> bytes:
    return Image.new("RGB", (LOOK_SIDE, LOOK_SIDE), colour).tobytes()


async def test_the_desk_asks_of_the_newest_answer_and_a_photo_that_cannot_be_read_ends_nothing(
    tmp_path: Path,
) -> None:
    looked_at: list[bytes] = []

    async def shrink(photo: bytes) -> bytes:
        looked_at.append(photo)
        if photo == b"broken":
            raise BadInput("no image")
        return picture("white")

    async def nothing(*_: object, **__: object) -> None:
        """Nobody listens."""

    async with ScoringOutbox(
        lambda: opened(tmp_path),
        nothing,
        nothing,
        certain_score=0.8,
        audited_model="tea_model_b64",
        window_seconds=10,
        max_message_bytes=10**6,
        look_seconds=0.001,
    ) as desk:
        tasks = [asyncio.create_task(loop) for loop in (desk.write(), desk.watch(shrink))]
        recognition = judge(
            Prediction("tea-green", 0.9, "tea_model_b64", 1, {}, CLASSES), CatalogueFile().catalogue, 0.6
        )
        for photo in (b"broken", b"a photo"):
            await desk.record(recognition, Sender("http"), photo, AT, "images/tea-green/a.jpg")
            async with asyncio.timeout(20):
                while photo not in looked_at:
                    await asyncio.sleep(0.001)
        async with asyncio.timeout(20):
            while not await desk.on_disk(lambda journal: len(journal.quality._tests)):
                await asyncio.sleep(0.001)
        assert not [task for task in tasks if task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def test_a_state_of_other_statistics_is_begun_anew() -> None:
    state = DriftTest(answers=7).state
    assert DriftTest.of(state).answers == 7
    assert DriftTest.of({**state, "counts": state["counts"][:2]}).answers == 0


def test_a_state_of_photos_looked_at_in_another_way_is_begun_anew() -> None:
    state = DriftTest(answers=7).state
    del state["looked_at"]
    assert DriftTest.of(state).answers == 0


def test_the_points_chosen_are_spread() -> None:
    points = [(0.0, 0.0)] * 50 + [(1.0, 0.0), (0.0, 1.0), (1.0, 1.0)]
    assert {points[index] for index in spread(points, 4)} == set(points)
    assert sorted(spread(points[-3:], 20)) == [0, 1, 2]
    assert spread([], 20) == []


def odd(number: int) -> Scored:
    score = 0.4 + number % 7 / 100
    prediction = Prediction("other", score, "tea_model_b64", 3, {}, CLASSES)
    answered = Answered(
        f"unclassified/images/other/{number}.jpg",
        "other",
        score,
        sure=False,
        guess="other",
        products=(0.3, 0.2),
    )
    return Scored("till-3", prediction, certain=False, at=AT, image=None, answered=answered)


def test_a_drift_asks_for_twenty_labels_and_begins_anew_once_it_has_them(tmp_path: Path) -> None:
    journal = opened(tmp_path, per_week=0)
    for number in range(400):
        journal.look(usual(number), LOOK, START + number * 17)
    assert journal.quality.drift() is None
    begin = START + 400 * 17
    for number in range(150):
        journal.look(odd(number), LOOK, begin + number * 17)
    found = journal.quality.drift()
    assert found is not None
    assert (found.version, found.images) == (3, min(20, found.images))
    assert abs(found.since - begin) <= 2 * 20 * 17
    journal.close()
    journal = opened(tmp_path, per_week=0)
    asked = journal.quality.waiting(begin)
    assert {audit.why for audit in asked} == {"drift"}
    for audit in asked:
        assert journal.quality.drift() is not None
        say(journal, audit.image, "oolong")
    assert journal.quality.drift() is None
    assert journal.quality.waiting(begin) == []


def test_a_drift_that_nobody_looks_at_is_let_go_after_a_week(tmp_path: Path) -> None:
    journal = opened(tmp_path, per_week=0)
    for number in range(400):
        journal.look(usual(number), LOOK, START + number * 17)
    for number in range(150):
        journal.look(odd(number), LOOK, START + (400 + number) * 17)
    assert journal.quality.drift() is not None
    journal.close_windows(START + 9 * DAY)
    assert journal.quality.drift() is None


def usual(number: int) -> Scored:
    score = 0.95 + number % 40 / 1000
    prediction = Prediction("tea-green", score, "tea_model_b64", 3, {}, CLASSES)
    answered = Answered(
        f"valid/images/tea-green/{number}.jpg",
        "tea-green",
        score,
        sure=True,
        guess="tea-green",
        products=(score,),
    )
    return Scored("till-3", prediction, certain=True, at=AT, image=None, answered=answered)


# --- the desk, and what central is told ---------------------------------------------------------


async def test_answers_of_the_trained_model_alone_are_audited(tmp_path: Path) -> None:
    async def send(*_: object, **__: object) -> None:
        """Nobody listens."""

    async with ScoringOutbox(
        lambda: opened(tmp_path),
        send,
        lambda: asyncio.sleep(0),
        certain_score=0.8,
        audited_model="tea_model_b64",
        window_seconds=10,
        max_message_bytes=10**6,
        clock=lambda: START,
    ) as desk:
        writing = asyncio.create_task(desk.write())
        for model in ("tea_model_b64", "fashion_classifier"):
            prediction = Prediction("tea-green", 0.9, model, 1, {}, CLASSES)
            recognition = judge(prediction, CatalogueFile().catalogue, 0.6)
            await desk.record(recognition, Sender("http"), b"jpeg", AT, f"images/tea-green/{model}.jpg")
        found = await desk.accuracy(str.title)
        writing.cancel()
        with suppress(asyncio.CancelledError):
            await writing
    assert found["answers"] == 1
    assert [each["label"] for each in found["products"]] == ["Tea-Green"]


async def test_central_is_told_when_the_accuracy_changes_and_not_otherwise() -> None:
    current: dict[str, Any] = {"accuracy": None, "low": None, "high": None}
    sent: list[tuple[bytes | None, dict[str, Any]]] = []
    looks = 0

    async def read() -> dict[str, Any]:
        nonlocal looks
        looks += 1
        return dict(current)

    async def send(topic: str, value: bytes | None, *, key: bytes | None = None) -> None:
        assert topic == EDGE_STATUS
        sent.append((key, json.loads(value or b"")))

    telling = asyncio.create_task(
        tell_quality("edge1", read, lambda: asyncio.sleep(0), send, look_seconds=0.001)
    )
    await until(lambda: looks > 5)
    current |= {"accuracy": 0.9, "low": 0.8, "high": 0.95}
    await until(lambda: len(sent) > 1)
    telling.cancel()
    with suppress(asyncio.CancelledError):
        await telling
    assert [(key, body["accuracy"]) for key, body in sent] == [
        (b"edge1/answers", None),
        (b"edge1/answers", 0.9),
    ]
