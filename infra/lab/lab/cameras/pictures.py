"""The data sets that cameras film: rendered photos, digits, apparel, a ZIP or a folder of one's own."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from lab.cameras.data_sets import DIGITS, FASHION, RENDERED
from lab.photos import render_zip
from lab.photos.scene import PRODUCTS
from lab.samples.apparel import CLASSES, folder_of
from lab.samples.digits import digits, encoded
from lab.samples.fashion_mnist import Apparel, read_apparel
from lab.zips import photos
from local_stack.errors import StackError

RENDERED_EACH, RENDERED_SEED = 8, 4711
MOST, MOST_BYTES = 1000, 128 * 2**20
"""Images taken of a data set, and their bytes; which ones, chance decides."""
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Picture:
    """An image as it is sent: its class, "" where the data set does not tell, and its encoded bytes."""

    label: str
    data: bytes


def load(data: str, folder: Path, seed: int, on_progress: Progress) -> list[Picture]:
    """Return the images of a data set: by name, or the path of a ZIP or a folder.

    `rendered` photos are made once and kept in `folder`; `digits` are scikit-learn's, `fashion` the 10,000 to
    be asked with of Fashion-MNIST.

    Raises:
        StackError: if there are none; the text says what to do.

    """
    source = _source(data, folder, on_progress)
    pictures = _sampled(source, random.Random(seed))  # noqa: S311  no secret
    if not pictures:
        raise StackError(f"{data} has no images (.jpg, .jpeg, .png, .webp)")
    return pictures


def _source(data: str, folder: Path, on_progress: Progress) -> Iterable[Picture]:
    if data == RENDERED:
        return _of_zip(_rendered(folder, on_progress))
    if data == DIGITS:
        return (Picture(digit.name.split("/")[1], digit.png) for digit in digits())
    if data == FASHION:
        return pictures_of(read_apparel(folder_of(), "t10k"))
    path = Path(data).expanduser()
    if path.is_dir():
        return _of_folder(path)
    if path.is_file():
        return _of_zip(path)
    sets = f"{RENDERED}, {DIGITS}, {FASHION}"
    raise StackError(f"{data} is neither a file or folder nor one of the data sets: {sets}")


def pictures_of(apparel: Apparel) -> Iterator[Picture]:
    """Yield apparel as PNGs, which keep every pixel."""
    for image, label in zip(apparel.images, apparel.labels, strict=True):
        yield Picture(CLASSES[label], encoded(Image.fromarray(image)))


def _rendered(folder: Path, on_progress: Progress) -> Path:
    path = folder / f"rendered-{RENDERED_SEED}.zip"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".new")
        render_zip(draft, dict.fromkeys(PRODUCTS, RENDERED_EACH), RENDERED_SEED, on_progress)
        draft.replace(path)
    return path


def _of_zip(path: Path) -> Iterator[Picture]:
    return (Picture(photo.product, photo.data) for photo in photos(path))


def _of_folder(folder: Path) -> Iterator[Picture]:
    """Yield every image below a folder; its class is the folder that it is in."""
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in SUFFIXES and path.is_file():
            yield Picture(path.parent.name if path.parent != folder else "", path.read_bytes())


def _sampled(source: Iterable[Picture], rng: random.Random) -> list[Picture]:
    """Return up to MOST images, each as likely as any other, and no more bytes than MOST_BYTES."""
    kept: list[Picture] = []
    for number, picture in enumerate(source):
        if len(kept) < MOST:
            kept.append(picture)
        elif (place := rng.randrange(number + 1)) < MOST:
            kept[place] = picture
    rng.shuffle(kept)
    size = 0
    for number, picture in enumerate(kept):
        size += len(picture.data)
        if size > MOST_BYTES:
            return kept[:number]
    return kept
