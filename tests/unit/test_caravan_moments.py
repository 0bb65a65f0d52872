"""When a photo was taken."""

from datetime import UTC, datetime

import pytest
from PIL import Image

from caravan.moments import FEWEST, MOMENT_SECONDS, in_one_moment, taken_at
from support.files import as_file

NOON = datetime(2023, 8, 3, 12, 44, 35, tzinfo=UTC).timestamp()


def photo(form: str = "JPEG", **exif: str) -> bytes:
    tags = Image.Exif()
    if "changed" in exif:
        tags[0x0132] = exif["changed"]
    if "taken" in exif:
        tags.get_ifd(0x8769)[0x9003] = exif["taken"]
    return as_file(Image.new("RGB", (8, 8)), form, exif=tags)


@pytest.mark.parametrize(
    "name",
    [
        "images/tea/PXL_20230803_124435158.jpg",
        "images/tea/IMG_20230803_124435.jpg",
        "images/tea/2023-08-03_12-44-35-111.jpg",
        "images/tea/2023-08-03_12-44-35-111-2.jpg",
    ],
)
def test_names_of_phones_and_of_the_shopper_tell_it(name: str) -> None:
    assert taken_at(name, photo()) == NOON


@pytest.mark.parametrize("name", ["a.jpg", "IMG_1234.jpg", "20231399_999999.jpg", "4420230803_1244351.jpg"])
def test_other_names_tell_nothing(name: str) -> None:
    assert taken_at(name, photo()) is None


def test_exif_tells_it_before_the_name_does() -> None:
    shot = photo(taken="2023:08:03 12:44:35", changed="2024:01:01 00:00:00")
    assert taken_at("PXL_20200101_000000.jpg", shot) == NOON
    assert taken_at("a.jpg", photo(changed="2024:01:01 00:00:00")) is None


@pytest.mark.parametrize("text", ["0000:00:00 00:00:00", "yesterday, at noon    ", "    :  :     :  :  "])
def test_a_clock_that_was_never_set_tells_nothing(text: str) -> None:
    assert taken_at("a.jpg", photo(taken=text)) is None


def test_no_photo_tells_nothing_and_one_that_is_cut_off_does_no_harm() -> None:
    shot = photo(taken="2023:08:03 12:44:35")
    assert taken_at("a.jpg", b"") is None
    assert taken_at("a.jpg", photo("PNG")) is None
    assert all(taken_at("a.jpg", shot[:size]) in {None, NOON} for size in range(len(shot)))


def test_a_class_photographed_in_one_moment_is_named() -> None:
    burst: list[tuple[str, float | None]] = [("tea", 10.0 * n) for n in range(FEWEST)]
    walk: list[tuple[str, float | None]] = [("mint", n * (MOMENT_SECONDS + 1.0)) for n in range(FEWEST)]
    unknown: list[tuple[str, float | None]] = [("other", None)] * 9
    told = ["all 5 photos of tea were taken within a minute: take some elsewhere"]
    assert in_one_moment([*burst, *walk, *unknown]) == told
    assert in_one_moment([*burst, ("tea", None)]) == []
    assert in_one_moment([*burst, ("tea", 9999.0)]) == []
    assert in_one_moment(burst[1:]) == []
    assert "within 3 minutes" in in_one_moment([*burst, ("tea", 130.0)])[0]
