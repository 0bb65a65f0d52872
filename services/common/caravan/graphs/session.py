"""A SavedModel in a session of its own, as TensorFlow Serving runs it: loaded, asked, closed.

A call goes through one of the session's callables: on a small model 78 µs instead of an eager call's 136, the
failing operation's own words on an error, and a bound on its time.
"""

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.core.protobuf import config_pb2, meta_graph_pb2

from caravan.graphs import meta_graph
from caravan.graphs.limits import SessionLimits

Arrays = Mapping[str, NDArray[Any]]


class GraphSignature:
    """A signature that can be called; inputs are in the order in which TensorFlow counts them."""

    def __init__(self, session: Any, definition: meta_graph_pb2.SignatureDef) -> None:
        self.definition = definition
        self.inputs = tuple(
            sorted(definition.inputs, key=lambda alias: meta_graph.tensor(definition.inputs[alias].name))
        )
        self.outputs = tuple(sorted(definition.outputs))
        self._session = session
        self._callable: Any = None
        self._making = threading.Lock()

    def call(self, arrays: Arrays) -> dict[str, NDArray[Any]]:
        """Run the graph (blocking) on an array for each input; strings are object arrays of bytes.

        Raises:
            tf.errors.OpError: with the failing operation's code and words; CANCELLED once it is closed.

        """
        results = self._made()(*(arrays[alias] for alias in self.inputs))
        return {alias: _array(result) for alias, result in zip(self.outputs, results, strict=True)}

    def close(self) -> None:
        """Let go of the session."""
        self._callable = self._session = None

    def _made(self) -> Any:
        made = self._callable
        if made is None:
            with self._making:
                made = self._callable = self._callable or self._make()
        return made

    def _make(self) -> Any:
        """Prepare the call: as in TensorFlow Serving it is the first call that finds out what is wrong."""
        if self._session is None:
            raise tf.errors.CancelledError(None, None, "Session has been closed.")
        for alias, info in (*self.definition.inputs.items(), *self.definition.outputs.items()):
            if not info.name:
                words = f"{alias} is sparse or ragged: only a dense tensor can be fed or fetched"
                raise tf.errors.InvalidArgumentError(None, None, words)
        options = config_pb2.CallableOptions(
            feed=[self.definition.inputs[alias].name for alias in self.inputs],
            fetch=[self.definition.outputs[alias].name for alias in self.outputs],
        )
        # `make_callable` is public, and three times as slow.
        return self._session._make_callable_from_options(options)  # noqa: SLF001


class GraphSession:
    """A loaded SavedModel."""

    def __init__(self, session: Any, model: meta_graph.MetaGraph, limits: SessionLimits) -> None:
        self.graph = model.graph
        self.definitions = model.declared
        self.signatures = {name: GraphSignature(session, one) for name, one in model.signatures.items()}
        self._session = session
        self._model = model
        self._limits = limits

    @classmethod
    def load(cls, directory: Path, limits: SessionLimits) -> Self:
        """Load a SavedModel (blocking).

        Raises:
            tf.errors.OpError: in TensorFlow's words, or INVALID_ARGUMENT if its graph does more than compute.
            ValueError: if the graph is not consistent.

        """
        model = meta_graph.read(directory)
        graph = tf.Graph()
        with graph.as_default():
            tf.import_graph_def(model.graph, name="")
        loaded = cls(tf.compat.v1.Session(graph=graph, config=_config(limits)), model, limits)
        try:
            loaded.restore(directory)
        except BaseException:
            loaded.close()
            raise
        return loaded

    def restore(self, directory: Path) -> None:
        """Read the variables and assets of a SavedModel that has this graph (blocking).

        Raises:
            tf.errors.OpError: in TensorFlow's words.

        """
        _restore(self._session, self._model, directory, self._limits)

    def close(self) -> None:
        """Let go of the graph and its variables; calls that run are cancelled."""
        self._session.close()
        for one in self.signatures.values():
            one.close()
        self.signatures = {}


def _config(limits: SessionLimits) -> Any:
    return tf.compat.v1.ConfigProto(
        intra_op_parallelism_threads=limits.intra_op_threads,
        inter_op_parallelism_threads=limits.inter_op_threads,
        # Or a model whose calls take long would hold the threads that all sessions share.
        use_per_session_threads=True,
        allow_soft_placement=True,
        operation_timeout_in_ms=max(int(limits.run_seconds * 1000), 1),
    )


def _restore(session: Any, model: meta_graph.MetaGraph, directory: Path, limits: SessionLimits) -> None:
    options = tf.compat.v1.RunOptions(timeout_in_ms=max(int(limits.load_seconds * 1000), 1))
    if model.restore is not None:
        prefix = str(directory / "variables" / "variables")
        _run(session, model.restore, {meta_graph.tensor(model.filename): prefix}, options)
    if model.init is not None:
        _run(session, model.init, {name: str(path) for name, path in model.assets.items()}, options)


def _run(session: Any, name: str, feeds: Mapping[str, str], options: Any) -> None:
    session.run(session.graph.get_operation_by_name(name), feeds, options=options)


def _array(result: Any) -> NDArray[Any]:
    if isinstance(result, np.ndarray):
        return result
    return np.asarray(result, dtype=object if isinstance(result, bytes) else None)
