"""Simulated cameras: what they count, when they send again, and how they compare with the hub."""

import base64
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import msgpack
import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from lab.cameras import camera, hub
from lab.cameras.camera import Film
from lab.cameras.lines import (
    UNNUMBERED,
    ImageRefused,
    Json,
    NoAnswer,
    NotSent,
    Tensor,
    answer_of,
    http_line,
)
from lab.cameras.pictures import Picture, load
from lab.cameras.screen import Screen
from lab.cameras.tally import Answer, Counted, Tally, compare, percentile
from lab.cli import app
from local_stack.errors import StackError
from support.files import as_file

GREEN = Answer("tea-green", 0.93)
RATE = 20
"""Images a second: slow enough that no machine is late for the first."""


def encoded(mode: str = "RGB", size: tuple[int, int] = (8, 6), colour: int = 7) -> bytes:
    return as_file(Image.new(mode, size, colour if mode == "L" else (colour, 8, 9)), "PNG")


PICTURE = Picture("tea-green", encoded())


# --- counts -------------------------------------------------------------------------------------


def test_an_answer_is_certain_from_the_threshold_on() -> None:
    tally = Tally(0.8)
    for score in (0.8, 0.79, 1.0):
        tally.take(Answer("tea-green", score), "tea-green", 0.1)
    tally.take(Answer("other", 0.1), "tea-green", 0.1)
    assert tally.certain == {"tea-green": 2}
    assert tally.uncertain == {"tea-green": 1, "other": 1}
    assert (tally.answered, tally.right) == (4, 3)


def test_an_answer_that_comes_late_is_no_longer_unknown() -> None:
    tally = Tally(0.8, sent=1)
    tally.fail("no answer", unknown=True)
    tally.take_late(GREEN)
    assert (tally.unknown, tally.answered, tally.certain.total()) == (0, 1, 1)


def test_percentiles_are_of_what_was_seen() -> None:
    times = [float(n) for n in range(1, 101)]
    assert (percentile(times, 50), percentile(times, 99), percentile([], 50)) == (51.0, 100.0, 0.0)


def tallied(**certain: int) -> Tally:
    tally = Tally(0.8)
    for name, count in certain.items():
        for _ in range(count):
            tally.take(Answer(name, 0.9))
    return tally


def test_equal_counts_are_equal_and_a_lost_or_doubled_image_is_named() -> None:
    tally = tallied(a=2, b=1)
    tally.take(Answer("a", 0.5))
    assert compare(tally, Counted({"a": 2, "b": 1}, {"a": 1})).equal
    lost = compare(tally, Counted({"a": 1, "b": 1}, {"a": 1}))
    assert (lost.equal, str(lost)) == (False, "1 certain a missing")
    doubled = compare(tally, Counted({"a": 2, "b": 2}, {"a": 1}))
    assert (doubled.equal, str(doubled)) == (False, "1 certain b too many")
    moved = compare(tally, Counted({"a": 3, "b": 1}, {}))
    assert str(moved) == "1 uncertain a missing, 1 certain a too many"
    assert not moved.equal


def test_an_unknown_image_may_be_counted_or_not_but_no_other() -> None:
    tally = tallied(a=2)
    tally.fail("no answer", unknown=True)
    assert compare(tally, Counted({"a": 2})).equal
    assert compare(tally, Counted({"a": 2}, {"b": 1})).equal
    assert not compare(tally, Counted({"a": 3}, {"b": 1})).equal
    assert not compare(tally, Counted({"a": 1}, {"b": 1})).equal


# --- a camera -----------------------------------------------------------------------------------


class Scripted:
    """A line that does what it is told, and remembers what was sent."""

    def __init__(self, *outcomes: Answer | Exception) -> None:
        self._outcomes: Iterator[Answer | Exception] = iter(outcomes)
        self.sent: list[Picture] = []

    async def ask(self, name: str, picture: Picture, seconds: float) -> Answer:
        self.sent.append(picture)
        outcome = next(self._outcomes, GREEN)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


async def film(line: Scripted, images: int, *, seed: int = 1, name: str = "cam-x-01") -> Tally:
    tally = Tally(0.8)
    pictures = [Picture(str(n), b"") for n in range(50)]
    await camera.run(name, Film(RATE, images / RATE, 5), line, pictures, tally=tally, seed=seed)
    return tally


