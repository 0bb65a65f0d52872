"""The photos of a demo: two ZIPs to upload, and photos of the new product that are held out of both."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from caravan.contracts import OTHER
from lab.demo.errors import UnfitPhotos
from lab.photos import render_zip
from lab.zips import Photo, copy_without, look_of, most_typical, photos

FIRST = {OTHER: 330, "tea-earl-grey": 75, "tea-lemon": 75}
NEW = {"tea-green": 112}
SEED = 2024
MOST_HELD_OUT, HELD_OUT_SHARE = 12, 8
"""One photo in HELD_OUT_SHARE is held out, up to MOST_HELD_OUT."""
FEWEST = 8
"""Photos of the new product that are needed, so that one can be held out and a model still learn."""
MOST_KNOWN = 4
SAMPLE = 40
"""Photos of a known product among which a typical one is sought."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Supply:
    """What the demo works with.

    `first` and `new` are the ZIPs to upload, with as many images as `first_images` and `new_images` say.
    `product` is the class that only `new` has; `held_out` are photos of it that neither ZIP contains, the
    first being the one to show. `known` has a photo of each of some products that `first` teaches.
    """

    first: Path
    first_images: int
    new: Path
    new_images: int
    product: str
    held_out: tuple[Photo, ...]
    known: tuple[Photo, ...]

    @property
    def shown(self) -> Photo:
        """The photo that is shown before and after."""
        return self.held_out[0]


def rendered(folder: Path, on_progress: Progress) -> Supply:
    """Render the photos into a folder, then hold some out."""
    first, new = folder / "first.zip", folder / "new.zip"
    total = sum(FIRST.values()) + sum(NEW.values())
    render_zip(first, FIRST, SEED, lambda done, _: on_progress(done, total))
    render_zip(new, NEW, SEED, lambda done, _: on_progress(sum(FIRST.values()) + done, total))
    return held_out_of(first, new, folder)


def held_out_of(first: Path, new: Path, folder: Path) -> Supply:
    """Find what is new in the second ZIP, and copy it into the folder without the photos held out.

    Which photos these are is decided here, before any model has seen one: first the most typical one, which
    is the one to show, then others evenly spread.

    Raises:
        UnfitPhotos: if the ZIPs do not teach a new product.

    """
    classes: Counter[str] = Counter()
    taught: set[str] = set()
    for photo in photos(first):
        classes[photo.product] += 1
        taught.add(photo.sha256)
    if len(classes) < 2:  # noqa: PLR2004 - a model tells at least two things apart
        raise UnfitPhotos(
            f"{first} has photos of {len(classes)} class(es): images/<class>/… of two are needed"
        )
    product, fresh = _new_product(new, classes.keys(), taught)
    held_out = _chosen(new, product, fresh)
    rest = folder / "new-without-held-out.zip"
    copied = copy_without(new, rest, {photo.sha256 for photo in held_out})
    known = _known(first, classes)
    if not known:
        raise UnfitPhotos(f"{first} has no image of a product (other than {OTHER!r}) that can be read")
    return Supply(first, classes.total(), rest, copied, product, held_out, known)


def _new_product(new: Path, classes: Collection[str], taught: set[str]) -> tuple[str, list[str]]:
    """Return the class that is new, and the SHA-256 of each of its photos that are not in the first ZIP."""
    fresh: dict[str, dict[str, None]] = defaultdict(dict)
    for photo in photos(new):
        if photo.product not in classes and photo.sha256 not in taught:
            fresh[photo.product][photo.sha256] = None
    if not fresh:
        raise UnfitPhotos(
            f"{new} has no images/<class>/… that the first ZIP lacks: there is nothing new to learn"
        )
    product = max(sorted(fresh), key=lambda name: len(fresh[name]))
    if len(fresh[product]) < FEWEST:
        raise UnfitPhotos(
            f"{new} has {len(fresh[product])} photos of {product}: at least {FEWEST} are needed"
        )
    return product, list(fresh[product])


def _chosen(new: Path, product: str, fresh: list[str]) -> tuple[Photo, ...]:
    wanted = max(1, min(MOST_HELD_OUT, len(fresh) // HELD_OUT_SHARE))
    spread = {fresh[i * len(fresh) // wanted] for i in range(wanted)}
    looks, among = {}, set(fresh)
    for photo in photos(new):
        sha256 = photo.sha256
        if photo.product == product and sha256 in among and (look := look_of(photo.data)) is not None:
            looks[sha256] = look
    if not looks:
        raise UnfitPhotos(f"{new} has no image of {product} that can be read")
    typical = list(looks)[most_typical(np.stack(list(looks.values())))]
    chosen: dict[str, Photo] = {}
    for photo in photos(new):
        if photo.product == product and photo.sha256 in spread | {typical}:
            chosen.setdefault(photo.sha256, photo)
    shown = chosen.pop(typical)
    return (shown, *list(chosen.values())[: wanted - 1])


def _known(first: Path, classes: Counter[str]) -> tuple[Photo, ...]:
    """Return a typical photo of each known product, the most photographed ones first."""
    products = [name for name, _ in classes.most_common() if name != OTHER][:MOST_KNOWN]
    some: dict[str, list[Photo]] = {name: [] for name in products}
    for photo in photos(first):
        if photo.product in some and len(some[photo.product]) < SAMPLE:
            some[photo.product].append(photo)
    return tuple(found for name in products if (found := _typical(some[name])) is not None)


def _typical(some: list[Photo]) -> Photo | None:
    seen = [(photo, look) for photo in some if (look := look_of(photo.data)) is not None]
    return seen[most_typical(np.stack([look for _, look in seen]))][0] if seen else None
