"""An ONNX model, run by ONNX Runtime on the CPU, in the shape of a SavedModel with one signature.

Its signature `serving_default` has the graph's own inputs and outputs. Requests are joined where every
first dimension is open, and where the graph names these dimensions, if it names them alike.
"""

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caravan.graphs.limits import SessionLimits
from caravan.graphs.onnx import OnnxError, open_session
from caravan.graphs.plausible import texts
from model_server.errors import Code, ServingError, from_exception, invalid
from model_server.servable import DEFAULT_SIGNATURE, Arrays, batch_first
from model_server.stubs import meta_graph_pb2, types_pb2

METHOD = "tensorflow/serving/predict"
_DTYPES = {
    "tensor(float)": types_pb2.DT_FLOAT,
    "tensor(double)": types_pb2.DT_DOUBLE,
    "tensor(float16)": types_pb2.DT_HALF,
    "tensor(int8)": types_pb2.DT_INT8,
    "tensor(int16)": types_pb2.DT_INT16,
    "tensor(int32)": types_pb2.DT_INT32,
    "tensor(int64)": types_pb2.DT_INT64,
    "tensor(uint8)": types_pb2.DT_UINT8,
    "tensor(uint16)": types_pb2.DT_UINT16,
    "tensor(uint32)": types_pb2.DT_UINT32,
    "tensor(uint64)": types_pb2.DT_UINT64,
    "tensor(bool)": types_pb2.DT_BOOL,
    "tensor(string)": types_pb2.DT_STRING,
}
_LOAD_CODES = {2: Code.INVALID_ARGUMENT, 3: Code.NOT_FOUND, 7: Code.DATA_LOSS, 9: Code.UNIMPLEMENTED}
_TERMINATED = "terminate flag"
_MEMORY = ("Failed to allocate memory", "bad allocation", "bad_alloc")


Run = Callable[[Sequence[str], Arrays], list[Any]]


class Running:
    """A session, and the calls of it that run."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._calls: set[Any] = set()

    @contextmanager
    def call(self) -> Iterator[Run]:
        """Yield what runs the graph (blocking), as often as one call needs.

        It raises ServingError with the runtime's own words.
        """
        import onnxruntime  # noqa: PLC0415 - `caravan.graphs.onnx` says why

        options = onnxruntime.RunOptions()
        self._calls.add(options)
        try:
            yield partial(self._run, options)
        finally:
            self._calls.discard(options)

    def _run(self, options: Any, outputs: Sequence[str], feeds: Arrays) -> list[Any]:
        try:
            results: list[Any] = self._session.run(outputs, feeds, options)
        except Exception as exc:  # ONNX Runtime's errors have no public base class
            raise _run_error(OnnxError(exc)) from exc
        return results

    def interrupt(self) -> None:
        """End the calls that run, before their next operator."""
        for options in tuple(self._calls):
            options.terminate = True


@dataclass(eq=False)
class OnnxSignature:
    """The one signature of an ONNX model."""

    running: Running
    definition: meta_graph_pb2.SignatureDef
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    batchable: bool
    name: str = DEFAULT_SIGNATURE
    whole: frozenset[str] = frozenset()

    def call(self, arrays: Arrays) -> dict[str, NDArray[Any]]:
        """Run the graph (blocking). Raises ServingError with the runtime's own words."""
        feeds = {alias: _to_runtime(alias, arrays[alias]) for alias in self.inputs}
        with self.running.call() as run:
            results = run(self.outputs, feeds)
        return {
            alias: _from_runtime(np.asarray(result))
            for alias, result in zip(self.outputs, results, strict=True)
        }

    def interrupt(self) -> None:
        """End the calls that run, before their next operator."""
        self.running.interrupt()