async def test_what_was_surely_not_taken_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camera, "FIRST_PAUSE", 0.001)
    line = Scripted(NotSent("busy"), NotSent("busy"), GREEN)
    tally = await film(line, 1)
    assert (tally.sent, tally.answered, tally.retried) == (1, 1, 2)
    assert line.sent[0] is line.sent[2]


async def test_what_may_have_been_taken_is_never_sent_again() -> None:
    line = Scripted(NoAnswer("silence"))
    tally = await film(line, 1)
    assert (len(line.sent), tally.unknown, tally.refused) == (1, 1, 0)
    assert tally.first_error == "silence"


async def test_a_refusal_is_counted_and_the_camera_goes_on() -> None:
    line = Scripted(ImageRefused("413 too large"), GREEN)
    tally = await film(line, 2)
    assert tally.refused == 1
    assert tally.sent == tally.refused + tally.answered


async def test_a_camera_films_the_same_again_and_another_films_something_else() -> None:
    first, again, other = Scripted(), Scripted(), Scripted()
    await film(first, 8, name="cam-aa-01")
    await film(again, 8, name="cam-bb-01")
    await film(other, 8, name="cam-bb-02")
    shared = min(len(first.sent), len(again.sent), len(other.sent))
    assert shared > 0
    assert first.sent[:shared] == again.sent[:shared]
    assert first.sent[:shared] != other.sent[:shared] or shared < 3


async def test_answers_that_are_never_the_images_class_are_remarked_on() -> None:
    wrong, right = await film(Scripted(), 3), await film(Scripted(), 1)
    right.right = 1
    for tallies, said in (
        ({"a": wrong}, True),
        ({"a": wrong, "b": right}, False),
        ({"a": tallied(x=2)}, False),
    ):
        console = Console(file=io.StringIO(), width=130)
        Screen(console).account(tallies, 1, 0, None)
        assert isinstance(console.file, io.StringIO)
        assert ("has the model learnt them?" in console.file.getvalue()) is said


# --- lines --------------------------------------------------------------------------------------


def test_the_models_own_choice_is_what_is_counted() -> None:
    assert answer_of({"known": "true", "item": "a", "score": 0.9}) == Answer("a", 0.9)
    assert answer_of({"known": "false", "item": "other", "guess": "b", "score": 0.3}) == Answer("b", 0.3)


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        ({"status": 503, "detail": "too many images at once"}, NotSent),
        ({"status": 413, "detail": "too large"}, ImageRefused),
        ({"known": "true"}, ImageRefused),
        ({}, ImageRefused),
    ],
)
def test_a_problem_is_a_refusal_and_too_much_at_once_may_be_tried_again(
    reply: dict[str, object], error: type[Exception]
) -> None:
    with pytest.raises(error):
        answer_of(reply)


async def asked_over_http(handler: Callable[[httpx.Request], httpx.Response]) -> Answer:
    async with http_line("http://shopper", 1, "m", "token-of-mine") as line:
        line._client = httpx.AsyncClient(transport=httpx.MockTransport(handler))
        return await line.ask("cam-1", PICTURE, 5)


async def test_over_http_the_camera_is_named_and_the_token_shown() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.headers["camera"] == "cam-1"
        assert request.headers["authorization"] == "Bearer token-of-mine"
        assert request.url == "http://shopper/binary?model=m"
        assert request.content == PICTURE.data
        return httpx.Response(200, json={"known": "true", "item": "tea-green", "score": 0.93})

    assert await asked_over_http(answer) == GREEN


@pytest.mark.parametrize(
    ("fault", "error"),
    [(httpx.ConnectError("refused"), NotSent), (httpx.ReadError("reset"), NoAnswer)],
)
async def test_a_connection_that_breaks_after_sending_leaves_it_unknown(
    fault: Exception, error: type[Exception]
) -> None:
    def fail(_: httpx.Request) -> httpx.Response:
        raise fault

    with pytest.raises(error):
        await asked_over_http(fail)


