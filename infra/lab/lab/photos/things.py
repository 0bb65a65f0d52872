"""Everything that is not one of the shop's teas: boxes, tins, bottles, mugs, books, fruit and bags.

No two are alike: sizes, colours, layouts and words are drawn anew for each.
"""

import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

from lab.photos.brands import Brand
from lab.photos.cartons import carton
from lab.photos.paint import (
    INK,
    WHITE,
    Colour,
    Rng,
    any_colour,
    grain,
    hsv,
    mixed,
    toned,
)
from lab.photos.solids import Face, Solid, box, turned_shape
from lab.photos.teas import another_sort


def anything(rng: Rng) -> Solid:
    """Make one thing of a random kind."""
    kinds: tuple[tuple[float, Callable[[Rng], Solid]], ...] = (
        (0.40, foreign_box),
        (0.16, lambda rng: carton(another_sort(rng), rng)),
        (0.08, tin),
        (0.07, bottle),
        (0.06, mug),
        (0.07, book),
        (0.05, fruit),
        (0.07, bag),
    )
    shares = np.array([share for share, _ in kinds])
    _, make = kinds[int(rng.choice(len(kinds), p=shares / shares.sum()))]
    return make(rng)


def foreign_box(rng: Rng) -> Solid:
    """Fold a box of another brand, in any proportion from a packet of gum to a cereal box."""
    width, depth, height = rng.uniform(5, 13), rng.uniform(2.5, 8), rng.uniform(4, 16)
    brand = Brand(rng)
    front, side = brand.face(width, height), brand.edge(depth, height)
    top = brand.edge(width, depth)
    return box(width, depth, height, (front, side, front, side, top, top))


def book(rng: Rng) -> Solid:
    """Bind a book: a cover with a title, a spine, and the edges of its pages."""
    width, depth, height = rng.uniform(9, 14), rng.uniform(1, 3.5), rng.uniform(13, 19)
    brand = Brand(rng)
    pages = _pages(depth, height)
    ends = _pages(depth, width).rotate(90, expand=True)
    front, back, spine = brand.cover(width, height), brand.edge(width, height), brand.edge(depth, height)
    return box(width, depth, height, (front, pages, back, spine, ends, ends))


def tin(rng: Rng) -> Solid:
    """Seal a drinks can or a food tin with a printed wrap."""
    radius, height = rng.uniform(2.6, 4.6), rng.uniform(4, 13)
    metal = hsv(0.1, 0.05, rng.uniform(0.6, 0.85))
    wrap = Brand(rng).wrap(2 * math.pi * radius, height)
    rim = Image.new("RGB", (120, 8), metal)
    half = height / 2
    profile = [(half, radius * 0.92), (half - 0.5, radius), (0.5 - half, radius), (-half, radius * 0.92)]
    return turned_shape(profile, (rim, wrap, rim), (_disc(metal, rings=True), _disc(metal)))


def bottle(rng: Rng) -> Solid:
    """Blow a bottle or a jar: cap, neck, shoulder, label and base."""
    radius, height = rng.uniform(2.5, 4.2), rng.uniform(12, 22)
    neck, glass, cap = radius * rng.uniform(0.3, 0.8), any_colour(rng, value=(0.15, 0.7)), any_colour(rng)
    wrap = Brand(rng).wrap(2 * math.pi * radius, height * 0.35)
    plain, closed = Image.new("RGB", (160, 40), glass), Image.new("RGB", (160, 20), cap)
    z = np.array([1.0, 0.9, 0.72, 0.58, 0.2, 0.0]) * height
    r = (neck, neck, neck * 1.02, radius, radius, radius * 0.96)
    profile = [(float(h), float(w)) for h, w in zip(z, r, strict=True)]
    return turned_shape(profile, (closed, plain, plain, wrap, plain), (_disc(cap), _disc(glass)))


