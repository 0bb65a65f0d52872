"""What a photo shows besides the thing itself: the table top and the room or shelf behind it."""

import math

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from lab.photos.camera import Array, Camera
from lab.photos.paint import INK, WHITE, Colour, Rng, any_colour, chance, grain, hsv, mixed, toned

TEXTURE = 448


def table_top(rng: Rng) -> Image.Image:
    """Return a square texture of a table, a floor or a cloth."""
    makers = (_wood, _tiles, _cloth, _stone, _plain, _carpet)
    return makers[int(rng.integers(0, len(makers)))](rng)


def backdrop(rng: Rng, size: tuple[int, int]) -> Image.Image:
    """Return what is behind the table, out of focus."""
    makers = (_wall, _room, _room, _shelf)
    # Painted at half the size: it is blurred anyway.
    picture = makers[int(rng.integers(0, len(makers)))](rng, (size[0] // 2, size[1] // 2))
    return picture.filter(ImageFilter.GaussianBlur(rng.uniform(1, 3.5))).resize(
        size, Image.Resampling.BICUBIC
    )


def lay_table(camera: Camera, texture: Image.Image, reach_cm: float, turn: float, onto: Image.Image) -> None:
    """Paint the plane z = 0, `reach_cm` to each side of the origin and turned by an angle, into a picture."""
    to_table = camera.table_from_picture()
    cos, sin = math.cos(turn), math.sin(turn)
    scale = texture.width / (2 * reach_cm)
    to_texture = np.array(
        [
            [cos * scale, -sin * scale, texture.width / 2],
            [sin * scale, cos * scale, texture.height / 2],
            [0, 0, 1],
        ]
    )
    matrix = to_texture @ to_table
    below = _below_horizon(matrix, onto.size)
    coefficients = tuple(float(c) for c in (matrix / matrix[2, 2]).reshape(9)[:8])
    solid = Image.new("L", texture.size, 255)
    warp = Image.Transform.PERSPECTIVE
    mask = solid.transform(onto.size, warp, coefficients, Image.Resampling.BILINEAR)
    mask = Image.fromarray(np.where(below, np.asarray(mask), 0).astype(np.uint8))
    onto.paste(texture.transform(onto.size, warp, coefficients, Image.Resampling.BILINEAR), (0, 0), mask)


def _below_horizon(matrix: Array, size: tuple[int, int]) -> Array:
    x, y = np.arange(size[0]), np.arange(size[1])[:, None]
    return np.asarray(matrix[2, 0] * x + matrix[2, 1] * y + matrix[2, 2] > 0)


def _homely(rng: Rng, saturation: tuple[float, float], value: tuple[float, float] = (0.3, 0.95)) -> Colour:
    """Draw a colour as rooms have them: mostly warm or grey, now and then any."""
    hue = rng.random() if chance(rng, 0.3) else rng.normal(0.09, 0.05)
    return hsv(float(hue), rng.uniform(*saturation), rng.uniform(*value))


def _wood(rng: Rng) -> Image.Image:
    tone = hsv(rng.uniform(0.04, 0.11), rng.uniform(0.25, 0.65), rng.uniform(0.25, 0.85))
    fibres = grain(rng, (TEXTURE, TEXTURE), (4, 90), 3)
    picture = toned(fibres, mixed(tone, INK, 0.45), mixed(tone, WHITE, 0.12))
    pen = ImageDraw.Draw(picture)
    plank = int(rng.integers(50, 180))
    for y in range(int(rng.integers(0, plank)), TEXTURE, plank):
        pen.line((0, y, TEXTURE, y), fill=mixed(tone, INK, 0.7), width=3)
        x = int(rng.integers(0, TEXTURE))
        pen.line((x, y, x, y + plank), fill=mixed(tone, INK, 0.6), width=2)
    return picture


def _tiles(rng: Rng) -> Image.Image:
    tone, step = _homely(rng, (0.0, 0.35), (0.4, 0.95)), int(rng.integers(60, 150))
    picture = toned(grain(rng, (TEXTURE, TEXTURE), (12, 12)), mixed(tone, INK, 0.25), mixed(tone, WHITE, 0.2))
    pen = ImageDraw.Draw(picture)
    joint = mixed(tone, INK if chance(rng, 0.5) else WHITE, 0.5)
    for i in range(0, TEXTURE, step):
        pen.line((i, 0, i, TEXTURE), fill=joint, width=5)
        pen.line((0, i, TEXTURE, i), fill=joint, width=5)
    return picture


def _cloth(rng: Rng) -> Image.Image:
    base = _homely(rng, (0.0, 0.55))
    thread = mixed(base, any_colour(rng), 0.6)
    picture = Image.new("RGB", (TEXTURE, TEXTURE), base)
    weave = Image.new("RGBA", picture.size)
    pen, step = ImageDraw.Draw(weave), int(rng.integers(24, 70))
    for i in range(0, TEXTURE, step):
        pen.rectangle((i, 0, i + step // 2, TEXTURE), fill=(*thread, 110))
    picture.paste(weave, (0, 0), weave)
    if chance(rng, 0.6):
        across = weave.rotate(90)
        picture.paste(across, (0, 0), across)
    return _roughened(picture, rng, 10)


def _stone(rng: Rng) -> Image.Image:
    tone = hsv(rng.random(), rng.uniform(0, 0.12), rng.uniform(0.3, 0.95))
    veins = np.abs(grain(rng, (TEXTURE, TEXTURE), (5, 5), 5) - 0.5) * 4
    return toned(np.clip(veins, 0, 1), mixed(tone, INK, 0.45), tone)


def _plain(rng: Rng) -> Image.Image:
    tone = _homely(rng, (0.0, 0.3), (0.35, 0.98))
    return toned(grain(rng, (TEXTURE, TEXTURE), (3, 3), 2), mixed(tone, INK, 0.12), mixed(tone, WHITE, 0.1))


def _carpet(rng: Rng) -> Image.Image:
    base = _homely(rng, (0.1, 0.5), (0.2, 0.7))
    picture = Image.new("RGB", (TEXTURE, TEXTURE), base)
    pen, step = ImageDraw.Draw(picture), int(rng.integers(40, 90))
    inks = [mixed(base, any_colour(rng), 0.45) for _ in range(3)]
    for row, y in enumerate(range(0, TEXTURE + step, step)):
        for x in range(0, TEXTURE + step, step):
            r = step * (0.4 if (row + x // step) % 2 else 0.25)
            pen.regular_polygon(
                (x, y, r), 4 + row % 3, rotation=45 * (x // step % 2), fill=inks[(row + x // step) % 3]
            )
    return _roughened(picture, rng, 16)


def _roughened(picture: Image.Image, rng: Rng, strength: float) -> Image.Image:
    noise = rng.normal(0, strength, (TEXTURE, TEXTURE, 1)).astype(np.float32)
    return Image.fromarray((np.asarray(picture, np.float32) + noise).clip(0, 255).astype(np.uint8))


def _wall(rng: Rng, size: tuple[int, int]) -> Image.Image:
    tone = _homely(rng, (0.0, 0.35), (0.4, 0.97))
    picture = toned(grain(rng, size, (3, 3), 4), mixed(tone, INK, 0.2), mixed(tone, WHITE, 0.15))
    if chance(rng, 0.4):
        pen, course = ImageDraw.Draw(picture), int(rng.integers(9, 17))
        for row, y in enumerate(range(0, size[1], course)):
            pen.line((0, y, size[0], y), fill=mixed(tone, WHITE, 0.4), width=1)
            for x in range(row % 2 * course, size[0], course * 2):
                pen.line((x, y, x, y + course), fill=mixed(tone, WHITE, 0.4), width=1)
    return picture


def _room(rng: Rng, size: tuple[int, int]) -> Image.Image:
    picture = _wall(rng, size)
    pen = ImageDraw.Draw(picture)
    for _ in range(int(rng.integers(4, 12))):
        x, y = rng.uniform(-0.1, 1) * size[0], rng.uniform(-0.1, 1) * size[1]
        w, h = rng.uniform(0.05, 0.4) * size[0], rng.uniform(0.05, 0.5) * size[1]
        shape = pen.ellipse if chance(rng, 0.25) else pen.rectangle
        shape((x, y, x + w, y + h), fill=any_colour(rng, (0.05, 0.6), (0.1, 1.0)))
    return picture


def _shelf(rng: Rng, size: tuple[int, int]) -> Image.Image:
    width, height = size
    board = hsv(rng.uniform(0.05, 0.12), rng.uniform(0.0, 0.5), rng.uniform(0.3, 0.9))
    picture = Image.new("RGB", size, mixed(board, INK, 0.55))
    pen = ImageDraw.Draw(picture)
    floor = int(rng.integers(36, 66))
    for y in range(floor, height + floor, floor):
        x = 0.0
        while x < width and not chance(rng, 0.06):
            w, h = rng.uniform(8, 30), rng.uniform(0.4, 0.85) * floor
            colour = any_colour(rng)
            pen.rectangle((x, y - h, x + w, y), fill=colour)
            pen.rectangle((x, y - h * 0.7, x + w, y - h * 0.4), fill=mixed(colour, WHITE, 0.6))
            x += w + rng.uniform(1, 6)
        pen.rectangle((0, y, width, y + 4), fill=board)
    return picture
