"""Inference requests of the Open Inference Protocol, to TensorFlow Serving's messages. Pure."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from tensorflow.core.framework import tensor_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import model_pb2, predict_pb2

from model_server import v2_tensors
from model_server.errors import ServingError, invalid
from model_server.rest_request import Document, parse
from model_server.servable import DEFAULT_SIGNATURE
from model_server.v2_tensors import BYTES, DTYPES, datatype_of

CONTENT_TYPE = "content_type"
BASE64 = "base64"


@dataclass(frozen=True)
class Input:
    """One input tensor as it was sent, its values not looked at yet."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Any
    in_base64: bool

    def array(self) -> NDArray[Any]:
        """Decode the values. Raises ServingError."""
        if isinstance(self.data, bytes):
            return v2_tensors.from_bytes(self.data, self.datatype, self.shape)
        return v2_tensors.from_json(self.data, self.datatype, self.shape, in_base64=self.in_base64)


@dataclass(frozen=True)
class Inference:
    """A request. `outputs` tells for each output wanted whether as bytes; if empty, all are wanted."""

    id: str | None
    signature: str
    inputs: Mapping[str, Input]
    outputs: Mapping[str, bool]
    binary: bool

    def is_binary(self, output: str) -> bool:
        """Whether an output is to be sent as bytes behind the JSON."""
        return self.outputs.get(output, self.binary)


def read(body: bytes, header_length: str | None) -> Inference:
    """Read a body; `header_length` says how much of it is JSON, if bytes follow. Raises ServingError."""
    size = len(body)
    if header_length is not None:
        if not (header_length.isascii() and header_length.isdigit()) or int(header_length) > len(body):
            raise invalid(f"Inference-Header-Content-Length is no length of a part of the body: {len(body)}")
        size = int(header_length)
    document = parse(body[:size])
    parameters = _parameters(document)
    tail = _Tail(body[size:])
    inputs: dict[str, Input] = {}
    for one in _objects(document, "inputs"):
        name = _string(one, "name", "an input")
        if name in inputs:
            raise invalid(f'input "{name}" comes twice')
        with _naming(f'input "{name}"'):
            inputs[name] = _input(name, one, tail)
    if not inputs:
        raise invalid("inputs are missing")
    tail.check_end()
    outputs: dict[str, bool] = {}
    for one in _objects(document, "outputs"):
        binary = _parameters(one).get("binary_data", parameters.get("binary_data_output", False))
        outputs[_string(one, "name", "an output")] = binary is True
    return Inference(
        _string(document, "id", "the request") if document.get("id") is not None else None,
        _string(parameters, "signature_name", "the request", DEFAULT_SIGNATURE),
        inputs,
        outputs,
        parameters.get("binary_data_output") is True,
    )


def predict_request(
    spec: model_pb2.ModelSpec, inference: Inference, definition: meta_graph_pb2.SignatureDef
) -> predict_pb2.PredictRequest:
    """Check the inputs against the signature, then decode them. Raises ServingError."""
    infos = definition.inputs
    if set(inference.inputs) != set(infos):
        raise invalid(
            f"signature {inference.signature} takes inputs {_names(infos)}, and the request has "
            f"{_names(inference.inputs)}"
        )
    unknown = set(inference.outputs) - set(definition.outputs)
    if unknown:
        raise invalid(
            f"signature {inference.signature} has outputs {_names(definition.outputs)}, and not "
            f"{_names(unknown)}"
        )
    request = predict_pb2.PredictRequest(model_spec=spec, output_filter=inference.outputs)
    request.model_spec.signature_name = inference.signature
    for name, given in inference.inputs.items():
        with _naming(f'input "{name}"'):
            _check(given, infos[name])
            _encode(given, request.inputs[name])
    return request


def _check(given: Input, info: meta_graph_pb2.TensorInfo) -> None:
    expected = datatype_of(info.dtype)
    if given.datatype != expected:
        raise invalid(f"datatype is {given.datatype}, and the model takes {expected}")
    declared = [dim.size for dim in info.tensor_shape.dim]
    fits = len(declared) == len(given.shape) and all(
        size in {-1, own} for size, own in zip(declared, given.shape, strict=True)
    )
    if not fits and not info.tensor_shape.unknown_rank:
        raise invalid(f"shape is {list(given.shape)}, and the model takes {declared}")


def _encode(given: Input, proto: tensor_pb2.TensorProto) -> None:
    array = given.array()
    proto.dtype = DTYPES[given.datatype]
    for size in given.shape:
        proto.tensor_shape.dim.add().size = size
    if given.datatype == BYTES:
        proto.string_val.extend(array.ravel().tolist())
    else:
        proto.tensor_content = array.tobytes()


def _input(name: str, one: Document, tail: "_Tail") -> Input:
    datatype = one.get("datatype")
    if not isinstance(datatype, str) or datatype not in DTYPES:
        raise invalid(f"datatype has to be one of {', '.join(DTYPES)}")
    parameters = _parameters(one)
    shape = v2_tensors.check_shape(one.get("shape"))
    size = parameters.get("binary_data_size")
    data = one.get("data")
    if (size is None) == (data is None):
        raise invalid("either data or the parameter binary_data_size is needed")
    if size is not None:
        data = tail.take(size)
    return Input(name, datatype, shape, data, parameters.get(CONTENT_TYPE) == BASE64)


class _Tail:
    """The bytes behind the JSON, taken by one input after the other."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, size: Any) -> bytes:
        if type(size) is not int or size < 0:
            raise invalid("binary_data_size has to be a number of bytes")
        if size > len(self._data) - self._at:
            raise invalid(f"binary_data_size is {size}, and the body has {len(self._data) - self._at} left")
        self._at += size
        return self._data[self._at - size : self._at]

    def check_end(self) -> None:
        if self._at != len(self._data):
            raise invalid(f"the body has {len(self._data) - self._at} bytes that belong to no input")


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Put the name of what is looked at before what is wrong with it."""
    try:
        yield
    except ServingError as exc:
        raise ServingError(exc.code, f"{name}: {exc.message}") from exc


def _given(document: Document, key: str, default: Any) -> Any:
    """A member, or the default if it is missing or null, as some clients write what they leave out."""
    value = document.get(key)
    return default if value is None else value


def _objects(document: Document, key: str) -> list[Document]:
    value = _given(document, key, [])
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise invalid(f"{key} has to be a list of objects")
    return value


def _parameters(document: Document) -> Document:
    value = _given(document, "parameters", {})
    if not isinstance(value, dict):
        raise invalid("parameters has to be an object")
    return value


def _string(document: Document, key: str, what: str, default: str = "") -> str:
    value = _given(document, key, default)
    if not isinstance(value, str) or not (value or key == "id"):
        raise invalid(f"{key} of {what} has to be a string")
    try:
        value.encode()
    except UnicodeEncodeError as exc:
        raise invalid(f"{key} of {what} is not UTF-8") from exc
    return value


def _names(names: Any) -> str:
    return ", ".join(sorted(names)) or "none"
