"""What every loaded version offers, whatever it was made with: signatures that can be called.

The shape of a signature is TensorFlow's SignatureDef, for models of other makers too, so that they are
asked and described like any other.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from model_server import tensors
from model_server.errors import invalid
from model_server.stubs import meta_graph_pb2, tensor_pb2, types_pb2

DEFAULT_SIGNATURE = "serving_default"

Arrays = Mapping[str, NDArray[Any]]
Feeds = Mapping[str, tensor_pb2.TensorProto | NDArray[Any]]


class Signature(Protocol):
    """A callable signature; two of them are the same only if they are one object."""

    batchable: bool
    """Whether requests may be joined along the first dimension of every input."""

    @property
    def name(self) -> str:
        """Its key in the model."""

    @property
    def definition(self) -> meta_graph_pb2.SignatureDef:
        """Names, types and shapes of its inputs and outputs."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """The inputs' aliases, in the model's own order."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """The outputs' aliases."""

    @property
    def whole(self) -> frozenset[str]:
        """The outputs that are the same whatever the request: each caller gets them undivided."""

    def call(self, arrays: Arrays) -> dict[str, NDArray[Any]]:
        """Run it (blocking); strings are object arrays of bytes. Raises ServingError."""

    def interrupt(self) -> None:
        """End the calls that run, where the runtime does not do so itself; from any thread."""


class Servable(Protocol):
    """One loaded version of a model."""

    @property
    def name(self) -> str:
        """The model's name."""

    @property
    def version(self) -> int:
        """The version's number."""

    @property
    def platform(self) -> str:
        """What it was made with, as the Open Inference Protocol names it."""

    @property
    def trouble(self) -> str | None:
        """Why it cannot be asked at the moment, if so."""

    @property
    def definitions(self) -> Mapping[str, meta_graph_pb2.SignatureDef]:
        """All that the model declares, callable or not."""

    @property
    def signatures(self) -> Mapping[str, Signature]:
        """What can be called."""

    def texts(self) -> Sequence[bytes]:
        """Return what a string may be that the model is given, the most plausible first."""

    def release(self) -> None:
        """Let go of the model (blocking)."""


def check_types(signature: Signature, inputs: Mapping[str, tensor_pb2.TensorProto]) -> None:
    """Refuse an input of another type than declared, in the words of TensorFlow's own check."""
    for index, alias in enumerate(signature.inputs):
        given, expected = inputs[alias].dtype, signature.definition.inputs[alias].dtype
        if given == types_pb2.DT_INVALID:
            raise invalid(f"tensor parsing error: {alias}")
        if given != expected:
            raise invalid(
                f"Expects arg[{index}] to be {tensors.dtype_words(expected)} "
                f"but {tensors.dtype_words(given)} is provided"
            )


def parse(feeds: Feeds) -> dict[str, NDArray[Any]]:
    """Decode what is not decoded yet. Raises ServingError naming the tensor that cannot be."""
    return {
        alias: feed if isinstance(feed, np.ndarray) else tensors.to_array(alias, feed)
        for alias, feed in feeds.items()
    }


def batch_first(info: meta_graph_pb2.TensorInfo) -> bool:
    """Whether the first dimension is open."""
    shape = info.tensor_shape
    return not shape.unknown_rank and len(shape.dim) > 0 and shape.dim[0].size == -1
