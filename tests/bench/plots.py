"""Pictures in a light and a dark form, for `<picture>` and `prefers-color-scheme`.

`python tests/bench/plots.py` draws `docs/performance-light.png` and `-dark.png` anew from `performance.json`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator


@dataclass(frozen=True)
class Theme:
    """The colours of a form: of the ground, of words, of lines, of what stands back and of what is drawn."""

    ground: str
    words: str
    faint: str
    muted: str
    first: str
    second: str
    third: str


THEMES = {
    "light": Theme("#ffffff", "#1f2328", "#d8dee4", "#afb8c1", "#0969da", "#bc4c00", "#8250df"),
    "dark": Theme("#0d1117", "#e6edf3", "#30363d", "#57606a", "#58a6ff", "#f0883e", "#bc8cff"),
}
INCHES = 9.0
DPI = 120
RANGE = (1 / 8, 4.0)
_BOUND = re.compile(r"([≤≥]) ([\d.,]+)( times before)?")


def save(stem: Path, height: float, draw: Callable[[Axes, Theme], None]) -> None:
    """Write `<stem>-light.png` and `<stem>-dark.png`, of a height in inches."""
    for name, theme in THEMES.items():
        style: dict[Any, Any] = {
            "text.color": theme.words,
            "axes.edgecolor": theme.faint,
            "xtick.color": theme.words,
            "ytick.color": theme.words,
            "grid.color": theme.faint,
            "font.size": 9,
        }
        with mpl.rc_context(style):
            picture = Picture(figsize=(INCHES, height), dpi=DPI, facecolor=theme.ground, layout="constrained")
            axes = picture.add_subplot(facecolor=theme.ground)
            axes.tick_params(length=0)
            axes.spines[["left", "right", "top", "bottom"]].set_visible(False)
            draw(axes, theme)
            picture.savefig(stem.with_name(f"{stem.name}-{name}.png"), metadata={"Software": None})


def legend(axes: Axes, title: str, order: Sequence[str]) -> None:
    """Say above what the marks are that have labels, each once."""
    handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    names = [name for name in order if name in handles]
    style: dict[str, Any] = {"loc": "outside upper center", "ncols": len(names), "frameon": False}
    axes.figure.legend([handles[name] for name in names], names, title=title, **style)


def ratios(medians: Mapping[str, Mapping[str, float]], limits: Mapping[str, str], stem: Path) -> None:
    """Draw each figure against the build before, its limit and its peers.

    Args:
        medians: of each figure, what `now`, `before` and each peer have.
        limits: of each figure, as `≤ 4`, `≥ 3 times before` or in other words.
        stem: of the pictures' names.

    """
    rows = {
        name: found
        for name, given in medians.items()
        if "now" in given and (found := _ratios(name, given, limits.get(name, "")))
    }

    def draw(axes: Axes, theme: Theme) -> None:
        marks = {"build before": ("o", theme.first), "limit": ("D", theme.second), "peer": ("^", theme.third)}
        for place, found in enumerate(rows.values()):
            peers = sorted(ratio for whose, ratio in found if whose not in marks)
            for whose, ratio in found:
                kind = whose if whose in marks else "peer"
                mark, colour = marks[kind]
                x = min(max(ratio, RANGE[0]), RANGE[1])
                axes.plot([1, x], [place, place], color=theme.faint, zorder=1)
                axes.plot(x, place, mark, color=colour, markersize=6, label=kind, zorder=2)
                if kind == "peer":
                    axes.annotate(whose, (x, place), zorder=1.5, **_near(ratio, peers, theme))
        axes.axvline(1, color=theme.words, linewidth=1)
        axes.set_xscale("log", base=2)
        axes.set_xlim(RANGE[0] / 1.1, RANGE[1] * 1.7)
        axes.xaxis.set_major_locator(FixedLocator([1 / 8, 1 / 4, 1 / 2, 1, 2, 4]))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}" if x >= 1 else f"1/{1 / x:g}"))
        axes.tick_params(top=True, labeltop=True)
        axes.grid(axis="x", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.set_yticks(range(len(rows)), list(rows))
        axes.set_ylim(len(rows) - 0.5, -0.5)
        legend(axes, "What this build takes, as a share of others: left of the line is better", list(marks))

    save(stem, 1.1 + 0.235 * len(rows), draw)


def _near(ratio: float, peers: Sequence[float], theme: Theme) -> dict[str, Any]:
    """Say where a peer's name stands: beneath its mark, several away from one another, and above between."""
    between = peers[0] < ratio < peers[-1]
    side = "center" if between or peers[0] == peers[-1] else "right" if ratio == peers[0] else "left"
    return {
        "xytext": ({"center": 0, "right": -1, "left": 1}[side], 9 if between else -9),
        "textcoords": "offset points",
        "ha": side,
        "va": "center",
        "fontsize": 7,
        "bbox": {"facecolor": theme.ground, "edgecolor": "none", "pad": 0.5},
    }


def _ratios(name: str, given: Mapping[str, float], limit: str) -> list[tuple[str, float]]:
    """Return how much is taken of what others take; where more is better, the other way round."""
    now = given["now"]
    more = limit.startswith("≥") or name.endswith("a second")
    others = {"build before" if whose == "before" else whose: value for whose, value in given.items()}
    if found := _BOUND.fullmatch(limit):
        bound = float(found[2].replace(",", ""))
        if not found[3]:
            others["limit"] = bound
        elif "before" in given:
            others["limit"] = bound * given["before"]
    del others["now"]
    with suppress(ZeroDivisionError):
        return [(whose, value / now if more else now / value) for whose, value in others.items()]
    return []


if __name__ == "__main__":
    from bench.performance import FIGURES, LIMITS, PLOTS

    ratios(json.loads(FIGURES.read_text()), LIMITS, PLOTS)
