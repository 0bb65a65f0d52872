"""The demo claims only what real answers show: each lie at a door makes it fail, and says so."""

import asyncio
import contextlib
import io
import json
import os
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from rich.console import Console
from typer.testing import CliRunner

from caravan.contracts import Event, model_ready_event, model_rejected_event, training_event
from caravan.settings import S3Address
from lab.cli import app
from lab.demo import steps
from lab.demo.doors import Answer, Doors
from lab.demo.errors import BadAnswer, NotShown
from lab.demo.prober import Tally, probing
from lab.demo.screen import Screen
from lab.demo.supply import Supply
from lab.zips import Photo

OTHER = {"known": "false", "item": "other", "label": "Other", "price": "N/A", "pricetag": "Other: N/A"}
GREEN = {
    "known": "true",
    "item": "tea-green",
    "label": "Green Tea",
    "price": "2.99",
    "pricetag": "Green Tea: 2.99",
}


def reply(facts: dict[str, str], version: int = 1, score: float = 0.9) -> dict[str, Any]:
    return {**facts, "products": [], "score": score, "model": "tea_model_b64", "version": version}


@pytest.fixture
def screen() -> Screen:
    return Screen(Console(file=io.StringIO(), width=200))


@pytest.fixture
def supply(tmp_path: Path) -> Supply:
    held_out = tuple(Photo(f"images/tea-green/{i}.jpg", "tea-green", bytes([i])) for i in range(6))
    known = (Photo("images/tea-lemon/1.jpg", "tea-lemon", b"lemon"),)
    return Supply(tmp_path / "first.zip", 3, tmp_path / "new.zip", 2, "tea-green", held_out, known)


@contextlib.asynccontextmanager
async def doors(**answers: Any) -> AsyncIterator[Doors]:
    """Doors whose answers are given by the last part of the path; a list is used up, its last stays."""

    def handle(request: httpx.Request) -> httpx.Response:
        request.read()
        answer = answers[request.url.path.rsplit("/", 1)[-1]]
        if isinstance(answer, list):
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        return answer if isinstance(answer, httpx.Response) else httpx.Response(200, json=answer)

    async with httpx.AsyncClient(transport=httpx.MockTransport(handle)) as http:
        nowhere = S3Address("http://127.0.0.1:9", SecretStr("a"), SecretStr("b"), "us-east-1", None)
        yield Doors(http, "edge1", "http://feeder", "http://shopper", "http://serving", nowhere)


async def told(*events: Event) -> AsyncIterator[Event]:
    for event in events:
        yield event
        await asyncio.sleep(0)


# --- before and after ---------------------------------------------------------------------------


async def test_an_unknown_photo_answered_other_is_shown(screen: Screen, supply: Supply) -> None:
    async with doors(detection=reply(OTHER)) as at:
        await steps.not_known_yet(screen, at, supply, 1)
    assert screen.rows[0].step == "before"
    assert "6 of 6" in screen.rows[0].what


async def test_a_photo_known_before_it_was_taught_is_not_shown(screen: Screen, supply: Supply) -> None:
    async with doors(detection=reply(GREEN)) as at:
        with pytest.raises(NotShown, match="not answered 'other'"):
            await steps.not_known_yet(screen, at, supply, 1)
    assert screen.rows == []


async def test_the_right_name_and_price_afterwards_are_shown(screen: Screen, supply: Supply) -> None:
    async with doors(detection=reply(GREEN, 2), price={"label": "Green Tea", "price": "2.99"}) as at:
        await steps.now_known(screen, at, supply, 2, uploaded=0)
    assert screen.rows[0].version == 2


@pytest.mark.parametrize(
    ("answer", "price", "reason"),
    [
        (reply(OTHER, 2), "2.99", "not answered 'tea-green'"),
        (reply({**GREEN, "item": "tea-lemon"}, 2), "2.99", "not answered 'tea-green'"),
        (reply(GREEN, 2), "3.99", "the catalogue says"),
        (reply(GREEN, 1), "2.99", "version 1 answered, not 2"),
    ],
)
async def test_anything_else_afterwards_is_not(
    screen: Screen, supply: Supply, answer: dict[str, Any], price: str, reason: str
) -> None:
    async with doors(detection=answer, price={"label": "Green Tea", "price": price}) as at:
        with pytest.raises(NotShown, match=reason):
            await steps.now_known(screen, at, supply, 2, uploaded=0)
    assert screen.rows == []


async def test_one_lucky_photo_is_not_enough(screen: Screen, supply: Supply) -> None:
    answers = [reply(GREEN, 2), reply(OTHER, 2)]
    async with doors(detection=answers, price={"label": "Green Tea", "price": "2.99"}) as at:
        with pytest.raises(NotShown, match="only 1 are recognised"):
            await steps.now_known(screen, at, supply, 2, uploaded=0)


# --- upload -------------------------------------------------------------------------------------


def account(stored: int, duplicates: int = 0, rejected: Iterable[str] = ()) -> dict[str, Any]:
    names = [{"name": name, "reason": "?"} for name in rejected]
    return {"status": "done", "stored": stored, "duplicates": duplicates, "rejected": names}


async def test_an_upload_in_which_every_image_is_accounted_for_is_shown(
    screen: Screen, supply: Supply
) -> None:
    supply.first.write_bytes(b"x" * 200_000)
    async with doors(zip=account(1, 1, ["c.jpg"])) as at:
        await steps.upload(screen, at, supply.first, 3, "Uploading")
    assert screen.rows[0].what == "1 photos stored, 1 duplicates, 1 rejected"


