"""Measure each part beside its limits, the build before and its peers: `make bench [BEFORE=…] [ONLY=…]`.

Runs the benches that print lines of JSON, those of two builds in turns, keeps what they said in
`docs/performance.json`, and writes the table of it into `docs/performance.md`. BEFORE is a checkout of
another build that has its `.venv`; ONLY names benches that are run, and of the others what was measured
before stays. Machines differ and are noisy: read ratios, and CPU rather than the clock.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bench import plots
from rich.console import Console

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
DOCUMENT, FIGURES = ROOT / "docs" / "performance.md", ROOT / "docs" / "performance.json"
PLOTS = ROOT / "docs" / "performance"
BEGIN, END = "<!-- figures -->", "<!-- /figures -->"
NOW, BEFORE = "now", "before"
PACKAGES = os.pathsep.join(map(str, (ROOT / "tests", ROOT / "infra" / "lab")))
"""What the scripts import beside a build's own: a build before may have no `lab`, which draws the photos."""

console = Console(soft_wrap=True)

Line = Mapping[str, Any]
Figures = dict[tuple[str, str], list[float]]
"""What was measured, by a figure's name and whose it is: NOW, BEFORE, or a peer's name."""


@dataclass(frozen=True)
class Figure:
    """A row: `key` of the lines that have all that `where` says; None stands for any value."""

    name: str
    key: str
    limit: str = ""
    where: tuple[tuple[str, Any], ...] = ()

    def of(self, line: Line) -> float | None:
        """Return the figure, if a line has it."""
        fits = all(key in line and value in (None, line[key]) for key, value in self.where)
        return float(line[self.key]) if fits and self.key in line else None


@dataclass(frozen=True)
class Bench:
    """A script and what of its lines is shown.

    `builds` says how another build comes in: it runs the script itself, `in turns`; or the script is told of
    its checkout, and a line says whom it is `of`; or not at all. A peer's line says `by` whom it is.
    """

    script: str
    figures: tuple[Figure, ...]
    arguments: tuple[str, ...] = ()
    builds: Literal["in turns", "told", "one"] = "one"
    turns: int = 2


def _detections(callers: int) -> Iterator[Figure]:
    where = (("callers", callers),)
    words = f"detection, {callers} at once"
    yield Figure(f"{words}: CPU of the shopper, ms", "shopper CPU", "≤ 4", where)
    yield Figure(f"{words}: CPU of the model server, ms", "model-server CPU", "≤ 12", where)
    yield Figure(f"{words}: a second", "rate", "≥ 3 times before" if callers > 1 else "", where)
    yield Figure(f"{words}: p50, ms", "p50", "≤ 1.5 of ONNX Runtime" if callers == 1 else "", where)
    yield Figure(f"{words}: p99, ms", "p99", "≤ 0.4 times before" if callers > 1 else "", where)


def _stores() -> Iterator[Figure]:
    for engine, name in (("embedded", "SeaweedFS"), ("files", "files"), ("versitygw", "versitygw")):
        where = (("engine", engine),)
        yield Figure(f"store of an edge, {name}: CPU a photo put, ms", "put_cpu_ms", "", where)
        yield Figure(f"store of an edge, {name}: CPU a photo read, ms", "get_cpu_ms", "", where)
        yield Figure(f"store of an edge, {name}: resident, MB", "resident_mb", "", where)


def _small_models() -> Iterator[Figure]:
    for door in ("gRPC", "REST"):
        alone = (("joins", True), ("door", door), ("callers", 1))
        yield Figure(f"a small model over {door}: p50, ms", "p50", "", alone)
        yield Figure(f"a small model over {door}: CPU of the model server, ms", "server CPU", "", alone)
        yield Figure(f"a small model over {door}: CPU of the caller, ms", "client CPU", "", alone)
    for joins, words in ((True, "joined"), (False, "one by one")):
        many = (("joins", joins), ("callers", 16))
        yield Figure(f"a small model, 16 at once, {words}: a second", "rate", "", many)


