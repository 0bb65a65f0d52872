"""Rendered photos: the same for the same seed, decent JPEGs, and not to be told apart by colour."""

import io
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lab.photos import OTHER, PRODUCTS, photo_name, render, render_zip

LARGEST = 480


@pytest.mark.parametrize("product", PRODUCTS)
def test_every_product_renders_to_a_jpeg_like_a_phone_upload_scaled_down(product: str) -> None:
    photo = render(product, 5)
    image = Image.open(io.BytesIO(photo))
    image.load()
    assert image.format == "JPEG"
    assert max(image.size) <= LARGEST
    assert 3_000 < len(photo) < 80_000


def test_a_seed_gives_the_same_photo_again_and_another_seed_another() -> None:
    assert render("tea-green", 7) == render("tea-green", 7)
    assert render("tea-green", 7) != render("tea-green", 8)
    assert render("tea-green", 7) != render("tea-lemon", 7)


def test_the_bytes_of_a_zip_do_not_depend_on_the_number_of_workers(tmp_path: Path) -> None:
    classes = {OTHER: 9, "tea-lemon": 9}
    for workers in (1, 2):
        render_zip(tmp_path / f"{workers}.zip", classes, seed=3, workers=workers)
    assert (tmp_path / "1.zip").read_bytes() == (tmp_path / "2.zip").read_bytes()
    names = zipfile.ZipFile(tmp_path / "1.zip").namelist()
    assert Counter(name.split("/")[1] for name in names) == classes
    assert names[0] == photo_name(OTHER, 0)


def test_progress_counts_up_to_all_photos(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    render_zip(tmp_path / "a.zip", {"tea-green": 3}, 1, lambda done, of: seen.append((done, of)), workers=1)
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_an_unknown_product_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="tea-blue"):
        render_zip(tmp_path / "a.zip", {"tea-green": 1, "tea-blue": 1}, 1)
    assert list(tmp_path.iterdir()) == []


def test_rendering_that_is_broken_off_leaves_no_half_zip(tmp_path: Path) -> None:
    def stop(done: int, _: int) -> None:
        if done == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        render_zip(tmp_path / "a.zip", {"tea-green": 20}, 1, stop, workers=1)
    assert list(tmp_path.iterdir()) == []


def test_the_average_colour_does_not_tell_the_products_apart() -> None:
    products = ("tea-earl-grey", "tea-lemon", "tea-green", OTHER)
    means = np.array([[_mean_colour(render(p, 100 + i)) for i in range(16)] for p in products])
    centres = means[:, :8].mean(axis=1)
    distances = np.linalg.norm(means[:, 8:, None, :] - centres, axis=-1)
    right = distances.argmin(axis=-1) == np.arange(len(products))[:, None]
    assert right.mean() < 0.7


def _mean_colour(photo: bytes) -> list[float]:
    pixels = np.asarray(Image.open(io.BytesIO(photo)).convert("RGB"), dtype=float)
    return [float(v) for v in pixels.mean(axis=(0, 1))]
