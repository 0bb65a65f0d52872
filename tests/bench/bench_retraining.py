"""What a retraining costs after 100 new images, with so many there: `bench_retraining.py [1000 10000 50000]`.

A store of files holds made-up photos of five classes; their embeddings are made up as well and lie in the
cache, as those of earlier runs do. One run makes the first version; then 100 photos of a new class come, and
a second run, in a process of its own, is measured: CPU seconds and resident memory of the process, and of
TensorFlow's beside it. It prints a line of JSON for each size.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from obstore.store import LocalStore
from PIL import Image

from caravan import s3
from training.embeddings import COLUMNS, SHAPES, EmbeddingCache
from training.events import Reporter
from training.exporter import Exporter, ExporterProcess
from training.pipeline import run_pipeline
from training.session import load_embedder
from training.settings import TrainingSettings
from training.steps import Run
from training.stores import Stores
from training.views import views_of
from training.workspace import Workspace

CLASSES = ("amber", "blue", "cyan", "green", "other")
NEW = "red"
NEW_PHOTOS = 100
SPREAD = 0.6
"""How far photos of a class lie around its centre, beside the distance of centres."""


def main() -> None:
    """Measure each size."""
    if sys.argv[1:2] == ["run"]:
        asyncio.run(_run(Path(sys.argv[2])))
        return
    for size in [int(each) for each in sys.argv[1:]] or [1000, 10_000, 50_000]:
        with tempfile.TemporaryDirectory() as folder:
            _fill(Path(folder), size)
            for new in (False, True):
                if new:
                    _put(Path(folder), [(NEW, photo) for photo in _photos(NEW, NEW_PHOTOS)])
                told = subprocess.run(
                    [sys.executable, __file__, "run", folder], check=True, stdout=subprocess.PIPE
                )
            _say({"images": size} | json.loads(told.stdout.splitlines()[-1]))


def _photos(name: str, count: int) -> Iterator[bytes]:
    rng = np.random.default_rng(len(name))
    pixels = rng.integers(0, 255, 3) * 0.6 + rng.integers(0, 100, (64, 64, 3))
    target = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(target, "JPEG")
    for number in range(count):
        # What comes after the end of a JPEG makes it another file, and no other picture.
        yield target.getvalue() + f"{name}{number}".encode()


def _put(folder: Path, photos: list[tuple[str, bytes]]) -> list[tuple[str, str]]:
    members = []
    for name, photo in photos:
        members.append((name, hashlib.sha256(photo).hexdigest()))
        target = folder / "edge1-data" / "images" / name / f"{members[-1][1]}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(photo)
    return members


def _fill(folder: Path, size: int) -> None:
    share = size // len(CLASSES)
    members = _put(folder, [(name, photo) for name in CLASSES for photo in _photos(name, share)])
    rng = np.random.default_rng(0)
    scale = np.r_[np.full(SHAPES, SHAPES**-0.5), np.full(COLUMNS - SHAPES, 0.3)]
    centres = {name: rng.normal(0, 1, COLUMNS) for name in CLASSES}
    views, kept = views_of(members), EmbeddingCache(folder / "cache")
    for start in range(0, len(members), 2000):
        some = [(*each, view) for each in members[start : start + 2000] for view in range(views[each[1]] + 1)]
        rows = [(centres[name] + rng.normal(0, SPREAD, COLUMNS)) * scale for name, _, _ in some]
        kept.add(
            {(sha, view): row.astype(np.float32) for (_, sha, view), row in zip(some, rows, strict=True)}
        )


async def _run(folder: Path) -> None:
    async def replace(store: Any, key: str, content: bytes, _: str) -> bool:
        await s3.write(store, key, content)  # A store of files has no conditional puts.
        return True

    patched: Any = s3
    patched.replace = replace
    data, models, ready = (_store(folder / f"edge1-{name}") for name in ("data", "models", "ready"))
    stores = Stores(data, models, ready, "edge1")
    settings = TrainingSettings(cache_dir=folder / "cache", work_dir=folder, state_dir=folder)
    work = folder / "work"
    work.mkdir(exist_ok=True)
    stages: dict[str, float] = {}

    def progress(stage: str, _: float) -> None:
        stages[stage] = round(time.process_time(), 2)

    started = time.monotonic()
    async with ExporterProcess(settings.cache_dir) as process:
        exporter = Exporter(process.ask, process.start)
        workspace, embedder = Workspace(work), cache(load_embedder)
        run = Run(settings, "edge1", stores, workspace, embedder, exporter, progress, lambda _: None)
        outcome = await run_pipeline(run, Reporter({}, lambda _: None))
    of_itself, of_child = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    told = {
        "outcome": outcome.state,
        "seconds": round(time.monotonic() - started, 1),
        "cpu_s": round(of_itself.ru_utime + of_itself.ru_stime, 1),
        "cpu_s_tensorflow": round(of_child.ru_utime + of_child.ru_stime, 1),
        "peak_mb": of_itself.ru_maxrss // 1000,
        "peak_mb_tensorflow": of_child.ru_maxrss // 1000,
        "cpu_s_after_stage": stages,
    }
    _say(told)


def _say(facts: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def _store(path: Path) -> LocalStore:
    path.mkdir(exist_ok=True)
    return LocalStore(path)


if __name__ == "__main__":
    main()