@pytest.mark.parametrize(
    ("answer", "fault", "reason"),
    [
        (account(2), NotShown, "of 3 images"),
        (account(0, 3), NotShown, "stored nothing"),
        (httpx.Response(422, json={"detail": "no image"}), BadAnswer, "422"),
        (httpx.Response(200, text="hello"), BadAnswer, "JSON"),
        ({"status": "queued"}, BadAnswer, "queued"),
    ],
)
async def test_an_upload_that_loses_images_or_is_refused_is_not(
    screen: Screen, supply: Supply, answer: Any, fault: type[Exception], reason: str
) -> None:
    supply.first.write_bytes(b"x")
    async with doors(zip=answer) as at:
        with pytest.raises(fault, match=reason):
            await steps.upload(screen, at, supply.first, 3, "Uploading")


# --- training -----------------------------------------------------------------------------------


async def test_a_rejected_model_ends_the_demo_with_its_reason(screen: Screen) -> None:
    events = told(model_rejected_event("tea_model_b64", 2, "worse than its parent"))
    async with doors() as at:
        with pytest.raises(NotShown, match="worse than its parent"):
            await steps.train(screen, at, events, above=1)


async def test_a_version_that_was_there_before_does_not_count(screen: Screen) -> None:
    events = told(training_event("train", 0.5), model_ready_event("tea_model_b64", 1))
    async with doors() as at:
        with pytest.raises(NotShown, match="ended"):
            await steps.train(screen, at, events, above=1)


async def test_training_that_says_nothing_more_is_given_up(
    screen: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "TRAINING_SECONDS", 0.05)

    async def silent() -> AsyncIterator[Event]:
        yield {"name": "pipeline"}
        yield training_event("train", 0.5)
        await asyncio.Event().wait()

    async with doors() as at:
        with pytest.raises(NotShown, match="the last stage told was train"):
            await steps.train(screen, at, silent(), above=0)


async def test_a_version_that_the_shopper_never_answers_with_is_given_up(
    screen: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "SERVING_SECONDS", 0.3)
    served = {"model_version_status": [{"version": "2", "state": "AVAILABLE"}]}
    async with doors(tea_model_b64=served, detection=reply(OTHER, 1)) as at:
        with pytest.raises(NotShown, match="the shopper answers with version 2"):
            await steps.serve(screen, at, 2, b"photo")


async def test_a_version_serves_once_model_server_and_shopper_have_it(screen: Screen) -> None:
    loading = {"model_version_status": [{"version": "2", "state": "LOADING"}]}
    served = {"model_version_status": [{"version": "2", "state": "AVAILABLE"}]}
    away = httpx.Response(503, text="away")
    async with doors(
        tea_model_b64=[away, loading, served], detection=[reply(OTHER, 1), reply(OTHER, 2)]
    ) as at:
        await steps.serve(screen, at, 2, b"photo")
    assert screen.rows[0].version == 2


# --- the customer who never stops asking --------------------------------------------------------

GOOD = Answer.parse(reply(GREEN, 1))


async def test_the_prober_counts_answers_by_version_and_errors() -> None:
    replies: list[Answer | Exception] = [GOOD, BadAnswer("503"), replace(GOOD, version=2)]
    enough = asyncio.Event()

    async def detect(_: bytes) -> Answer:
        answer = replies.pop(0)
        if not replies:
            replies.append(answer)
            enough.set()
        if isinstance(answer, Exception):
            raise answer
        return answer

    async with probing(detect, [b"photo"], pause=0) as tally, asyncio.timeout(5):
        await enough.wait()
        while tally.answers[2] < 3:
            await asyncio.sleep(0)
    assert tally.answers[1] == 1
    assert (tally.errors, tally.first_error) == (1, "503")
    assert tally.asked == tally.answers.total() + 1


async def test_a_prober_that_breaks_is_not_taken_for_one_that_saw_no_errors() -> None:
    async def detect(_: bytes) -> Answer:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        async with probing(detect, [b"photo"]):
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("tally", "reason"),
    [
        (Tally(answers={1: 50, 2: 9}, errors=1, first_error="503"), "1 of 60 detections failed"),  # type: ignore[arg-type]
        (Tally(answers={1: 3, 2: 2}), "only 5"),  # type: ignore[arg-type]
        (Tally(answers={1: 50, 2: 0}), "did not both answer"),  # type: ignore[arg-type]
    ],
)
def test_a_swap_with_errors_or_without_witnesses_is_not_shown(
    screen: Screen, tally: Tally, reason: str
) -> None:
    tally.answers = type(Tally().answers)(tally.answers)
    with pytest.raises(NotShown, match=reason):
        steps.swapped(screen, tally, 1, 2)


# --- replies and the command --------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["known", "item", "version", "score"])
def test_a_reply_that_lacks_something_is_no_answer(missing: str) -> None:
    broken = {name: value for name, value in reply(GREEN).items() if name != missing}
    with pytest.raises(BadAnswer):
        Answer.parse(broken)
    with pytest.raises(BadAnswer):
        Answer.parse(json.loads("[]"))


def test_one_zip_without_the_other_is_refused() -> None:
    result = CliRunner().invoke(app, ["demo", "--data", "a.zip"])
    assert result.exit_code == 2
    assert "go together" in result.output


def test_zips_that_are_not_there_end_the_demo_with_code_1_and_the_place_of_the_logs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "CARAVAN_HOME", str(tmp_path))
    result = CliRunner().invoke(app, ["demo", "--data", "gone.zip", "--new", "gone.zip"])
    assert result.exit_code == 1
    assert "gone.zip does not exist" in result.output
    assert str(tmp_path / "demo" / "logs") in result.output
