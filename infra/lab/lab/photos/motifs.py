"""Figures that packages carry: each is drawn around a centre, about `radius` pixels large, in one colour."""

import math
from collections.abc import Callable

import numpy as np
from PIL import ImageDraw

from lab.photos.paint import INK, WHITE, Colour, around, mixed, petal

Pen = ImageDraw.ImageDraw
Point = tuple[float, float]
Motif = Callable[[Pen, Point, float, Colour], None]


def cornflower(pen: Pen, centre: Point, radius: float, colour: Colour) -> None:
    """Draw a flower of narrow petals around a dark eye."""
    for i in range(11):
        turn = i * 2 * math.pi / 11
        petal(
            pen,
            around(centre, radius * 0.16, turn),
            radius * 0.86,
            radius * 0.3,
            angle=turn,
            fill=mixed(colour, WHITE, i % 2 * 0.3),
        )
    pen.ellipse(square(centre, radius * 0.22), fill=mixed(colour, INK, 0.6))


def slice_of_lemon(pen: Pen, centre: Point, radius: float, colour: Colour) -> None:
    """Draw a slice of lemon: rind, pith and eight segments."""
    for share, fill in ((1.0, colour), (0.86, WHITE)):
        pen.ellipse(square(centre, radius * share), fill=fill)
    for i in range(8):
        juice = mixed(colour, WHITE, 0.25)
        pen.pieslice(square(centre, radius * 0.78), i * 45 + 5, i * 45 + 40, fill=juice)


def sprig(pen: Pen, centre: Point, radius: float, colour: Colour) -> None:
    """Draw a sprig: a stalk with a bud and leaves in pairs."""
    foot = centre[0] - radius * 0.35, centre[1] + radius
    head = centre[0] + radius * 0.25, centre[1] - radius * 0.5
    pen.line((*foot, *head), fill=mixed(colour, INK, 0.3), width=max(int(radius * 0.07), 1))
    for i, share in enumerate((0.2, 0.45, 0.7)):
        root = (foot[0] + (head[0] - foot[0]) * share, foot[1] + (head[1] - foot[1]) * share)
        length = radius * (0.95 - 0.2 * i)
        petal(pen, root, length, length * 0.42, angle=-0.25 - 0.15 * i, fill=mixed(colour, WHITE, 0.15))
        petal(pen, root, length, length * 0.42, angle=-2.7 + 0.1 * i, fill=mixed(colour, INK, 0.12))
    petal(pen, head, radius * 0.6, radius * 0.26, angle=-1.2, fill=mixed(colour, WHITE, 0.3))


def spiral(pen: Pen, centre: Point, radius: float, colour: Colour) -> None:
    """Draw a wheel of rolled licorice."""
    turns = np.linspace(0, 7 * math.pi, 90)
    path = [around(centre, radius * float(t) / (7 * math.pi), float(t)) for t in turns]
    pen.line(path, fill=colour, width=max(int(radius * 0.15), 2), joint="curve")


def berries(pen: Pen, centre: Point, radius: float, colour: Colour) -> None:
    """Draw five berries in a cluster."""
    for i in range(5):
        berry = around(centre, radius * 0.5, i * 2 * math.pi / 5 - 0.3)
        pen.ellipse(square(berry, radius * 0.36), fill=mixed(colour, (WHITE, INK)[i % 2], 0.12))


def star(pen: Pen, centre: Point, radius: float, colour: Colour) -> None:
    """Draw a star of eight rays."""
    rays = [around(centre, radius * (0.36 if i % 2 else 1.0), i * math.pi / 8) for i in range(16)]
    pen.polygon(rays, fill=colour)


def dot(pen: Pen, centre: Point, radius: float, colour: Colour) -> None:
    """Draw a disc with a darker rim."""
    fill, rim = mixed(colour, WHITE, 0.3), mixed(colour, INK, 0.4)
    pen.ellipse(square(centre, radius), fill=fill, outline=rim, width=4)


def pentagram(pen: Pen, centre: Point, radius: float, colour: Colour) -> None:
    """Draw a star of five points."""
    points = [around(centre, radius * (1 if i % 2 else 0.45), i * math.pi / 5) for i in range(10)]
    pen.polygon(points, fill=mixed(colour, WHITE, 0.3))


def bloom(pen: Pen, centre: Point, radius: float, colour: Colour) -> None:
    """Draw a flower of six broad petals."""
    for i in range(6):
        fill = mixed(colour, (INK, WHITE)[i % 2], 0.35)
        petal(pen, centre, radius, radius * 0.6, angle=i * math.pi / 3, fill=fill)


def bowl(pen: Pen, centre: Point, radius: float, colour: Colour) -> None:
    """Draw a steaming bowl."""
    x, y = centre
    dark = mixed(colour, INK, 0.4)
    pen.chord(square(centre, radius), 0, 180, fill=mixed(colour, WHITE, 0.3), outline=dark, width=3)
    steam = (x - radius / 2, y - radius * 1.2, x + radius / 2, y - radius * 0.1)
    pen.arc(steam, 100, 300, fill=dark, width=4)


def beans(pen: Pen, centre: Point, radius: float, colour: Colour) -> None:
    """Draw a heap of beans."""
    golden = math.pi * (3 - math.sqrt(5))
    for i in range(14):
        x, y = around(centre, radius * math.sqrt(i / 14), i * golden)
        fill = mixed(colour, (INK, WHITE)[i % 2], 0.35)
        pen.ellipse((x - radius * 0.2, y - radius * 0.14, x + radius * 0.2, y + radius * 0.14), fill=fill)


def peaks(pen: Pen, centre: Point, radius: float, colour: Colour) -> None:
    """Draw two mountains."""
    x, y = centre
    foot = y + radius
    left = [(x - radius, foot), (x - radius * 0.2, y - radius), (x + radius * 0.4, foot)]
    right = [(x - radius * 0.2, foot), (x + radius * 0.5, y - radius * 0.5), (x + radius, foot)]
    pen.polygon(left, fill=mixed(colour, INK, 0.4))
    pen.polygon(right, fill=mixed(colour, WHITE, 0.3))


def square(centre: Point, radius: float) -> tuple[float, float, float, float]:
    """Return the square (left, top, right, bottom) around a circle."""
    return centre[0] - radius, centre[1] - radius, centre[0] + radius, centre[1] + radius
