"""TensorFlow's published protobuf modules, and those of TensorFlow Serving, without TensorFlow.

They need no more than each other, but importing any of them runs `tensorflow/__init__.py`: two seconds and
half a gigabyte. While they are imported, an empty package with the installed one's path stands in for it.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import ModuleType


@contextmanager
def without_tensorflow() -> Iterator[None]:
    """Let protobuf modules be imported within the block; of no effect where TensorFlow is loaded already."""
    spec = None if "tensorflow" in sys.modules else find_spec("tensorflow")
    if spec is None or spec.submodule_search_locations is None:
        yield
        return
    package = ModuleType("tensorflow")
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules["tensorflow"] = package
    try:
        yield
    finally:
        # Gone again, so that whoever imports TensorFlow in this process gets the real one.
        del sys.modules["tensorflow"]
