"""Which models a model server serves, as TensorFlow Serving reads it: a ModelServerConfig as text."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import PurePosixPath

from caravan.contracts import MODELS_CONFIG

_HEAD = "# Written by the edge-manager: what is changed here by hand does not last."
_POLICY = "    model_version_policy {{ {} }}\n"
NAME = PurePosixPath(MODELS_CONFIG).name


def models_config(base_path: str, models: Mapping[str, Collection[int]], newest: int = 1) -> bytes:
    """Return the file's content, the same for the same models.

    Args:
        base_path: where the model server sees the folders of the models.
        models: by name, the versions that are served; the newest ones where none is named.
        newest: how many that are; one is what model servers do by themselves.

    """
    configs = "".join(
        _config(name, f"{base_path.rstrip('/')}/{name}", _policy(versions, newest))
        for name, versions in sorted(models.items())
    )
    return f"{_HEAD}\nmodel_config_list {{\n{configs}}}\n".encode()


def _policy(versions: Collection[int], newest: int) -> str:
    if versions:
        named = " ".join(f"versions: {version}" for version in sorted(versions))
        return _POLICY.format(f"specific {{ {named} }}")
    return "" if newest == 1 else _POLICY.format(f"latest {{ num_versions: {newest} }}")


def _config(name: str, path: str, policy: str) -> str:
    return (
        f"  config {{\n    name: {_quoted(name)}\n    base_path: {_quoted(path)}\n"
        f'    model_platform: "tensorflow"\n{policy}  }}\n'
    )


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
