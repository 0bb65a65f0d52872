"""A model as the feeder takes it: a ZIP with the model's folder, and in it the names of the classes."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

from caravan.model_zips import LABELS


def write_model_zip(path: Path, model: Path, classes: Sequence[str]) -> int:
    """Write a SavedModel's folder, and `labels.txt` beside it, under the ZIP's own name; return its bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(model.rglob("*")):
            if file.is_file():
                archive.write(file, f"{path.stem}/{file.relative_to(model).as_posix()}")
        archive.writestr(f"{path.stem}/{LABELS}", "\n".join(classes) + "\n")
    return path.stat().st_size
