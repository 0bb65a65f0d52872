"""Copy what the stubs load of TensorFlow, for an image: `python -m shopper.model.stub_files DIRECTORY`.

Further arguments are modules that load more of it.
"""

from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from shopper.model import stubs

PREFIX = "tensorflow."


def copy(directory: Path, modules: Mapping[str, ModuleType]) -> list[str]:
    """Copy the loaded modules of TensorFlow to their places below `directory`; return their names.

    The package's own `__init__.py` is not among them: it is what loads all of TensorFlow, and without it
    the package is a namespace.
    """
    loaded = {name: module for name, module in modules.items() if name.startswith(PREFIX) and module.__file__}
    for name, module in loaded.items():
        base = directory.joinpath(*name.split("."))
        place = base / "__init__.py" if hasattr(module, "__path__") else base.with_suffix(".py")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(str(module.__file__), place)
    return sorted(loaded)


if __name__ == "__main__":
    assert stubs.TensorProto  # noqa: S101 - loaded, so that there is something to copy
    for name in sys.argv[2:]:
        importlib.import_module(name)
    copy(Path(sys.argv[1]), sys.modules)
