"""Writes SavedModels and tries them, for `training.exporter`: `python -m training.exporting`.

Jobs come in on standard input as lines of JSON, and an answer to each goes out on standard output. Standard
input that ends means that nobody waits for one: then so does this process.
"""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from caravan import strict_json
from caravan.contracts import HEAD
from caravan.start import TENSORFLOW_UNUSED, lean
from training.codes import DONE
from training.head import Head
from training.orphan import lines_of_parent

if TYPE_CHECKING:
    from training.smoke import Prepared


def main() -> None:
    """Answer jobs until there are no more."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever else prints
    jobs, cache = lines_of_parent(DONE), Path(sys.argv[1])
    with lean(*TENSORFLOW_UNUSED):
        from training.smoke import Prepared  # noqa: PLC0415 - TensorFlow
        from training.template import template  # noqa: PLC0415 - TensorFlow

        prepared = Prepared(template(cache))  # while the head is still being learnt
    while True:
        fault = _done(cache, prepared, strict_json.loads_object(jobs.get()))
        answers.write(json.dumps({"fault": fault}) + "\n")
        answers.flush()


def _done(cache: Path, prepared: "Prepared", job: Mapping[str, Any]) -> str | None:
    from training.export import export  # noqa: PLC0415 - TensorFlow
    from training.smoke import fault_of  # noqa: PLC0415 - TensorFlow

    directory = Path(job["directory"])
    head = Head.from_bytes((directory / HEAD).read_bytes())
    if job["images"] is None:
        export(cache, head, directory)
        return None
    images = [Path(image).read_bytes() for image in job["images"]]
    expected = np.array(job["expected"], np.float32).reshape(len(images), len(head.classes))
    return fault_of(prepared, directory, head, images, expected)


if __name__ == "__main__":
    main()
