"""Fashion-MNIST: its files read, its model zipped, its answers counted."""

import asyncio
import gzip
import io
import re
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from caravan.model_zips import ModelZipLimits, read_model_zip
from lab.cameras import camera
from lab.cameras.data_sets import models
from lab.cameras.lines import ImageRefused, NoAnswer, NotSent
from lab.cameras.pictures import Picture, load
from lab.cameras.tally import Answer
from lab.cli import app
from lab.samples.apparel import CLASSES, MODEL
from lab.samples.fashion_mnist import read_apparel
from lab.samples.idx import read_idx
from lab.samples.model_zip import write_model_zip
from lab.scoring.score import Score, Way, ask_all
from lab.scoring.table import in_words, table
from local_stack.errors import StackError

# --- idx files ----------------------------------------------------------------------------------


def idx(values: NDArray[np.uint8]) -> bytes:
    head = struct.pack(f">4B{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
    return head + values.tobytes()


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(gzip.compress(content))
    return path


CUBE = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


def test_values_come_in_their_own_shape(tmp_path: Path) -> None:
    assert np.array_equal(read_idx(written(tmp_path / "a.gz", idx(CUBE)), 3), CUBE)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (idx(CUBE)[:-1], "holds 24 values, and holds 23"),
        (idx(CUBE) + b"x", "holds 24 values, and holds more"),
        (idx(CUBE)[:9], "ends within its head"),
        (b"", "not as 3 dimensions"),
        (idx(CUBE[0]), "not as 3 dimensions"),
        (b"\0\0\x0d\x03" + idx(CUBE)[4:], "it begins with 00 00 0d 03"),
        (b"\0\0\x08\x03" + b"\xff" * 12, "says that it holds"),
    ],
)
def test_a_file_that_holds_anything_else_is_said(tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.raises(StackError, match=words):
        read_idx(written(tmp_path / "a.gz", content), 3)


@pytest.mark.parametrize(
    "content",
    [b"no gzip at all", gzip.compress(idx(CUBE))[:-9], gzip.compress(idx(CUBE))[:20] + b"\xff" * 40, b""],
    # Not the bytes: gzip's hold the second of their making, and each of the tests' processes makes them.
    ids=["not gzip", "cut", "overwritten", "empty"],
)
def test_a_damaged_file_is_said(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(content)
    with pytest.raises(StackError, match=r"a\.gz"):
        read_idx(path, 3)


# --- the data set -------------------------------------------------------------------------------


def data_set(folder: Path, images: NDArray[np.uint8], labels: Sequence[int], part: str = "t10k") -> Path:
    written(folder / f"{part}-images-idx3-ubyte.gz", idx(images))
    written(folder / f"{part}-labels-idx1-ubyte.gz", idx(np.array(labels, np.uint8)))
    return folder


def pixels(count: int) -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (count, 28, 28), np.uint8)


def test_pictures_come_with_their_labels(tmp_path: Path) -> None:
    found = read_apparel(data_set(tmp_path, pixels(3), [9, 0, 3]), "t10k")
    assert np.array_equal(found.images, pixels(3))
    assert found.labels.tolist() == [9, 0, 3]


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        (pixels(3), [1, 2], "3 pictures and 2 labels"),
        (pixels(0), [], "0 pictures"),
        (pixels(2), [1, 10], "label 10; there are 10 classes"),
        (pixels(2)[:, :27], [1, 1], "pictures of 27 x 28"),
    ],
)
def test_what_does_not_fit_together_is_said(
    tmp_path: Path, images: NDArray[np.uint8], labels: list[int], words: str
) -> None:
    with pytest.raises(StackError, match=words):
        read_apparel(data_set(tmp_path, images, labels), "t10k")


def test_where_the_data_set_is_missing_it_says_how_to_get_it_without_root(tmp_path: Path) -> None:
    with pytest.raises(StackError) as caught:
        read_apparel(tmp_path, "train")
    said = str(caught.value)
    assert "no train-images-idx3-ubyte.gz and no train-labels-idx1-ubyte.gz" in said
    assert "apt-get download dataset-fashion-mnist && dpkg -x" in said
    assert "export FASHION_MNIST=$PWD/fashion/usr/share/datasets/fashion-mnist" in said


def test_the_command_ends_with_these_words_and_writes_nothing(tmp_path: Path) -> None:
    out = tmp_path / "fashion.zip"
    words = ["samples", "apparel", "--out", str(out)]
    result = CliRunner().invoke(app, words, env={"FASHION_MNIST": str(tmp_path)})
    assert result.exit_code == 1
    assert "apt-get download" in result.output
    assert not out.exists()


# --- the model's ZIP ----------------------------------------------------------------------------


