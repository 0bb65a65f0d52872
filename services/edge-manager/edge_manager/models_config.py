"""Which models a model server serves, as TensorFlow Serving reads it: a ModelServerConfig as text."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import PurePosixPath

from caravan.contracts import MODELS_CONFIG

_HEAD = "# Written by the edge-manager: what is changed here by hand does not last."
_POLICY = "    model_version_policy {{ latest {{ num_versions: {} }} }}\n"
NAME = PurePosixPath(MODELS_CONFIG).name


def models_config(base_path: str, models: Iterable[str], versions: int = 1) -> bytes:
    """Return the file's content, the same for the same models.

    Args:
        base_path: where the model server sees the folders of the models.
        models: their names.
        versions: how many of each model are served, the newest; one is what model servers do by themselves.

    """
    policy = "" if versions == 1 else _POLICY.format(versions)
    configs = "".join(_config(name, f"{base_path.rstrip('/')}/{name}", policy) for name in sorted(models))
    return f"{_HEAD}\nmodel_config_list {{\n{configs}}}\n".encode()


def _config(name: str, path: str, policy: str) -> str:
    return (
        f"  config {{\n    name: {_quoted(name)}\n    base_path: {_quoted(path)}\n"
        f'    model_platform: "tensorflow"\n{policy}  }}\n'
    )


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
