"""One photo, from the table up: surroundings, clutter, shadows, the thing itself, and the picture taken."""

import math
import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from lab.photos.camera import Array, Camera
from lab.photos.cartons import carton
from lab.photos.lens import taken
from lab.photos.paint import Rng, chance
from lab.photos.solids import Light, Solid, cast_shadow, draw, rotation
from lab.photos.surroundings import backdrop, lay_table, table_top
from lab.photos.teas import TEAS
from lab.photos.things import anything

OTHER = "other"
PRODUCTS = (*TEAS, OTHER)
LYING_FROM = math.radians(34)
SIZES = ((324, 432), (324, 432), (432, 324), (352, 352))


def render(product: str, seed: int) -> bytes:
    """Return a photo of a product as JPEG bytes, the same for the same product and seed.

    Raises `KeyError` for a product that is not in `PRODUCTS`.
    """
    if product not in PRODUCTS:
        raise KeyError(product)
    rng = np.random.default_rng([seed, zlib.crc32(product.encode())])
    return taken(_Scene.arranged(product, rng).seen(rng), rng)


@dataclass(frozen=True, slots=True)
class _Scene:
    camera: Camera
    light: Light
    subject: tuple[Solid, ...]
    clutter: tuple[Solid, ...]

    @classmethod
    def arranged(cls, product: str, rng: Rng) -> "_Scene":
        """Put the product (or, for `other`, anything or nothing) and some clutter on a table."""
        elevation = math.radians(rng.uniform(8, 42))
        subject = _subject(product, elevation, rng)
        size = SIZES[int(rng.integers(0, len(SIZES)))]
        middle = (
            np.mean([s.points().mean(axis=0) for s in subject], axis=0) if subject else np.array([0, 0, 4.0])
        )
        camera = Camera.looking_at(
            middle + rng.normal(0, 0.9, 3),
            distance=rng.uniform(18, 24),
            azimuth=rng.uniform(-0.2, 0.2),
            elevation=elevation,
            roll=rng.normal(0, 0.1),
            focal=max(size) * rng.uniform(0.95, 1.25),
            size=size,
        )
        towards = np.array([rng.normal(0, 0.7), rng.uniform(-1.0, 0.3), rng.uniform(0.6, 1.4)])
        light = Light(towards / np.linalg.norm(towards), rng.uniform(0.5, 0.7), rng.uniform(0.3, 0.5))
        many = int(rng.choice([0, 1, 2, 3], p=[0.6, 0.25, 0.1, 0.05]))
        clutter = tuple(_standing(anything(rng), rng, *_beside(i, rng)) for i in range(many))
        return cls(camera, light, subject, clutter)

    def seen(self, rng: Rng) -> Image.Image:
        """Paint the scene from back to front."""
        camera, light = self.camera, self.light
        picture = backdrop(rng, camera.size)
        lay_table(camera, table_top(rng), rng.uniform(35, 70), rng.uniform(0, 2 * math.pi), picture)
        self._shadows(picture, rng)
        depth = max((self._depth(s) for s in self.subject), default=0.0)
        far = [s for s in self.clutter if self._depth(s) >= depth]
        near = [s for s in self.clutter if self._depth(s) < depth]
        for solid in sorted(far, key=self._depth, reverse=True):
            draw(solid, camera, light, picture)
        picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 2.5)))
        for solid in sorted(self.subject, key=self._depth, reverse=True):
            draw(solid, camera, light, picture)
        for solid in sorted(near, key=self._depth, reverse=True):
            draw(solid, camera, light, picture)
        return picture

    def _depth(self, solid: Solid) -> float:
        return float(self.camera.project(_centre(solid)[None, :])[1][0])

    def _shadows(self, picture: Image.Image, rng: Rng) -> None:
        mask = cast_shadow((*self.subject, *self.clutter), self.camera, self.light)
        mask = mask.filter(ImageFilter.GaussianBlur(rng.uniform(1.5, 6)))
        strength = rng.uniform(0.35, 0.75)
        picture.paste(
            Image.new("RGB", picture.size, (12, 12, 18)), (0, 0), mask.point(lambda v: v * strength)
        )


def _subject(product: str, elevation: float, rng: Rng) -> tuple[Solid, ...]:
    if product != OTHER:
        tea = TEAS[product]
        first = _posed(carton(tea, rng), elevation, rng, 0, 0)
        if not chance(rng, 0.08):
            return (first,)
        side = rng.choice([-1, 1]) * rng.uniform(10, 12)
        return first, _standing(carton(tea, rng), rng, side, rng.uniform(-2, 5))
    if chance(rng, 0.06):
        return ()  # an empty table
    many = 1 if chance(rng, 0.7) else 2
    return tuple(_posed(anything(rng), elevation, rng, 12 * i, rng.uniform(-2, 4)) for i in range(many))


def _posed(solid: Solid, elevation: float, rng: Rng, x: float, y: float) -> Solid:
    """Stand a thing up; or, if it is seen from well above, perhaps lay it on its back or on its side."""
    if elevation < LYING_FROM or chance(rng, 0.5):
        return _standing(solid, rng, x, y)
    if chance(rng, 0.8):
        return solid.placed(rotation(rng.uniform(-0.4, 0.4), -math.pi / 2), x, y)
    return solid.placed(rotation(rng.uniform(-0.4, 0.4), 0, rng.choice([-1, 1]) * math.pi / 2), x, y)


def _standing(solid: Solid, rng: Rng, x: float, y: float) -> Solid:
    return solid.placed(rotation(rng.uniform(-0.6, 0.6)), x, y)


def _beside(index: int, rng: Rng) -> tuple[float, float]:
    """Return a place on the table that leaves the middle free."""
    side = 1 if index % 2 else -1
    return side * rng.uniform(11, 20), rng.uniform(-5, 20)


def _centre(solid: Solid) -> Array:
    return np.asarray(solid.points().mean(axis=0))