class OnnxModel:
    """A loaded ONNX model."""

    platform = "onnx_onnxv1"
    trouble: str | None = None

    def __init__(self, name: str, version: int, signature: OnnxSignature) -> None:
        self.name = name
        self.version = version
        self.definitions = {signature.name: signature.definition}
        self.signatures = {signature.name: signature}

    def texts(self) -> list[bytes]:
        """Return what a string may be that the model is given."""
        return texts()

    def release(self) -> None:
        """Let go of the session (blocking: runs the garbage collector)."""
        self.signatures = {}
        gc.collect()


def load(name: str, version: int, path: Path, limits: SessionLimits) -> OnnxModel:
    """Load `model.onnx` (blocking); a call of it uses up to `intra_op_threads` threads.

    Raises ServingError saying why it cannot be loaded.
    """
    try:
        session = open_session(path, limits.intra_op_threads)
    except OnnxError as exc:
        code = _LOAD_CODES.get(exc.number or 0, Code.INTERNAL)
        raise ServingError(code, f"Cannot load ONNX model: {exc.words}") from exc
    return OnnxModel(name, version, _signature(session))


def _signature(session: Any) -> OnnxSignature:
    inputs, outputs = session.get_inputs(), session.get_outputs()
    definition = meta_graph_pb2.SignatureDef(method_name=METHOD)
    for role, nodes, infos in (
        ("input", inputs, definition.inputs),
        ("output", outputs, definition.outputs),
    ):
        for node in nodes:
            _describe(role, node, infos[node.name])
    return OnnxSignature(
        Running(session),
        definition,
        tuple(node.name for node in inputs),
        tuple(node.name for node in outputs),
        _batchable(inputs, outputs, definition),
    )


def _describe(role: str, node: Any, info: meta_graph_pb2.TensorInfo) -> None:
    dtype = _DTYPES.get(node.type)
    if dtype is None and not node.type.startswith("tensor("):
        words = f'The {role} "{node.name}" is a {node.type}, and only tensors can be served.'
        if "map(" in node.type:
            words += (
                " A classifier made with skl2onnx is exported without its ZipMap by "
                'to_onnx(model, ..., options={"zipmap": False})'
            )
        raise ServingError(Code.UNIMPLEMENTED, words)
    if dtype is None:
        raise ServingError(
            Code.UNIMPLEMENTED, f'The {role} "{node.name}" is a {node.type}, which cannot be served'
        )
    info.name = f"{node.name}:0"
    info.dtype = dtype
    # ONNX Runtime tells a scalar and a tensor of unknown rank in one way.
    info.tensor_shape.unknown_rank = not node.shape
    for size in node.shape:
        info.tensor_shape.dim.add(size=size if isinstance(size, int) else -1)


def _batchable(
    inputs: Sequence[Any], outputs: Sequence[Any], definition: meta_graph_pb2.SignatureDef
) -> bool:
    infos = [*definition.inputs.values(), *definition.outputs.values()]
    if not inputs or not all(batch_first(info) for info in infos):
        return False
    names = {node.shape[0] for node in [*inputs, *outputs]} - {None}
    return len(names) <= 1


def _to_runtime(alias: str, array: NDArray[Any]) -> NDArray[Any]:
    """Strings go in as text: ONNX's are UTF-8."""
    if array.dtype != object:
        return array
    try:
        texts = [value.decode() for value in array.ravel()]
    except UnicodeDecodeError as exc:
        raise invalid(f"tensor parsing error: {alias}: an ONNX string has to be UTF-8") from exc
    return np.array(texts, dtype=object).reshape(array.shape)


def _from_runtime(array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype.kind not in "OU":
        return array
    texts = [str(value).encode() for value in array.ravel()]
    return np.array(texts, dtype=object).reshape(array.shape)


def _run_error(error: OnnxError) -> ServingError:
    if _TERMINATED in error.words:
        return ServingError(Code.CANCELLED, "The call was cancelled")
    if any(sign in error.words for sign in _MEMORY):
        return ServingError(Code.RESOURCE_EXHAUSTED, error.words)
    return invalid(error.words) if error.number else from_exception(error)
