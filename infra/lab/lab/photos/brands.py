"""Made-up brands: a name, two colours, a motif and a layout, printed on whatever they sell."""

from PIL import Image, ImageDraw

from lab.photos.motifs import Pen, beans, bloom, bowl, dot, peaks, pentagram, square
from lab.photos.paint import (
    WHITE,
    Rng,
    any_colour,
    barcode,
    chance,
    grain,
    hsv,
    lettering,
    mixed,
    readable_on,
    small_print,
    toned,
)

PIXELS_PER_CM = 26
ROOM_FOR_PRINT = 70
"""Pixels from which on a face carries small print."""
MOTIFS = (dot, pentagram, bloom, bowl, beans, peaks)
SYLLABLES = (
    "BA",
    "CO",
    "DEL",
    "FI",
    "GRA",
    "HO",
    "KA",
    "LU",
    "MI",
    "NO",
    "PA",
    "RI",
    "SOL",
    "TA",
    "VER",
    "ZU",
)
GOODS = (
    "COFFEE",
    "COCOA",
    "RICE",
    "OATS",
    "SALT",
    "BISCUITS",
    "SOUP",
    "PASTA",
    "SUGAR",
    "CHAI",
    "SOAP",
    "HONEY",
)


class Brand:
    """One design; every face printed of it draws its layout from the same generator."""

    def __init__(self, rng: Rng) -> None:
        self._rng = rng
        papery = hsv(rng.uniform(0.08, 0.3), rng.uniform(0.05, 0.35), rng.uniform(0.75, 0.95))
        self._base = papery if chance(rng, 0.35) else any_colour(rng)
        self._second = any_colour(rng)
        self._ink = readable_on(self._base)
        self._name = "".join(rng.choice(SYLLABLES, size=int(rng.integers(2, 4))))
        self._goods = str(rng.choice(GOODS))
        self._motif = MOTIFS[int(rng.integers(0, len(MOTIFS)))]

    def face(self, width_cm: float, height_cm: float) -> Image.Image:
        """Print the front: a band with the name, what is inside, and the motif."""
        sheet, pen, w, h = self._sheet(width_cm, height_cm)
        if chance(self._rng, 0.6):
            self._pattern(pen, w, h)
        top, tall = h * self._rng.uniform(0.1, 0.75), h * self._rng.uniform(0.15, 0.3)
        self._band(pen, w, top, tall)
        short = min(h, w)
        on_band = readable_on(self._second)
        lettering(
            pen, (w / 2, top + tall / 2), self._name, width=w * 0.8, size=int(short * 0.22), ink=on_band
        )
        high = top < h * 0.45
        goods = (w / 2, h * (0.85 if high else 0.12))
        lettering(pen, goods, self._goods, width=w * 0.85, size=int(short * 0.14), ink=self._ink)
        middle = top + tall + (h - top - tall) * 0.4 if high else top * 0.55
        centre = (w * self._rng.uniform(0.35, 0.65), middle)
        self._motif(pen, centre, short * self._rng.uniform(0.12, 0.24), self._second)
        return sheet

    def cover(self, width_cm: float, height_cm: float) -> Image.Image:
        """Print the cover of a book."""
        sheet, pen, w, h = self._sheet(width_cm, height_cm)
        if chance(self._rng, 0.5):
            sheet.paste(toned(grain(self._rng, (w, h), (4, 5)), self._base, self._second))
        self._motif(pen, (w * 0.5, h * 0.6), w * self._rng.uniform(0.15, 0.35), self._second)
        lettering(pen, (w / 2, h * 0.18), self._name, width=w * 0.85, size=int(w * 0.2), ink=self._ink)
        lettering(
            pen, (w / 2, h * 0.9), self._goods.title(), width=w * 0.6, size=int(w * 0.09), ink=self._ink
        )
        return sheet

    def edge(self, width_cm: float, height_cm: float) -> Image.Image:
        """Print a side: the name and, where there is room, small print and a barcode."""
        sheet, pen, w, h = self._sheet(width_cm, height_cm)
        pen.rectangle((0, 0, w, h * 0.2), fill=self._second)
        on_band = readable_on(self._second)
        lettering(pen, (w / 2, h * 0.1), self._name, width=w * 0.8, size=int(h * 0.12), ink=on_band)
        if min(w, h) > ROOM_FOR_PRINT:
            faint = mixed(self._base, self._ink, 0.7)
            small_print(pen, (10, int(h * 0.28), w - 10, int(h * 0.68)), self._rng, faint)
            barcode(pen, (int(w * 0.2), int(h * 0.74), int(w * 0.8), int(h * 0.94)), self._rng)
        return sheet

    def wrap(self, round_cm: float, height_cm: float) -> Image.Image:
        """Print a label that goes once around a tin or a bottle, with its seam in the middle of the front."""
        face = self.face(round_cm / 2, height_cm)
        half = face.width // 2
        sheet = Image.new("RGB", (face.width * 2, face.height), self._base)
        sheet.paste(face.crop((half, 0, face.width, face.height)), (0, 0))
        sheet.paste(face.crop((0, 0, half, face.height)), (sheet.width - half, 0))
        if face.height > ROOM_FOR_PRINT:
            area = (face.width - 40, 20, face.width + 40, face.height - 20)
            small_print(ImageDraw.Draw(sheet), area, self._rng, mixed(self._base, self._ink, 0.7))
        return sheet

    def _sheet(self, width_cm: float, height_cm: float) -> tuple[Image.Image, Pen, int, int]:
        width, height = (max(round(cm * PIXELS_PER_CM), 12) for cm in (width_cm, height_cm))
        sheet = Image.new("RGB", (width, height), self._base)
        return sheet, ImageDraw.Draw(sheet), width, height

    def _band(self, pen: Pen, width: int, top: float, tall: float) -> None:
        """Draw what the name stands on: a bar, an oval or a ribbon."""
        bar = [(0.0, top), (width, top), (width, top + tall), (0.0, top + tall)]
        ribbon = [(0.0, top), (width, top - tall * 0.5), (width, top + tall), (0.0, top + tall * 1.4)]
        outline = (bar, ribbon, None)[int(self._rng.integers(0, 3))]
        if outline is not None:
            pen.polygon(outline, fill=self._second)
            return
        oval = (width * 0.08, top - tall * 0.4, width * 0.92, top + tall * 1.4)
        pen.ellipse(oval, fill=self._second, outline=WHITE, width=3)

    def _pattern(self, pen: Pen, width: int, height: int) -> None:
        """Cover a face with stripes, slanted or upright, or with dots or triangles."""
        rng = self._rng
        tint, step = mixed(self._base, self._second, rng.uniform(0.2, 0.7)), int(rng.integers(14, 50))
        if chance(rng, 0.5):
            slant = height if chance(rng, 0.5) else 0
            for x in range(-height, width, step):
                pen.line((x, 0, x + slant, height), fill=tint, width=step // 3)
            return
        corners = int(rng.integers(2, 5))
        for y in range(0, height, step):
            for x in range(0, width, step):
                if corners > 2:  # noqa: PLR2004 - two stand for a circle
                    pen.regular_polygon((x, y, step * 0.3), corners, fill=tint)
                else:
                    pen.ellipse(square((x, y), step * 0.3), fill=tint)
