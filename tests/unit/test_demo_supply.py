"""Which photos the demo uploads, and which it holds out."""

import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lab.demo.errors import NotShown, UnfitPhotos
from lab.demo.story import check_held_out
from lab.demo.supply import MOST_HELD_OUT, Supply, held_out_of
from lab.zips import Photo, look_of, most_typical, photos
from support.files import as_file

HUES = {"other": (90, 90, 90), "tea": (200, 180, 90), "new": (40, 160, 60), "rare": (10, 10, 200)}


def jpeg(product: str, number: int) -> bytes:
    rng = np.random.default_rng([number, len(product)])
    pixels = np.array(HUES[product]) + rng.normal(0, 25, (24, 24, 3))
    return as_file(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), "JPEG", quality=95)


def zipped(path: Path, classes: Mapping[str, int], start: int = 0) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for product, count in classes.items():
            for i in range(start, start + count):
                archive.writestr(f"images/{product}/{i}.jpg", jpeg(product, i))
    return path


@pytest.fixture
def supply(tmp_path: Path) -> Supply:
    first = zipped(tmp_path / "a.zip", {"other": 12, "tea": 9})
    new = zipped(tmp_path / "b.zip", {"new": 40, "tea": 3}, start=100)
    return held_out_of(first, new, tmp_path)


def test_the_new_product_is_the_class_that_the_first_zip_lacks(supply: Supply) -> None:
    assert supply.product == "new"
    assert supply.first_images == 21
    assert {photo.product for photo in supply.held_out} == {"new"}


def test_photos_held_out_are_in_neither_upload(supply: Supply) -> None:
    uploaded = {photo.sha256 for path in (supply.first, supply.new) for photo in photos(path)}
    assert len(supply.held_out) == 40 // 8
    assert not uploaded & {photo.sha256 for photo in supply.held_out}
    assert supply.new_images == 43 - len(supply.held_out) == len(list(photos(supply.new)))
    check_held_out(supply)


def test_a_held_out_photo_that_sneaks_into_an_upload_is_noticed(supply: Supply) -> None:
    with zipfile.ZipFile(supply.new, "a") as archive:
        archive.writestr("images/new/again.jpg", supply.held_out[-1].data)
    with pytest.raises(NotShown, match="held out"):
        check_held_out(supply)


def test_copies_of_a_held_out_photo_under_other_names_are_left_out_too(tmp_path: Path) -> None:
    first = zipped(tmp_path / "a.zip", {"other": 4, "tea": 4})
    new = zipped(tmp_path / "b.zip", {"new": 16})
    with zipfile.ZipFile(new, "a") as archive:
        for i in range(16):
            archive.writestr(f"images/new/copy-{i}.jpg", jpeg("new", i))
    supply = held_out_of(first, new, tmp_path)
    check_held_out(supply)
    assert supply.new_images == 2 * (16 - len(supply.held_out))


def test_photos_that_the_first_zip_has_already_are_not_new(tmp_path: Path) -> None:
    first = zipped(tmp_path / "a.zip", {"other": 4, "tea": 4})
    with zipfile.ZipFile(first, "a") as archive:
        for i in range(10):
            archive.writestr(f"images/tea/strange-{i}.jpg", jpeg("new", i))
    new = zipped(tmp_path / "b.zip", {"new": 20})
    held = {photo.sha256 for photo in held_out_of(first, new, tmp_path).held_out}
    assert not held & {photo.sha256 for photo in photos(first)}


def test_no_more_are_held_out_than_needed(tmp_path: Path) -> None:
    first = zipped(tmp_path / "a.zip", {"other": 4, "tea": 4})
    supply = held_out_of(first, zipped(tmp_path / "b.zip", {"new": 300}), tmp_path)
    assert len(supply.held_out) == MOST_HELD_OUT


def test_known_products_are_asked_about_but_not_other(supply: Supply) -> None:
    assert [photo.product for photo in supply.known] == ["tea"]


def test_the_most_typical_photo_is_the_one_nearest_to_the_middle() -> None:
    looks = np.array([[0.0, 0.0], [1.0, 1.0], [9.0, 9.0], [1.0, 0.0]], dtype=np.float32)
    assert most_typical(looks) in (1, 3)


def test_what_is_no_image_has_no_look() -> None:
    assert look_of(b"not an image") is None


def test_entries_that_the_feeder_ignores_are_ignored(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("Images/tea/A.JPG", b"1")
        archive.writestr("images/tea/notes.txt", b"2")
        archive.writestr("images/lonely.jpg", b"3")
        archive.writestr("tea/b.jpg", b"4")
    assert list(photos(tmp_path / "a.zip")) == [Photo("Images/tea/A.JPG", "tea", b"1")]


@pytest.mark.parametrize(
    ("first", "new", "reason"),
    [
        ({"other": 4}, {"new": 20}, "two are needed"),
        ({"other": 4, "new": 4}, {"new": 20}, "nothing new"),
        ({"other": 4, "tea": 4}, {"new": 5}, "at least 8"),
        ({"other": 4, "tea": 4}, {}, "nothing new"),
    ],
)
def test_zips_that_teach_nothing_new_are_refused_with_a_reason(
    tmp_path: Path, first: Mapping[str, int], new: Mapping[str, int], reason: str
) -> None:
    with pytest.raises(UnfitPhotos, match=reason):
        held_out_of(zipped(tmp_path / "a.zip", first), zipped(tmp_path / "b.zip", new, start=100), tmp_path)


def test_a_file_that_is_no_zip_or_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "text.zip").write_text("hello")
    for name in ("text.zip", "gone.zip"):
        with pytest.raises(UnfitPhotos, match=name):
            held_out_of(tmp_path / name, tmp_path / name, tmp_path)


def test_of_two_new_products_the_one_with_more_photos_is_shown(tmp_path: Path) -> None:
    first = zipped(tmp_path / "a.zip", {"other": 4, "tea": 4})
    supply = held_out_of(first, zipped(tmp_path / "b.zip", {"rare": 9, "new": 20}), tmp_path)
    assert supply.product == "new"
    assert Counter(photo.product for photo in photos(supply.new))["rare"] == 9
