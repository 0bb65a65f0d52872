"""Training ZIPs of rendered photos: entries `images/<class>/<name>.jpg`, rendered on every core."""

import multiprocessing
import os
import signal
import zipfile
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from lab.photos.scene import PRODUCTS, render

SEED_STRIDE = 1_000_000
CHUNK = 8
EPOCH = (1980, 1, 1, 0, 0, 0)
Progress = Callable[[int, int], None]


def photo_name(product: str, index: int) -> str:
    """Return the name of a photo inside the ZIP."""
    return f"images/{product}/photo-{index:04d}.jpg"


def render_zip(
    path: Path,
    classes: Mapping[str, int],
    seed: int,
    on_progress: Progress | None = None,
    workers: int | None = None,
) -> None:
    """Render so many photos of each product into a ZIP; its bytes depend on `classes` and `seed` alone.

    `on_progress` is called with the photos done and the photos wanted after each; what it raises ends the
    rendering. `workers` is the number of processes, by default one per core that this process may use.
    Raises `KeyError` for a product that is not known, before anything is written.
    """
    unknown = classes.keys() - set(PRODUCTS)
    if unknown:
        raise KeyError(", ".join(sorted(unknown)))
    wanted = [(product, i) for product, count in classes.items() for i in range(count)]
    seeds = [seed * SEED_STRIDE + i for _, i in wanted]
    count = min(workers or _cores(), max(len(wanted) // CHUNK, 1))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive, _pool(count) as pool:
        try:
            photos = pool.map(render, [product for product, _ in wanted], seeds, chunksize=CHUNK)
            for done, ((product, i), photo) in enumerate(zip(wanted, photos, strict=True), start=1):
                archive.writestr(zipfile.ZipInfo(photo_name(product, i), EPOCH), photo)
                if on_progress is not None:
                    on_progress(done, len(wanted))
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            path.unlink(missing_ok=True)  # half a ZIP helps nobody
            raise


def _pool(workers: int) -> ProcessPoolExecutor:
    # Spawned and not forked: the caller may have threads and an event loop.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_leave_interrupts_to_the_parent)


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
