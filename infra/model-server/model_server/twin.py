"""A version of ours, run by its twin: images are read here, the rest is ONNX Runtime's.

It has the SavedModel's signatures and answers as that does, to a hundredth, for less CPU and a tenth of the
memory; the pipeline publishes no version whose two forms differ.
"""

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from caravan.contracts import ONE_IMAGE, SAVED_MODEL
from caravan.errors import BadInput
from caravan.graphs.plausible import texts
from caravan.graphs.twin import UnfitError, open_twin, pixels_of
from model_server.errors import invalid
from model_server.onnx_model import Running
from model_server.servable import Arrays
from model_server.stubs import meta_graph_pb2, saved_model_pb2

_TAG = "serve"
_CONTRACT = {
    "serving_default": (["image_b64"], ["prediction"]),
    "classify": (["images"], ["classes", "labels", "probabilities", "scores"]),
}
"""Inputs and outputs of the signatures that a twin answers for."""


@dataclass(eq=False)
class TwinSignature:
    """One of the two signatures."""

    name: str
    definition: meta_graph_pb2.SignatureDef
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    answer: Callable[[NDArray[Any]], dict[str, NDArray[Any]]]
    running: Running
    batchable: bool = False  # company saves nothing
    whole: frozenset[str] = frozenset()

    def call(self, arrays: Arrays) -> dict[str, NDArray[Any]]:
        """Answer for encoded images, [N] (blocking). Raises ServingError."""
        (encoded,) = (arrays[alias] for alias in self.inputs)
        if encoded.ndim != 1:
            raise invalid(f"{self.inputs[0]} has to be a list of images, not of shape {list(encoded.shape)}")
        return self.answer(encoded)

    def interrupt(self) -> None:
        """End the calls that run, before their next operator."""
        self.running.interrupt()


class Twin:
    """A loaded version."""

    platform = "tensorflow_savedmodel"
    trouble: str | None = None

    def __init__(
        self,
        name: str,
        version: int,
        definitions: dict[str, meta_graph_pb2.SignatureDef],
        classes: Sequence[str],
        session: Any,
    ) -> None:
        self.name = name
        self.version = version
        self.definitions = definitions
        self._classes = np.array([each.encode() for each in classes], object)
        self._running = running = Running(session)
        self.signatures = {
            name: TwinSignature(
                name, definitions[name], tuple(_CONTRACT[name][0]), tuple(_CONTRACT[name][1]), answer, running
            )
            for name, answer in (("serving_default", self._serve), ("classify", self._classify))
        }

    def _classify(self, encoded: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Encoded images [N] → labels [N], scores [N], probabilities [N, C], classes [C]."""
        p = np.zeros((len(encoded), len(self._classes)), np.float32)
        with self._running.call() as run:
            # One by one: together they would take as long, and more memory.
            for row, image in enumerate(encoded):
                p[row] = run(["probabilities"], {"pixels": _pixels(image)[None]})[0]
        return {
            "labels": self._classes[p.argmax(axis=1)],
            "scores": p.max(axis=1, initial=0),
            "probabilities": p,
            "classes": self._classes,
        }

    def _serve(self, encoded: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """One encoded image [1] → `[label, probability]`, both strings."""
        if len(encoded) != 1:
            raise invalid(ONE_IMAGE)
        answer = self._classify(encoded)
        probability = f"{answer['scores'][0]:.6f}".encode()
        return {"prediction": np.array([answer["labels"][0], probability], object)}

    def texts(self) -> list[bytes]:
        """Return what a string may be that the model is given."""
        return texts()

    def release(self) -> None:
        """Let go of the session (blocking: runs the garbage collector)."""
        self.signatures = {}
        del self._running
        gc.collect()


def _pixels(encoded: bytes) -> NDArray[np.uint8]:
    try:
        return pixels_of(encoded)
    except BadInput as exc:
        raise invalid(exc.detail) from exc


def load(name: str, version: int, path: Path) -> Twin:
    """Load a version's twin (blocking); a call of it uses one thread, as calls run beside one another.

    Raises UnfitError if it cannot stand for the SavedModel.
    """
    definitions = _definitions(path / SAVED_MODEL)
    for alias, (inputs, outputs) in _CONTRACT.items():
        found = definitions.get(alias)
        if found is None or (sorted(found.inputs), sorted(found.outputs)) != (inputs, outputs):
            raise UnfitError(f"the SavedModel has no signature {alias} of ours")
    session, classes = open_twin(path, threads=1)
    return Twin(name, version, definitions, classes, session)


def _definitions(file: Path) -> dict[str, meta_graph_pb2.SignatureDef]:
    try:
        model = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    except (OSError, DecodeError) as exc:
        raise UnfitError(f"{SAVED_MODEL} cannot be read: {exc}") from exc
    served = [graph for graph in model.meta_graphs if _TAG in graph.meta_info_def.tags]
    if len(served) != 1:
        raise UnfitError(f"{SAVED_MODEL} has {len(served)} graphs tagged {_TAG}")
    return dict(served[0].signature_def)
