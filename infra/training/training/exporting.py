"""Writes SavedModels and tries them, for `training.exporter`: `python -m training.exporting`.

Jobs come in on standard input as lines of JSON, and an answer to each goes out on standard output. Standard
input that ends means that nobody waits for one: then so does this process.
"""

import gc
import json
import os
import sys
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

import numpy as np

from caravan import strict_json
from training.codes import DONE
from training.head import Head


def main() -> None:
    """Answer jobs until there are no more."""
    # A fifth of TensorFlow's start; there is little to collect in seconds.
    gc.disable()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever else prints
    jobs: SimpleQueue[bytes] = SimpleQueue()
    Thread(target=_listen, args=(jobs,), daemon=True, name="jobs").start()
    from training.template import template  # noqa: PLC0415 - TensorFlow

    template(Path(sys.argv[1]))  # while the head is still being learnt
    while True:
        answers.write(json.dumps({"fault": _done(**strict_json.loads_object(jobs.get()))}) + "\n")
        answers.flush()


def _listen(jobs: SimpleQueue[bytes]) -> None:
    for line in sys.stdin.buffer:
        jobs.put(line)
    os._exit(DONE)


def _done(head: str, directory: str, images: list[str] | None, expected: list[Any] | None) -> str | None:
    from training.export import export  # noqa: PLC0415 - TensorFlow
    from training.smoke import fault_of  # noqa: PLC0415 - TensorFlow

    learnt = Head.from_bytes(Path(head).read_bytes())
    if images is None:
        export(Path(sys.argv[1]), learnt, Path(directory))
        return None
    encoded = [Path(image).read_bytes() for image in images]
    probabilities = np.array(expected, np.float32).reshape(len(images), len(learnt.classes))
    return fault_of(Path(directory), learnt, encoded, probabilities)


if __name__ == "__main__":
    main()
