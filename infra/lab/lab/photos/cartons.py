"""The cartons that the shop's teas come in: six printed faces each."""

from dataclasses import replace

import numpy as np
from PIL import Image, ImageDraw

from lab.photos.motifs import Pen, Point, square
from lab.photos.paint import (
    INK,
    WHITE,
    Colour,
    Rng,
    barcode,
    lettering,
    mixed,
    pale,
    readable_on,
    small_print,
)
from lab.photos.solids import Solid, box
from lab.photos.teas import Tea

PIXELS_PER_CM = 30
FIELD = ((0.16, 0.77, 0.19), (0.84, 0.77, 0.19), (0.5, 0.82, 0.22), (0.26, 0.97, 0.15), (0.76, 0.97, 0.15))
"""Where the motif stands on a modern front, and how large: fractions of width, height and width."""


def carton(tea: Tea, rng: Rng) -> Solid:
    """Fold the carton of a sort, from a print run whose inks came out a little differently."""
    paper, banner, accent = (_reprinted(c, rng) for c in (tea.paper, tea.banner, tea.accent))
    run = replace(tea, paper=paper, banner=banner, accent=accent)
    front, side = (_modern_front if run.modern else _front)(run), _side(run, rng)
    return box(*tea.size, (front, side, front, _narrow(run), _top(run), _bottom(run, rng)))


def _reprinted(colour: Colour, rng: Rng) -> Colour:
    r, g, b = (int(np.clip(c + rng.normal(0, 7), 0, 255)) for c in colour)
    return r, g, b


def _sheet(width_cm: float, height_cm: float, paper: Colour) -> tuple[Image.Image, Pen, int, int]:
    width, height = round(width_cm * PIXELS_PER_CM), round(height_cm * PIXELS_PER_CM)
    sheet = Image.new("RGB", (width, height), paper)
    return sheet, ImageDraw.Draw(sheet), width, height


def _wallpaper(tea: Tea, sheet: Image.Image) -> None:
    """Repeat the motif, paler, over the whole face."""
    step = tea.spacing
    tile = Image.new("RGB", (step, step * 2), tea.paper)
    pen, tint = ImageDraw.Draw(tile), mixed(tea.paper, tea.accent, 0.7)
    for centre in ((step / 4, step / 2), (step * 3 / 4, step * 3 / 2)):
        tea.motif(pen, centre, step * 0.36, tint)
    for y in range(0, sheet.height, tile.height):
        for x in range(0, sheet.width, tile.width):
            sheet.paste(tile, (x, y))


def _front(tea: Tea) -> Image.Image:
    width_cm, _, height_cm = tea.size
    sheet, pen, width, height = _sheet(width_cm, height_cm, tea.paper)
    _wallpaper(tea, sheet)
    band = height * 0.07, height * 0.23
    pen.rectangle((0, band[0], width, band[1]), fill=tea.banner)
    on_banner = mixed(tea.paper, readable_on(tea.banner), 0.6)
    _emblem(pen, (width / 2, band[0] + 17), on_banner)
    lettering(pen, (width / 2, band[1] - 15), "CARAVAN TEA CO.", width=width - 30, size=23, ink=on_banner)
    ink = tea.banner if sum(tea.banner) < sum(tea.paper) else mixed(tea.accent, INK, 0.4)
    name_top = height * 0.74
    arch = (width * 0.14, height * 0.28, width * 0.86, name_top - height * 0.03)
    pen.rounded_rectangle(arch, radius=width * 0.2, fill=mixed(tea.paper, WHITE, 0.72), outline=ink, width=3)
    tea.motif(pen, (width / 2, (arch[1] + arch[3]) / 2), (arch[3] - arch[1]) * 0.42, tea.accent)
    plate = (width * 0.07, name_top, width * 0.93, height * 0.9)
    pen.rectangle(plate, fill=mixed(tea.paper, WHITE, 0.8), outline=ink, width=2)
    lettering(pen, (width / 2, name_top + height * 0.06), tea.name, width=width * 0.8, size=36, ink=ink)
    lettering(pen, (width / 2, height * 0.875), tea.subtitle, width=width * 0.8, size=14, ink=ink)
    ink = readable_on(tea.paper)
    lettering(pen, (width / 2, height * 0.95), "25 bags  50 g", width=width * 0.7, size=15, ink=ink)
    return sheet