def test_a_message_is_what_its_door_takes() -> None:
    topic, payload = Json("").request("cam-1", 1, PICTURE)
    assert topic == "detection/cam-1"
    assert base64.b64decode(json.loads(payload)["image"]) == PICTURE.data
    reply = json.dumps({"known": "true", "item": "a", "score": 1}).encode()
    assert Json("").reply("response/detection/cam-1", reply)[:2] == ("cam-1", UNNUMBERED)

    tensor = Tensor("apparel_images", "apparel-predict", "m")
    _, payload = tensor.request("cam-1", 7, Picture("", encoded("L", (28, 28))))
    message = msgpack.unpackb(payload)
    assert np.frombuffer(message.pop("image"), np.uint8).reshape(28, 28).max() == 7
    assert message == {
        "dtype": "uint8", "height": 28, "width": 28, "channels": 1, "model": "m", "camera": "cam-1", "id": 7,
    }  # fmt: skip
    reply = msgpack.packb({"camera": "cam-1", "id": 7, "known": "true"})
    assert tensor.reply("apparel-predict", reply)[:2] == ("cam-1", 7)
    assert msgpack.unpackb(tensor.request("c", 1, PICTURE)[1])["channels"] == 3


# --- pictures -----------------------------------------------------------------------------------


def quiet(_done: int, _of: int) -> None:
    pass


def test_a_zip_and_a_folder_are_read_with_their_classes(tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("images/tea-green/1.png", encoded())
        zipped.writestr("notes.txt", "no image")
    assert load(str(archive), tmp_path, 1, quiet) == [Picture("tea-green", encoded())]
    folder = tmp_path / "photos"
    (folder / "bag").mkdir(parents=True)
    (folder / "bag" / "1.PNG").write_bytes(encoded())
    (folder / "2.png").write_bytes(encoded(colour=9))
    assert {one.label for one in load(str(folder), tmp_path, 1, quiet)} == {"bag", ""}


def test_what_has_no_images_is_said(tmp_path: Path) -> None:
    for data in (str(tmp_path), str(tmp_path / "absent"), "nothing"):
        with pytest.raises(StackError, match=data.rsplit("/", maxsplit=1)[-1]):
            load(data, tmp_path, 1, quiet)


# --- the hub ------------------------------------------------------------------------------------


def hub_page(count: int, threshold: float = 0.8) -> dict[str, object]:
    totals = {"certain": {"a": count}, "uncertain": {}, "images": count}
    times = ("2026-01-01T00:00:00.000+00:00", "2026-01-01T00:00:00.010+00:00")
    window = {"start": times[0], "end": times[1], "threshold": threshold}
    mine = {"edge": "edge1", "camera": "cam-1", "totals": totals, "windows": [window]}
    return {"cameras": [mine, {**mine, "edge": "edge2", "totals": {}}]}


async def settle(pages: list[httpx.Response], tally: Tally, patience: float = 0.1) -> bool:
    def answer(_: httpx.Request) -> httpx.Response:
        return pages.pop(0) if len(pages) > 1 else pages[0]

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
        found = await hub.settled(
            http, "http://hub", "edge1", {"cam-1": tally}, patience=patience, on_poll=lambda *_: None
        )
    return found["cam-1"].equal


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("POLL", 0.005), ("WINDOW_SECONDS", 0.01), ("SLACK", 0.3)):
        monkeypatch.setattr(hub, name, value)


@pytest.mark.usefixtures("hurried")
async def test_the_hub_is_asked_until_it_has_all() -> None:
    pages = [httpx.Response(500), *(httpx.Response(200, json=hub_page(n)) for n in (0, 1, 2))]
    assert await settle(pages, tallied(a=2), patience=10)


@pytest.mark.usefixtures("hurried")
async def test_an_image_that_is_counted_twice_after_all_was_equal_is_seen() -> None:
    pages = [httpx.Response(200, json=hub_page(n)) for n in (2, 3)]
    assert not await settle(pages, tallied(a=2))


@pytest.mark.usefixtures("hurried")
async def test_a_camera_that_the_hub_does_not_know_differs() -> None:
    assert not await settle([httpx.Response(200, json={"cameras": []})], tallied(a=1))


@pytest.mark.usefixtures("hurried")
async def test_a_hub_that_never_answers_is_an_error() -> None:
    with pytest.raises(StackError, match="does not answer"):
        await settle([httpx.Response(404)], tallied(a=1))


@pytest.mark.usefixtures("hurried")
async def test_a_threshold_that_is_not_the_shoppers_is_said() -> None:
    with pytest.raises(StackError, match=r"--threshold 0\.5"):
        await settle([httpx.Response(200, json=hub_page(1, 0.5))], tallied(a=1))


# --- the command --------------------------------------------------------------------------------


def test_without_a_stack_it_says_what_to_do(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["cameras"], env={"CARAVAN_HOME": str(tmp_path)})
    assert result.exit_code == 1
    assert "make start first" in result.output