def test_the_zip_is_what_the_feeder_takes(tmp_path: Path) -> None:
    model = tmp_path / "model"
    (model / "variables").mkdir(parents=True)
    files = {"saved_model.pb": b"graph", "fingerprint.pb": b"f", "variables/variables.index": b"i"}
    for name, content in files.items():
        (model / name).write_bytes(content)
    out = tmp_path / "fashion.zip"
    assert write_model_zip(out, model, CLASSES) == out.stat().st_size
    with out.open("rb") as file:
        found = read_model_zip(file, ModelZipLimits(100, 1000))
        found.verify()
        assert (found.entry, set(found.files), found.labels) == ("saved_model.pb", set(files), CLASSES)
        assert {name.filename.split("/")[0] for name in found.files.values()} == {"fashion"}


# --- the score ----------------------------------------------------------------------------------

WAY = Way("requests", "replies", "", "m", at_once=4, deadline=0.2)


class Scripted:
    """Answers a picture with what its bytes say; remembers how many were on their way at once."""

    def __init__(self) -> None:
        self.most = 0
        self._now = 0
        self._busy = True

    async def ask(self, name: str, picture: Picture, seconds: float) -> Answer:
        self._now += 1
        self.most = max(self.most, self._now)
        await asyncio.sleep(0)
        self._now -= 1
        said = picture.data.decode()
        if said == "busy" and self._busy:
            self._busy = False
            raise NotSent(said)
        if said in {"refused", "silence"}:
            raise ImageRefused(said) if said == "refused" else NoAnswer(said)
        return Answer("a" if said == "busy" else said, 0.9)


async def scored(line: Scripted, *pictures: tuple[str, str]) -> tuple[Score, list[int]]:
    done: list[int] = []
    sent = [Picture(label, said.encode()) for label, said in pictures]
    score = await ask_all(
        line, "score-1", WAY, sent, classes=("a", "b"), on_answer=lambda n, _: done.append(n)
    )
    return score, done


def shown(score: Score) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(table(score))
    console.print(in_words(score))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


async def test_each_picture_is_asked_about_once_and_counted_by_its_class() -> None:
    line = Scripted()
    score, done = await scored(line, *[("a", "a")] * 6, ("a", "b"), ("b", "b"), ("b", "a"), ("b", "a"))
    assert (score.sent, score.answered, score.right, score.missing) == (10, 10, 7, 0)
    assert score.accuracy == 0.7
    assert line.most == WAY.at_once
    assert done[-1] == 10
    said = shown(score)
    assert re.search(r"^a +7 +7 +6 +0\.857 +b \(1\) *$", said, re.MULTILINE)
    assert re.search(r"^b +3 +3 +1 +0\.333 +a \(2\) *$", said, re.MULTILINE)
    assert "accuracy 0.7000: 7 right of 10, 10 answered" in said


async def test_what_has_no_answer_is_missing_and_not_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camera, "FIRST_PAUSE", 0.001)
    score, _ = await scored(Scripted(), ("a", "refused"), ("a", "silence"), ("b", "b"), ("a", "busy"))
    assert (score.sent, score.answered, score.right, score.missing) == (4, 2, 2, 2)
    assert score.accuracy == 0.5
    assert score.classes["a"].retried == 1
    assert score.errors == ["refused"]


def test_without_a_stack_the_score_says_what_to_do(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["samples", "apparel-score"], env={"CARAVAN_HOME": str(tmp_path)})
    assert result.exit_code == 1
    assert "make start first" in result.output


# --- cameras ------------------------------------------------------------------------------------


def test_cameras_film_apparel_to_the_pixel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASHION_MNIST", str(data_set(tmp_path, pixels(2), [8, 0])))
    found = {one.label: one.data for one in load("fashion", tmp_path, 1, lambda *_: None)}
    for number, label in enumerate(("Bag", "T-shirt/top")):
        with Image.open(io.BytesIO(found[label])) as image:
            assert np.array_equal(np.asarray(image), pixels(2)[number])


def test_cameras_film_digits(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    found = load("digits", tmp_path, 1, lambda *_: None)
    assert {one.label for one in found} == set("0123456789")
    with Image.open(io.BytesIO(found[0].data)) as image:
        assert (image.format, image.mode) == ("PNG", "L")


def test_a_data_set_is_asked_about_at_the_model_that_it_is_for() -> None:
    assert models("", "fashion", "http") == models("", "fashion", "tensor") == (MODEL, MODEL)
    assert models("", "rendered", "mqtt") == ("", "tea_model_b64")
    assert models("", "digits", "http", "digits") == ("", "digits")
    assert models("", "digits", "tensor") == ("tea_model_b64", "tea_model_b64")
    assert models("", "photos.zip", "tensor") == ("", MODEL)
    assert models("mine", "fashion", "tensor") == ("mine", "mine")