def _modern_front(tea: Tea) -> Image.Image:
    width_cm, _, height_cm = tea.size
    sheet, pen, width, height = _sheet(width_cm, height_cm, tea.paper)
    _wallpaper(tea, sheet)
    ink = mixed(tea.accent, INK, 0.3)
    horizon = height * 0.47
    pen.rectangle((0, horizon, width, height), fill=mixed(tea.banner, tea.paper, 0.15))
    for i, (x, y, r) in enumerate(FIELD):
        tea.motif(pen, (width * x, height * y), width * r, mixed(tea.accent, WHITE, 0.25 * (i % 2)))
    r, centre = width * 0.27, (width / 2, height * 0.24)
    pen.ellipse(square(centre, r), fill=mixed(tea.paper, WHITE, 0.8), outline=ink, width=4)
    _emblem(pen, (centre[0], centre[1] - r * 0.35), ink)
    lettering(pen, (centre[0], centre[1] + r * 0.12), "CARAVAN", width=r * 1.6, size=28, ink=ink)
    lettering(pen, (centre[0], centre[1] + r * 0.5), "TEA CO.", width=r * 1.2, size=18, ink=ink)
    lettering(pen, (width / 2, height * 0.53), tea.name, width=width * 0.85, size=46, ink=ink)
    lettering(pen, (width / 2, height * 0.6), tea.subtitle, width=width * 0.7, size=15, ink=ink)
    return sheet


def _emblem(pen: Pen, centre: Point, ink: Colour) -> None:
    """Draw the brand's dunes under a sun."""
    x, y = centre
    pen.ellipse((x - 5, y - 13, x + 5, y - 3), fill=ink)
    pen.chord((x - 34, y - 6, x + 4, y + 24), 180, 360, fill=ink)
    pen.chord((x - 8, y - 2, x + 36, y + 20), 180, 360, fill=ink)


def _side(tea: Tea, rng: Rng) -> Image.Image:
    _, depth_cm, height_cm = tea.size
    sheet, pen, width, height = _sheet(depth_cm, height_cm, tea.paper)
    on_banner = mixed(tea.paper, readable_on(tea.banner), 0.6)
    pen.rectangle((0, height * 0.07, width, height * 0.23), fill=tea.banner)
    lettering(pen, (width / 2, height * 0.15), tea.name, width=width - 20, size=24, ink=on_banner)
    ink = mixed(tea.paper, readable_on(tea.paper), 0.75)
    small_print(pen, (14, int(height * 0.28), width - 14, int(height * 0.52)), rng, ink)
    tea.motif(pen, (width / 2, height * 0.66), height * 0.11, tea.accent)
    barcode(pen, (int(width * 0.2), int(height * 0.81), int(width * 0.8), int(height * 0.95)), rng)
    return sheet


def _narrow(tea: Tea) -> Image.Image:
    _, depth_cm, height_cm = tea.size
    sheet, pen, width, height = _sheet(depth_cm, height_cm, tea.paper)
    _wallpaper(tea, sheet)
    pen.rectangle((0, height * 0.07, width, height * 0.23), fill=tea.banner)
    _emblem(pen, (width / 2, height * 0.14), mixed(tea.paper, readable_on(tea.banner), 0.6))
    paper = mixed(tea.paper, WHITE, 0.8)
    upright = Image.new("RGB", (round(height * 0.62), 56), paper)
    lettering(
        ImageDraw.Draw(upright),
        (upright.width / 2, 28),
        tea.name,
        width=upright.width - 20,
        size=36,
        ink=mixed(tea.accent, INK, 0.4),
    )
    sheet.paste(upright.rotate(90, expand=True), (width // 2 - 28, round(height * 0.3)))
    return sheet


def _top(tea: Tea) -> Image.Image:
    width_cm, depth_cm, _ = tea.size
    sheet, pen, width, height = _sheet(width_cm, depth_cm, tea.banner)
    ink = mixed(tea.paper, readable_on(tea.banner), 0.6)
    _emblem(pen, (width * 0.5, height * 0.28), ink)
    lettering(pen, (width * 0.5, height * 0.55), "CARAVAN TEA CO.", width=width - 50, size=22, ink=ink)
    lettering(pen, (width * 0.5, height * 0.76), tea.name, width=width - 60, size=28, ink=ink)
    for x in (width * 0.12, width * 0.88):
        tea.motif(pen, (x, height * 0.3), height * 0.14, tea.accent if pale(tea.banner) else tea.paper)
    pen.rectangle((8, 8, width - 9, height - 9), outline=ink, width=2)
    return sheet


def _bottom(tea: Tea, rng: Rng) -> Image.Image:
    width_cm, depth_cm, _ = tea.size
    sheet, pen, width, height = _sheet(width_cm, depth_cm, tea.paper)
    _wallpaper(tea, sheet)
    pen.rectangle((width * 0.1, height * 0.15, width * 0.9, height * 0.85), fill=tea.paper)
    lettering(
        pen,
        (width / 2, height * 0.28),
        f"best before 0{rng.integers(1, 9)} 28",
        width=width * 0.7,
        size=18,
        ink=readable_on(tea.paper),
    )
    barcode(pen, (int(width * 0.25), int(height * 0.45), int(width * 0.75), int(height * 0.78)), rng)
    return sheet