BENCHES = (
    Bench(
        "bench_detect.py",
        (
            *(*_detections(1), *_detections(8)),
            Figure("detections: resident, shopper, MB", "shopper MB", "≤ 85"),
            Figure("detections: resident, model server, MB", "model-server MB", "≤ 130"),
        ),
        builds="told",
    ),
    Bench("bench_model_server.py", tuple(_small_models())),
    Bench(
        "bench_monitor.py",
        (
            Figure(
                "1,000 events, Kafka to MQTT: CPU, s", "cpu_s_per_1000", "≤ 0.1", (("resident_mb", None),)
            ),
            Figure("events, Kafka to MQTT: a second", "events_per_s", "≥ 6,000", (("resident_mb", None),)),
            Figure("events, Kafka to MQTT: resident, MB", "resident_mb", "≤ 60"),
        ),
        ("--events", "5000"),
        builds="in turns",
    ),
    Bench(
        "bench_feeder.py",
        (
            Figure("590 photos: CPU of the feeder, s", "cpu", "≤ 1.0", (("median of", None),)),
            Figure("590 photos: until the answer, s", "wall", "", (("median of", None),)),
            Figure("590 photos: resident, MB", "resident_mb", "≤ 80", (("median of", None),)),
        ),
        ("--rounds", "3"),
        builds="in turns",
    ),
    Bench(
        "bench_copy.py",
        (
            Figure("the same, copied only: CPU, s", "cpu", "", (("by", None),)),
            Figure("the same, copied only: all of them there, s", "wall", "≤ s5cmd's", (("by", None),)),
        ),
    ),
    Bench(
        "bench_edge_manager.py",
        (
            Figure("a version of 15 MB: requests", "requests", "≤ 12", (("mb", 15.0),)),
            Figure("a version of 15 MB: CPU, s", "cpu", "≤ 0.15", (("mb", 15.0),)),
            Figure("versions: resident, MB", "resident_mb", "≤ 60", (("requests", None),)),
        ),
    ),
    Bench("bench_store.py", tuple(_stores())),
    Bench(
        "bench_consumers.py",
        tuple(
            Figure(f"a group of {members}: {what}", key, limit, (("members", members),))
            for members in (1, 2, 4)
            for what, key, limit in (
                ("members with a share", "members with a share", str(members)),
                ("messages nobody read", "unread", "0"),
                ("CPU of 1,000 messages, ms", "CPU ms a thousand", ""),
            )
        ),
        ("4000", "3"),
    ),
    Bench(
        "bench_idle.py",
        (
            Figure("at rest, one edge: the five services, CPU s a minute", "services", "≤ 0.5"),
            Figure("at rest, one edge: all of it, CPU s a minute", "all", "≤ 2"),
        ),
        ("--rest", "90"),
        builds="in turns",
        turns=1,
    ),
    Bench(
        "bench_edge.py",
        (
            Figure("a whole edge: until it is ready, s", "ready_s", "≤ 5"),
            Figure("a whole edge: CPU until it is ready, s", "cpu_s", "", (("ready_s", None),)),
            Figure("a whole edge: CPU of a detection, ms", "cpu_ms"),
            Figure("a whole edge: memory, MB", "mb", "≤ 400"),
            Figure("a whole edge: memory as a container's is counted, MB", "working_set_mb", "≤ 400"),
            Figure(
                "a whole edge: more memory after 1,000 detections, kB",
                "grows_kb_per_1000",
                "",
                (("mb", None),),
            ),
            Figure("a whole edge: killed for want of memory", "killed", "0"),
            Figure("a whole edge: detections not counted at Kafka", "lost", "0"),
            Figure("a whole edge: on disk after 1,000 detections, MB", "disk_mb_per_1000"),
        ),
        ("--detections", "1440"),
    ),
    Bench(
        "bench_retraining.py",
        tuple(
            Figure(f"retraining after 100 images beside {size:,}: {what}", key, limit, (("images", size),))
            for size in (1000, 10_000, 50_000)
            for what, key, limit in (
                ("CPU of the worker, s", "cpu_s", "≤ 2 times the first"),
                ("CPU of TensorFlow beside it, s", "cpu_s_tensorflow", ""),
                ("peak of the worker, MB", "peak_mb", "≤ 1,000"),
                ("peak of TensorFlow, MB", "peak_mb_tensorflow", "≤ 1,000"),
            )
        ),
    ),
)


