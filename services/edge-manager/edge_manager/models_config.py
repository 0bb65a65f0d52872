"""Which models a model server serves, as TensorFlow Serving reads it: a ModelServerConfig as text."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import PurePosixPath

from caravan.contracts import MODELS_CONFIG

_HEAD = "# Written by the edge-manager: what is changed here by hand does not last."
NAME = PurePosixPath(MODELS_CONFIG).name


def models_config(base_path: str, models: Iterable[str]) -> bytes:
    """Return the file's content, the same for the same models.

    Args:
        base_path: where the model server sees the folders of the models.
        models: their names.

    """
    configs = "".join(_config(name, f"{base_path.rstrip('/')}/{name}") for name in sorted(models))
    return f"{_HEAD}\nmodel_config_list {{\n{configs}}}\n".encode()


def _config(name: str, path: str) -> str:
    return (
        f"  config {{\n    name: {_quoted(name)}\n    base_path: {_quoted(path)}\n"
        '    model_platform: "tensorflow"\n  }\n'
    )


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
