"""The shop's own teas: one brand, four sorts that differ in print, motif and tint.

They share emblem, banner and lettering, and other sorts of the same brand are about, so that neither the
shape nor the average colour of a photo tells them apart.
"""

from dataclasses import dataclass

from lab.photos.motifs import Motif, berries, cornflower, slice_of_lemon, spiral, sprig, star
from lab.photos.paint import Colour, Rng, any_colour, chance, pale


@dataclass(frozen=True, slots=True)
class Tea:
    """What the printer knows of one sort; `size` is width, depth and height in cm."""

    name: str
    subtitle: str
    size: tuple[float, float, float]
    paper: Colour
    banner: Colour
    accent: Colour
    motif: Motif
    spacing: int
    """Pixels between the motifs of the wallpaper."""
    modern: bool = False
    """Printed after the brand changed its design: a seal over a field of the motif, and no frame."""


TEAS = {
    "tea-earl-grey": Tea(
        "EARL GREY",
        "black tea with bergamot",
        (8, 6, 12),
        (222, 214, 182),
        (40, 50, 86),
        (66, 90, 172),
        cornflower,
        40,
    ),
    "tea-lemon": Tea(
        "LEMON",
        "black tea with citrus",
        (8, 6, 12),
        (232, 210, 118),
        (52, 70, 48),
        (230, 176, 28),
        slice_of_lemon,
        80,
    ),
    "tea-green": Tea(
        "GREEN TEA",
        "young leaves, steamed",
        (10, 4, 12),
        (112, 154, 92),
        (238, 230, 204),
        (40, 100, 54),
        sprig,
        60,
        modern=True,
    ),
    "tea-licorice": Tea(
        "LICORICE",
        "sweet root and anise",
        (7, 7, 10),
        (106, 62, 84),
        (232, 214, 190),
        (52, 26, 44),
        spiral,
        50,
        modern=True,
    ),
}
"""The shop's sorts by class."""

_OTHER_SORTS = ("PEPPERMINT", "ROOIBOS", "ASSAM", "CAMOMILE", "ROSEHIP", "DARJEELING", "FENNEL", "GINGER")


def another_sort(rng: Rng) -> Tea:
    """Invent a sort that the same brand might sell elsewhere: what looks like ours is not always ours."""
    paper = any_colour(rng, (0.1, 0.7), (0.35, 0.95))
    dark, light = any_colour(rng, (0.2, 0.7), (0.15, 0.4)), any_colour(rng, (0.05, 0.25), (0.8, 0.98))
    motif = (berries, star)[int(rng.integers(0, 2))]
    size = (rng.uniform(6.5, 11), rng.uniform(4, 7), rng.uniform(8, 13))
    name = str(rng.choice(_OTHER_SORTS))
    return Tea(
        name,
        "a tea of its own",
        size,
        paper,
        dark if pale(paper) else light,
        any_colour(rng),
        motif,
        int(rng.integers(40, 70)),
        modern=chance(rng, 0.6),
    )