def mug(rng: Rng) -> Solid:
    """Throw a mug with something in it, and a handle."""
    radius, height = rng.uniform(3.4, 4.6), rng.uniform(7.5, 11)
    glaze = any_colour(rng, (0.0, 0.8), (0.4, 0.98))
    drink = hsv(0.07, rng.uniform(0.3, 0.9), rng.uniform(0.15, 0.7))
    wrap = Image.new("RGB", (round(2 * math.pi * radius * 16), round(height * 16)), glaze)
    pen = ImageDraw.Draw(wrap)
    ink = any_colour(rng)
    for i in range(int(rng.integers(0, 5))):
        y = wrap.height * (0.2 + 0.16 * i)
        pen.rectangle((0, y, wrap.width, y + rng.integers(3, 16)), fill=ink)
    half = height / 2
    body = turned_shape(
        [(half, radius), (-half, radius * rng.uniform(0.75, 1.0))],
        (wrap,),
        (_disc(drink, edge=glaze), _disc(glaze)),
    )
    skin = Image.new("RGB", (16, 16), glaze)
    bars = (
        _moved(box(2.4, 0.9, 0.9, (skin,) * 6), radius + 1, height * 0.25),
        _moved(box(0.9, 0.9, height * 0.5, (skin,) * 6), radius + 2, 0),
        _moved(box(2.4, 0.9, 0.9, (skin,) * 6), radius + 1, -height * 0.25),
    )
    handle = tuple(face for bar in bars for face in bar)
    return Solid(body.faces + handle)


def fruit(rng: Rng) -> Solid:
    """Grow an orange, an apple, a lemon or a plum."""
    radius, stretch = rng.uniform(2.6, 4.4), rng.uniform(0.85, 1.3)
    hue = float(rng.choice([0.02, 0.08, 0.13, 0.16, 0.28, 0.85]))
    skin = hsv(hue, rng.uniform(0.55, 0.95), rng.uniform(0.5, 0.9))
    peel = toned(grain(rng, (220, 160), (5, 4)), mixed(skin, INK, 0.12), mixed(skin, WHITE, 0.12))
    steps = np.linspace(0.12, math.pi - 0.12, 9)
    profile = [(float(math.cos(s) * radius * stretch), float(math.sin(s) * radius)) for s in steps]
    rings = tuple(peel.crop((0, top, peel.width, top + 20)) for top in range(0, 160, 20))
    return turned_shape(profile, rings, None, strips=18)


def bag(rng: Rng) -> Solid:
    """Weld a flat bag, a sachet or a bar of chocolate, with crimped ends."""
    width, height, depth = rng.uniform(5, 12), rng.uniform(6, 15), rng.uniform(0.5, 2.2)
    brand = Brand(rng)
    front = brand.face(width, height)
    pen = ImageDraw.Draw(front)
    for x in range(0, front.width, 6):
        for top in (0, front.height - 16):
            pen.line((x, top, x, top + 16), fill=mixed(INK, WHITE, 0.25), width=2)
    edge = brand.edge(depth, height)
    return box(width, depth, height, (front, edge, front, edge, edge, edge))


def _pages(width_cm: float, height_cm: float) -> Image.Image:
    sheet = Image.new("RGB", (max(round(width_cm * 20), 8), round(height_cm * 12)), (232, 226, 206))
    pen = ImageDraw.Draw(sheet)
    for x in range(0, sheet.width, 3):
        pen.line((x, 0, x, sheet.height), fill=(198, 190, 168))
    return sheet


def _disc(fill: Colour, *, rings: bool = False, edge: Colour | None = None) -> Image.Image:
    lid = Image.new("RGBA", (160, 160))
    pen = ImageDraw.Draw(lid)
    pen.ellipse((0, 0, 159, 159), fill=(*(edge or mixed(fill, WHITE, 0.25)), 255))
    pen.ellipse((10, 10, 149, 149), fill=(*fill, 255))
    if rings:
        pen.ellipse((20, 20, 139, 139), outline=(*mixed(fill, INK, 0.25), 255), width=3)
        pen.ellipse((70, 84, 90, 118), fill=(*mixed(fill, INK, 0.35), 255))
    return lid


def _moved(solid: Solid, x: float, z: float) -> tuple[Face, ...]:
    return tuple(Face(f.texture, f.corners + np.array([x, 0, z]), f.normals) for f in solid.faces)
