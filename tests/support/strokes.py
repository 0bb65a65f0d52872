"""Digits as people write them: pen strokes of several hands, each time a little different."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
"""[N, 2]: x and y, y downwards."""

HANDS: dict[str, tuple[tuple[str, ...], ...]] = {
    "0": (
        ("52,0 25,6 6,32 4,60 18,90 46,100 76,92 94,64 92,30 76,7 50,0",),
        ("60,4 30,2 8,30 6,70 30,98 62,96 88,70 90,30 66,5 44,10",),
        ("48,0 80,10 96,45 86,84 50,100 16,86 4,48 18,12 50,1",),
    ),
    "1": (
        ("50,0 50,34 50,66 50,100",),
        ("64,0 56,34 48,66 40,100",),
        ("22,28 40,15 56,0 | 56,0 55,50 54,100",),
        ("24,26 54,0 | 54,0 54,50 54,100", "20,100 50,99 86,100"),
    ),
    "2": (
        ("8,24 22,6 50,0 78,10 84,32 66,58 38,80 6,98 | 6,98 40,97 92,96",),
        ("10,20 34,2 68,4 84,26 72,50 44,76 12,94 24,82 44,86 66,98 92,92",),
        ("14,14 50,0 82,14 80,40 48,70 10,100 | 10,100 88,100",),
    ),
    "3": (
        ("12,12 40,0 72,8 78,28 60,44 36,48 | 36,48 70,54 86,74 70,94 38,100 8,88",),
        ("10,6 50,2 82,14 70,38 42,46 | 42,46 78,56 84,82 52,100 10,92",),
        ("12,2 80,2 | 80,2 44,40 | 44,40 76,50 86,74 66,96 34,100 8,86",),
    ),
    "4": (
        ("40,0 26,32 8,62 | 8,62 50,62 94,60", "68,22 66,60 64,100"),
        ("14,2 12,28 16,50 | 16,50 50,52 86,48", "80,0 78,50 74,100"),
        ("66,0 36,34 6,68 | 6,68 50,68 96,68", "66,0 66,50 66,100"),
    ),
    "5": (
        ("80,2 22,4 | 22,4 18,42 | 18,42 50,36 82,52 84,78 58,98 12,92",),
        ("24,4 20,44 | 20,44 54,38 84,56 78,86 46,100 10,90", "24,4 56,3 88,2"),
        ("84,6 30,4 | 30,4 20,46 54,44 80,62 72,88 40,100 8,94",),
    ),
    "6": (
        ("68,2 38,22 16,54 14,82 40,100 72,94 84,74 66,56 36,60 16,80",),
        ("56,0 30,30 12,64 22,94 56,100 82,82 74,60 44,56 16,72",),
        ("80,6 44,8 18,40 12,76 36,100 72,96 86,74 66,54 34,58 14,76",),
    ),
    "7": (
        ("8,4 50,4 90,2 | 90,2 66,40 44,100",),
        ("8,6 48,5 88,4 | 88,4 60,50 40,100", "26,52 56,50 82,50"),
        ("10,12 12,2 | 12,2 88,4 | 88,4 62,36 50,68 46,100",),
    ),
    "8": (
        ("74,14 44,0 18,18 34,40 64,56 82,78 50,100 18,84 30,60 60,42 80,22 70,8",),
        ("50,46 24,32 24,10 50,0 76,10 76,32 50,46 22,60 18,84 50,100 82,84 78,60 50,46",),
        ("80,16 50,0 22,16 36,40 68,58 80,84 48,100 20,82 38,58 66,38 82,14",),
    ),
    "9": (
        ("80,24 60,2 28,4 12,26 28,48 60,46 80,22 | 80,22 78,60 70,100",),
        ("78,20 50,0 20,14 18,38 46,50 74,34 80,16 82,54 70,90 40,100 16,92",),
        ("82,10 44,0 14,20 24,46 58,44 82,12 | 82,12 76,60 60,100",),
    ),
}
"""Of each digit several shapes: strokes of points in hundredths, smooth from one corner (`|`) to the next."""


def drawn(digit: str, hand: int, seed: int) -> list[Points]:
    """Return the strokes of a digit in a unit square, as somebody with an unsteady hand draws it."""
    rng = np.random.default_rng([int(digit), hand, seed])
    smooth = [np.concatenate([_smooth(run) for run in stroke.split("|")]) for stroke in HANDS[digit][hand]]
    slant, turn = rng.normal(0.08, 0.1), rng.normal(0, 0.05)
    width, height = rng.uniform(0.42, 0.72), rng.uniform(0.65, 0.9)
    middle = 0.5 + rng.uniform(-0.05, 0.05, 2)
    shape = np.array([[width, -slant * height], [0, height]])
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return [
        (stroke / 100 - 0.5 + _wobble(rng, len(stroke))) @ shape.T @ rotation.T + middle for stroke in smooth
    ]


def _smooth(run: str, steps: int = 6) -> Points:
    """Pass a Catmull-Rom curve through points."""
    knots = np.array([[float(value) for value in pair.split(",")] for pair in run.split()])
    padded = np.concatenate([knots[:1], knots, knots[-1:]])
    t = np.arange(steps)[:, None] / steps
    curves = [
        0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * (b - c) + d - a) * t**3)
        for a, b, c, d in zip(padded, padded[1:], padded[2:], padded[3:], strict=False)
    ]
    return np.concatenate([*curves, knots[-1:]])


def _wobble(rng: np.random.Generator, count: int) -> Points:
    """Return slow deviations of about two hundredths of the digit's size."""
    phase = np.linspace(0, 1, count)[:, None]
    waves = [rng.normal(0, 0.015, 2) * np.sin(np.pi * (k * phase + rng.uniform(0, 2))) for k in (1, 2, 4)]
    return np.asarray(np.sum(waves, axis=0) + rng.normal(0, 0.003, (count, 2)))
