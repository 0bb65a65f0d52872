"""How a process's imports are kept cheap: they are most of its start, and much of what it holds."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

UNUSED = ("rich", "pygments", "greenlet")
"""Modules that structlog and httpx import to draw, if they find them; no service draws."""
PYDANTIC_V1 = "pydantic.v1"
"""What FastAPI imports at the first route, if it finds it, to refuse its models; nobody has any."""
TENSORFLOW_UNUSED = ("keras",)
"""Modules that TensorFlow imports, if it finds them, for optimizers of models; no graph needs one."""


@contextmanager
def lean(*unused: str) -> Iterator[None]:
    """Import modules within this context: without garbage collections, and without those that are unused."""
    hidden = unused if sys.modules.keys().isdisjoint(unused) else ()
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type] # None: not to be found
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        for name in hidden:
            del sys.modules[name]


@contextmanager
def imports() -> Iterator[None]:
    """Import a service's modules within this context: without garbage collections, and without UNUSED.

    PYDANTIC_V1 stays out of the process afterwards, too, as routes are declared when a service is wired.
    Validators are made once a model is used: most of FastAPI's, those of OpenAPI's documents, never are.
    """
    from pydantic import BaseModel  # noqa: PLC0415 - within what is timed

    sys.modules.setdefault(PYDANTIC_V1, None)  # type: ignore[arg-type] # None: not to be found
    BaseModel.model_config["defer_build"] = True  # inherited by the models that are declared meanwhile
    try:
        with lean(*UNUSED):
            yield
    finally:
        del BaseModel.model_config["defer_build"]
