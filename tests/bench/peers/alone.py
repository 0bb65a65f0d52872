"""A model asked by its library alone: `python -m bench.peers.alone onnx|tensorflow MODEL PHOTO [threads]`.

For each line of standard input it asks 50 times about the photo, the decoding included, and prints as JSON
p50 and CPU in ms and the process's resident MB, by the names that `bench_detect.py` has for the model
server's. `threads` is how many one operation of TensorFlow may use; 0, or none given, leaves that to it.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
ASKED = 50


def onnx(model: Path, photo: bytes) -> Callable[[], object]:
    """Return what asks a version's twin, on one thread, as the model server does."""
    from caravan.graphs.twin import open_twin, pixels_of  # noqa: PLC0415 - it, or TensorFlow

    session, _ = open_twin(model, 1)
    return lambda: session.run(None, {"pixels": pixels_of(photo)[None]})


def tensorflow(model: Path, photo: bytes, threads: str = "0") -> Callable[[], object]:
    """Return what asks the SavedModel's `classify`."""
    import tensorflow as tf  # noqa: PLC0415 - it, or ONNX Runtime

    tf.config.threading.set_intra_op_parallelism_threads(int(threads))
    loaded = tf.saved_model.load(str(model))
    images = tf.constant(np.array([photo], object))
    return lambda: {
        name: answer.numpy() for name, answer in loaded.signatures["classify"](images=images).items()
    }


def main(library: str, model: str, photo: str, *threads: str) -> None:
    """Ask once, and then for each line."""
    ask = {"onnx": onnx, "tensorflow": tensorflow}[library](Path(model), Path(photo).read_bytes(), *threads)
    ask()
    for _ in sys.stdin:
        times, used = [], time.process_time()
        for _ in range(ASKED):
            began = time.perf_counter()
            ask()
            times.append(time.perf_counter() - began)
        figures = {
            "p50": statistics.median(times) * 1e3,
            "model-server CPU": (time.process_time() - used) / ASKED * 1e3,
            "model-server MB": psutil.Process().memory_info().rss / 1e6,
        }
        print(json.dumps(figures), flush=True)  # noqa: T201 - a command's output


if __name__ == "__main__":
    main(*sys.argv[1:])
