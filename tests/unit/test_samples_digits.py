"""The digits as a training ZIP."""

import io
import zipfile
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from lab.cli import app
from lab.samples.digits import MARGIN, SIDE, picture

pytestmark = pytest.mark.skipif(find_spec("sklearn") is None, reason="scikit-learn is not installed")


def originals() -> Any:
    from sklearn.datasets import load_digits  # type: ignore[import-untyped] # noqa: PLC0415 - seconds

    return load_digits()


def written(*words: str) -> None:
    outcome = CliRunner().invoke(app, ["samples", "digits", *words])
    assert outcome.exit_code == 0, outcome.output


def test_every_digit_is_a_picture_under_its_class_and_the_bytes_are_always_the_same(tmp_path: Path) -> None:
    first, second = tmp_path / "first.zip", tmp_path / "second.zip"
    written("--out", str(first))
    written("--out", str(second))
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as archive:
        names = archive.namelist()
        with Image.open(io.BytesIO(archive.read(names[0]))) as image:
            assert (image.format, image.size, image.mode) == ("PNG", (SIDE, SIDE), "L")
    truth = Counter(str(label) for label in originals().target)
    assert Counter(name.split("/")[1] for name in names) == truth
    assert len(set(names)) == 1797
    assert all(name.startswith("images/") and name.endswith(".png") for name in names)


def test_a_fifth_of_each_class_is_held_out_and_nothing_is_on_both_sides(tmp_path: Path) -> None:
    learned, held_out = tmp_path / "learned.zip", tmp_path / "held-out.zip"
    written("--out", str(learned), "--held-out", str(held_out))
    with zipfile.ZipFile(learned) as archive:
        ours = set(archive.namelist())
    with zipfile.ZipFile(held_out) as archive:
        theirs = set(archive.namelist())
    assert len(ours | theirs) == len(ours) + len(theirs) == 1797
    counts = Counter(name.split("/")[1] for name in theirs)
    assert all(abs(counts[str(k)] - np.sum(originals().target == k) / 5) < 1 for k in range(10))


def test_a_picture_is_dark_ink_on_white_paper() -> None:
    ink = np.zeros((8, 8))
    ink[3:5, 3:5] = 16
    pixels = np.asarray(picture(ink))
    block = SIDE // (8 + 2 * MARGIN)
    assert pixels[SIDE // 2, SIDE // 2] == 0
    assert (pixels[: block * MARGIN] == 255).all()
