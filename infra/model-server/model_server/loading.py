"""Chooses how a version is loaded, by the file that it has."""

from pathlib import Path

from caravan.contracts import ONNX_MODEL, SAVED_MODEL
from caravan.graphs.limits import Limits
from model_server import onnx_model, saved_model
from model_server.servable import Servable


def load(name: str, version: int, path: Path, limits: Limits) -> Servable:
    """Load what is in a version's directory (blocking): a SavedModel, else an ONNX model.

    Raises ServingError saying why it cannot be loaded; a directory with neither is no SavedModel.
    """
    if (path / ONNX_MODEL).is_file() and not (path / SAVED_MODEL).is_file():
        return onnx_model.load(name, version, path, limits)
    return saved_model.load(name, version, path, limits)
