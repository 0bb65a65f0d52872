"""Measure what is learnt, by a build before and by this one, and write docs/learning.md.

Run it with `make study DATA=folder`, which takes a quarter of an hour. The folder holds `teas.zip` and
`bali-tea.zip`, as the feeder takes them. Nothing is downloaded, and the same photos give the same figures.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import plots
from matplotlib.axes import Axes
from rich.console import Console

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "learning.md"
PLOT = ROOT / "docs" / "learning"
BEFORE = "58ec99d"
"""The build that this one is held against."""

console = Console(soft_wrap=True)


@dataclass(frozen=True)
class Goal:
    """What a figure should be, and whether more of it is better."""

    least: float | None = None
    most: float | None = None

    def __str__(self) -> str:
        return f"≥ {self.least:g}" if self.least is not None else f"≤ {self.most:g}"


GOALS = {
    "new place 0, right and sure": Goal(least=0.85),
    "new place 1, right and sure": Goal(least=0.85),
    "new place 0, 5 photos of it learnt, right": Goal(least=0.95),
    "new place 1, 5 photos of it learnt, right": Goal(least=0.95),
    "turned, right": Goal(least=0.97),
    "blurred, right": Goal(least=0.95),
    "JPEG 15, right": Goal(least=0.95),
    "middle half, right": Goal(least=0.75),
    "tea-earl-grey left out, sold as another": Goal(most=0.30),
    "tea-lemon left out, sold as another": Goal(most=0.25),
    "tea-green left out, sold as another": Goal(most=0.02),
    "tea-earl-grey left out, AUROC": Goal(least=0.95),
    "tea-lemon left out, AUROC": Goal(least=0.95),
    "tea-green left out, AUROC": Goal(least=0.95),
    "knowns taken for other, by group": Goal(most=0.03),
    "calibration error by group": Goal(most=0.05),
    "calibration error after damage": Goal(most=0.05),
}


def main() -> None:
    """Measure both builds and write the document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with teas.zip and bali-tea.zip")
    parser.add_argument("--before", default=BEFORE, help="commit of the other build (%(default)s)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        console.print(f"unpacking the build {arguments.before}")
        before = _figures(_checked_out(arguments.before, Path(folder)), arguments.data, arguments.before)
    now = _figures(ROOT, arguments.data, "this build")
    _write("figures", _table(before, now))
    _plot(before, now)
    _write("detectors", _detectors(_run("study.detectors", ROOT, arguments.data)))


def _write(part: str, table: str) -> None:
    """Print a table, and put it between its markers in the document."""
    begin, end = f"<!-- {part} -->\n", f"<!-- /{part} -->"
    head, _, rest = DOCUMENT.read_text().partition(begin)
    DOCUMENT.write_text(head + begin + table + end + rest.partition(end)[2])
    console.print(table, markup=False)


def _checked_out(commit: str, folder: Path) -> Path:
    command = ["git", "-C", str(ROOT), "archive", commit, "infra/training", "services/common"]
    archive = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as packed:
        packed.extractall(folder, filter="data")
    return folder


def _figures(root: Path, data: Path, name: str) -> Mapping[str, float]:
    console.print(f"measuring {name}: some minutes")
    figures: Mapping[str, float] = _run("study.learning", root, data)
    return figures


def _run(module: str, root: Path, data: Path) -> Any:
    """Return the JSON that a module prints where Python finds a build."""
    paths = [root / "infra" / "training", root / "services" / "common", Path(__file__).parents[1]]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths)), "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-m", module, str(data.absolute())]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment)
    return json.loads(done.stdout)


def _table(before: Mapping[str, float], now: Mapping[str, float]) -> str:
    rows = [
        f"| {name} | {before[name]:.3f} | {figure:.3f} | {GOALS.get(name, '')} |\n"
        for name, figure in now.items()
    ]
    return "".join(["| figure | before | now | goal |\n", "|---|---|---|---|\n", *rows])


def _detectors(figures: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """Return a row for each detector: its AUROC and the share it sells, of each product that was left out."""
    products = list(figures)
    rows = []
    for name in figures[products[0]]:
        cells = (f"{own[name]['auroc']:.3f}, {own[name]['sold']:.2f}" for own in figures.values())
        rows.append(f"| {name} | {' | '.join(cells)} |\n")
    return "".join([f"| detector | {' | '.join(products)} |\n", "|---" * (1 + len(products)), "|\n", *rows])


def _plot(before: Mapping[str, float], now: Mapping[str, float]) -> None:
    """Draw each figure as two bars, one above the other."""

    def draw(axes: Axes, theme: plots.Theme) -> None:
        for figures, words, offset, colour in (
            (before, "before", -0.2, theme.muted),
            (now, "now", 0.2, theme.first),
        ):
            places = [place + offset for place in range(len(now))]
            values = [max(figures[name], 0.003) for name in now]
            axes.barh(places, values, 0.34, color=colour, label=words)
        axes.set_yticks(range(len(now)), list(now))
        axes.set_ylim(len(now) - 0.5, -0.5)
        axes.set_xlim(0, 1)
        axes.grid(axis="x", linewidth=0.6)
        axes.set_axisbelow(True)
        plots.legend(axes, "Shares of photos, and errors", ["before", "now"])

    plots.save(PLOT, 1 + 0.3 * len(now), draw)


if __name__ == "__main__":
    main()
