"""Chooses how a version is loaded, by the files that it has."""

from pathlib import Path

import structlog

from caravan.contracts import ONNX_MODEL, SAVED_MODEL, TWIN
from caravan.graphs.limits import SessionLimits
from caravan.graphs.twin import UnfitError
from model_server import onnx_model, saved_model, twin
from model_server.graphs.process import Graphs
from model_server.servable import Servable

log = structlog.get_logger()


def load(name: str, version: int, path: Path, limits: SessionLimits, graphs: Graphs) -> Servable:
    """Load what is in a version's directory (blocking): a SavedModel's twin, itself, or an ONNX model.

    Raises ServingError saying why it cannot be loaded; a directory with neither is no SavedModel.
    """
    if (path / ONNX_MODEL).is_file() and not (path / SAVED_MODEL).is_file():
        return onnx_model.load(name, version, path, limits)
    if (path / TWIN).is_file():
        try:
            return twin.load(name, version, path)
        except UnfitError as exc:
            log.warning("a twin is passed over", model=name, version=version, reason=str(exc))
    return saved_model.load(name, version, path, limits, graphs)
