"""A TensorFlow SavedModel, in the shape of a servable; another process runs it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from caravan.graphs.limits import SessionLimits
from model_server.graphs.process import Graphs, Loaded
from model_server.servable import Arrays
from model_server.stubs import get_model_metadata_pb2, meta_graph_pb2


class SavedModelSignature:
    """A signature of a SavedModel."""

    def __init__(
        self, name: str, loaded: Loaded, definition: meta_graph_pb2.SignatureDef, said: Mapping[str, Any]
    ) -> None:
        self.name = name
        self.definition = definition
        self.inputs: tuple[str, ...] = tuple(said["inputs"])
        self.outputs: tuple[str, ...] = tuple(said["outputs"])
        self.whole: frozenset[str] = frozenset(said["whole"])
        self.batchable: bool = said["batchable"]
        self._loaded = loaded

    def call(self, arrays: Arrays) -> dict[str, NDArray[Any]]:
        """Run the graph (blocking). Raises ServingError with the failing op's code and words."""
        return self._loaded.call(self.name, {alias: arrays[alias] for alias in self.inputs})

    def interrupt(self) -> None:
        """Do nothing: the session itself ends a call that takes too long."""


class SavedModel:
    """A loaded SavedModel."""

    platform = "tensorflow_savedmodel"

    def __init__(self, name: str, version: int, graphs: Graphs, loaded: Loaded) -> None:
        self.name = name
        self.version = version
        self.definitions: Mapping[str, meta_graph_pb2.SignatureDef] = dict(
            get_model_metadata_pb2.SignatureDefMap.FromString(loaded.definitions).signature_def
        )
        self.signatures = {
            key: SavedModelSignature(key, loaded, self.definitions[key], said)
            for key, said in loaded.signatures.items()
        }
        self._graphs = graphs
        self._loaded = loaded

    @property
    def trouble(self) -> str | None:
        """Why it cannot be asked at the moment, if so."""
        return self._loaded.trouble

    def texts(self) -> list[bytes]:
        """Return what a string may be that the model is given."""
        return self._loaded.texts

    def release(self) -> None:
        """Let go of the graph and its variables (blocking)."""
        self.signatures = {}
        self._graphs.release(self._loaded)


def load(name: str, version: int, path: Path, limits: SessionLimits, graphs: Graphs) -> SavedModel:
    """Load a SavedModel (blocking). Raises ServingError saying why it cannot be loaded."""
    return SavedModel(name, version, graphs, graphs.load(path, limits))