LIMITS = {figure.name: figure.limit for bench in BENCHES for figure in bench.figures}


def main() -> None:
    """Run the benches, keep what they say, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("before", type=Path, nargs="?", help="a checkout of another build")
    parser.add_argument("--only", default="", help="scripts to run, as `bench_detect.py bench_edge.py`")
    arguments = parser.parse_args()
    before = arguments.before.absolute() if arguments.before else None
    only = arguments.only.split()
    if unknown := set(only) - {bench.script for bench in BENCHES}:
        parser.error(f"{' '.join(sorted(unknown))}: no such bench")
    figures: Figures = defaultdict(list)
    began = time.monotonic()
    for bench in (bench for bench in BENCHES if bench.script in only or not only):
        for line, build in _lines(bench, before):
            for figure in bench.figures:
                if (found := figure.of(line)) is not None:
                    figures[figure.name, build].append(found)
    medians: dict[str, dict[str, float]] = defaultdict(dict, json.loads(FIGURES.read_text()) if only else {})
    for (name, build), each in figures.items():
        medians[name][build] = statistics.median(each)
    plots.ratios(medians, LIMITS, PLOTS)
    FIGURES.write_text(json.dumps(medians, indent=1, ensure_ascii=False) + "\n")
    table = _table(medians)
    text = DOCUMENT.read_text()
    DOCUMENT.write_text(f"{text.partition(BEGIN)[0]}{BEGIN}\n{table}{END}{text.partition(END)[2]}")
    console.print(table, markup=False)
    console.print(f"{(time.monotonic() - began) / 60:.0f} minutes; written to docs/performance.md")


def _lines(bench: Bench, before: Path | None) -> Iterator[tuple[Line, str]]:
    """Run a bench; yield what it printed as JSON, and whose it is."""
    told = bench.builds == "told" and before is not None
    builds = {NOW: ROOT} | ({BEFORE: before} if before is not None and bench.builds == "in turns" else {})
    names = {str(ROOT): NOW, str(before): BEFORE, "feeder": NOW}
    for _ in range(bench.turns if len(builds) > 1 else 1):
        for build, root in builds.items():
            console.print(f"{bench.script}, {build}", style="bold")
            command = [str(root / ".venv/bin/python"), str(HERE / bench.script), *bench.arguments]
            ended = subprocess.run(
                [*command, *(["3", str(before)] if told else [])],
                env=os.environ | {"PYTHONPATH": PACKAGES},
                stdout=subprocess.PIPE,
                text=True,
                check=False,
            )
            if ended.returncode:
                console.print(f"{bench.script} failed with {ended.returncode}: left out", style="red")
            for text in ended.stdout.splitlines():
                if text.startswith("{"):
                    console.print(f"  {text}", markup=False, highlight=False)
                    line = json.loads(text)
                    whose = line.get("of") or line.get("by")
                    if whose is None or build == NOW:  # peers are measured beside this build alone
                        yield line, names.get(whose, whose) if whose else build


def _table(medians: Mapping[str, Mapping[str, float]]) -> str:
    rows = ["| figure | before | now | ratio | limit | peer |\n", "|---|---|---|---|---|---|\n"]
    for figure in (figure for bench in BENCHES for figure in bench.figures if figure.name in medians):
        found = medians[figure.name]
        now, before = found.get(NOW), found.get(BEFORE)
        ratio = f"{now / before:.2f}" if now is not None and before else ""
        peers = ", ".join(
            f"{name} {_number(each)}" for name, each in found.items() if name not in (NOW, BEFORE)
        )
        rows.append(
            f"| {figure.name} | {_number(before)} | {_number(now)} | {ratio} | {figure.limit} | {peers} |\n"
        )
    return "".join(rows)


def _number(figure: float | None) -> str:
    return "" if figure is None else f"{figure:,.0f}" if abs(figure) >= 100 else f"{figure:.3g}"


if __name__ == "__main__":
    main()
