"""A TensorFlow SavedModel, in the shape of a servable."""

import gc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf
from numpy.typing import NDArray

from caravan.graphs.limits import Limits
from caravan.graphs.session import GraphSession, GraphSignature
from caravan.graphs.tf_examples import plausible_texts
from model_server.dataflow import untouched
from model_server.errors import Code, ServingError, from_exception
from model_server.servable import Arrays, batch_first
from model_server.stubs import graph_pb2, meta_graph_pb2


class SavedModelSignature:
    """A signature of a SavedModel."""

    def __init__(self, name: str, signature: GraphSignature, graph: graph_pb2.GraphDef) -> None:
        self.name = name
        self.definition = signature.definition
        self.inputs = signature.inputs
        self.outputs = signature.outputs
        self.whole = _whole_outputs(self.definition, graph)
        self.batchable = _batchable(self.definition, self.whole)
        self._call = signature.call

    def call(self, arrays: Arrays) -> dict[str, NDArray[Any]]:
        """Run the graph (blocking). Raises ServingError with the failing op's code and words."""
        try:
            return self._call(arrays)
        except (tf.errors.OpError, TypeError, ValueError) as exc:
            raise from_exception(exc) from exc

    def interrupt(self) -> None:
        """Do nothing: the session itself ends a call that takes too long."""


class SavedModel:
    """A loaded SavedModel."""

    platform = "tensorflow_savedmodel"

    def __init__(self, name: str, version: int, session: GraphSession) -> None:
        self.name = name
        self.version = version
        self.signatures: Mapping[str, SavedModelSignature] = {
            key: SavedModelSignature(key, one, session.graph) for key, one in session.signatures.items()
        }
        self.definitions = session.definitions
        self._session: GraphSession | None = session

    def texts(self) -> list[bytes]:
        """Return what a string may be that the model is given."""
        return [] if self._session is None else plausible_texts(self._session.graph)

    def release(self) -> None:
        """Let go of the graph and its variables (blocking: runs the garbage collector)."""
        self.signatures = {}
        if self._session is not None:
            self._session.close()
            self._session = None
        gc.collect()


def load(name: str, version: int, path: Path, limits: Limits) -> SavedModel:
    """Load a SavedModel (blocking). Raises ServingError saying why it cannot be loaded."""
    try:
        return SavedModel(name, version, GraphSession.load(path, limits))
    except tf.errors.OpError as exc:
        raise from_exception(exc) from exc
    except Exception as exc:  # a damaged SavedModel makes the loader raise almost anything
        raise ServingError(Code.INTERNAL, f"Cannot load SavedModel at {path}: {exc}") from exc


def _batchable(definition: meta_graph_pb2.SignatureDef, whole: frozenset[str]) -> bool:
    return (
        bool(definition.inputs)
        and all(batch_first(info) for info in definition.inputs.values())
        and all(batch_first(info) for alias, info in definition.outputs.items() if alias not in whole)
        and len(whole) < len(definition.outputs)
    )


def _whole_outputs(definition: meta_graph_pb2.SignatureDef, graph: graph_pb2.GraphDef) -> frozenset[str]:
    """The outputs of fixed size that no input reaches."""
    feeds = [info.name for info in definition.inputs.values()]
    constant = untouched(graph, feeds, [info.name for info in definition.outputs.values()])
    return frozenset(
        alias for alias, info in definition.outputs.items() if info.name in constant and not batch_first(info)
    )
