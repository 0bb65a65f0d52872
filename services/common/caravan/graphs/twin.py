"""A twin (`caravan.contracts.TWIN`) in a session of ONNX Runtime, and the pixels that it is given."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caravan import images, strict_json
from caravan.contracts import TWIN
from caravan.graphs.onnx import OnnxError, open_session

SIDE = 224


class UnfitError(Exception):
    """A twin cannot stand for its SavedModel; the message says why."""


def open_twin(directory: Path, threads: int) -> tuple[Any, list[str]]:
    """Load a version's twin (blocking); a call of it uses up to `threads` threads.

    Returns:
        The session, and the names of the classes, which the twin's metadata hold.

    Raises:
        UnfitError: if it does not load, or is not of the contract's form.

    """
    try:
        session = open_session(directory, threads, TWIN)
    except OnnxError as exc:
        raise UnfitError(f"it does not load: {exc.words}") from exc
    inputs, outputs = session.get_inputs(), session.get_outputs()
    found = [(one.name, one.type, one.shape[1:]) for one in inputs]
    if found != [("pixels", "tensor(uint8)", [SIDE, SIDE, 3])] or isinstance(inputs[0].shape[0], int):
        raise UnfitError(f"its input is not pixels [N, {SIDE}, {SIDE}, 3] of uint8")
    if [(one.name, one.type) for one in outputs] != [("probabilities", "tensor(float)")]:
        raise UnfitError("its output is not probabilities [N, C] of float32")
    try:
        classes = strict_json.loads(session.get_modelmeta().custom_metadata_map["classes"])
    except (KeyError, ValueError) as exc:
        raise UnfitError("it does not name its classes") from exc
    if not isinstance(classes, list) or not all(isinstance(each, str) for each in classes):
        raise UnfitError("it does not name its classes")
    if outputs[0].shape[1:] != [len(classes)]:
        raise UnfitError("it has not one probability for each class")
    return session, classes


def pixels_of(encoded: bytes) -> NDArray[np.uint8]:
    """Return an image as a twin is given it, [224, 224, 3]. Raises BadInput."""
    return np.frombuffer(images.resized(encoded, "RGB", SIDE, SIDE), np.uint8).reshape(SIDE, SIDE, 3)
