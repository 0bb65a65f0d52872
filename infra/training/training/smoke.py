"""Does an exported model load and answer? Asked of the files, as a model server would."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from caravan.contracts import SAVED_MODEL
from caravan.graphs.limits import SessionLimits
from caravan.graphs.plausible import encoded_picture
from caravan.graphs.session import GraphSession, GraphSignature
from caravan.graphs.twin import UnfitError
from training.export import declared
from training.head import Head
from training.twin_check import Asked, check_twin, scaled

CLOSE = 5e-3
"""Largest difference of a probability from that of the head in memory."""


class Prepared:
    """The template, loaded and asked, so that of a version with its graph only the variables are to be read.

    TensorFlow makes a graph ready in its first calls: that takes ten times as long as to read variables.
    """

    def __init__(self, template: Path) -> None:
        self._file = (template / SAVED_MODEL).read_bytes()
        self._session = GraphSession.load(template, SessionLimits())
        for signature in self._session.signatures.values():
            signature.call({signature.inputs[0]: np.array([encoded_picture()], object)})

    def signatures(self, directory: Path, classes: int) -> Mapping[str, GraphSignature]:
        """Load a version of so many classes, which answers until the next one is; see `GraphSession.load`."""
        if (directory / SAVED_MODEL).read_bytes() != declared(self._file, classes):
            return GraphSession.load(directory, SessionLimits()).signatures
        self._session.restore(directory)
        return self._session.signatures


def fault_of(
    prepared: Prepared,
    directory: Path,
    head: Head,
    images: Sequence[bytes],
    expected: NDArray[np.float32],
) -> str | None:
    """Load a SavedModel, ask both signatures, and hold its twin against it.

    Args:
        prepared: the template that it was made of.
        directory: the SavedModel, and its twin.
        head: the head it was made of.
        images: N encoded images.
        expected: [N, C], the head's probabilities for them.

    Returns:
        What is wrong, in a few words, or None.

    """
    # Images as small PNGs: their pixels are those that the head knows, whoever decodes them.
    asked = list(scaled(images))
    encoded = [encoded_picture(), *(each for each, _ in asked[len(asked) - len(images) :])]
    try:
        signatures = prepared.signatures(directory, len(head.classes))
        answer = signatures["classify"].call({"images": np.array(encoded, object)})
        one = signatures["serving_default"].call({"image_b64": np.array(encoded[:1], object)})["prediction"]
    except (tf.errors.OpError, OSError, KeyError, ValueError, TypeError) as exc:
        return f"it does not load or answer: {next(iter(str(exc).splitlines()), type(exc).__name__)}"
    fault = _otherwise(answer, one, head, expected)
    return fault or _fault_of_twin(directory, signatures["classify"], asked)


def _otherwise(
    answer: Mapping[str, NDArray[Any]], one: NDArray[Any], head: Head, expected: NDArray[np.float32]
) -> str | None:
    pictured, probabilities = np.split(answer["probabilities"], [1])
    if tuple(name.decode() for name in answer["classes"]) != head.classes:
        return "its classes are not those it was trained on"
    if probabilities.shape != expected.shape or not np.isfinite(answer["probabilities"]).all():
        return "its probabilities are not finite, or not one for each class"
    # Where each class has one image, none is held out.
    if np.abs(probabilities - expected).max(initial=0) > CLOSE:
        return "it answers otherwise than the head it was made of"
    label, probability = (text.decode() for text in one)
    if label not in head.classes or abs(float(probability) - float(pictured.max())) > CLOSE:
        return "its two signatures do not agree"
    return None


def _fault_of_twin(directory: Path, classify: GraphSignature, asked: Sequence[Asked]) -> str | None:
    try:
        check_twin(directory, classify.call, asked)
    except (UnfitError, tf.errors.OpError) as exc:
        return f"its twin for ONNX Runtime is refused: {exc}"
    return None
