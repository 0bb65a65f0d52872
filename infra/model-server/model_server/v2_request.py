"""Inference requests of the Open Inference Protocol, out of JSON and to TensorFlow Serving's. Pure."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from numpy.typing import NDArray

from model_server import v2_parameters, v2_tensors
from model_server.errors import ServingError, invalid
from model_server.rest_request import Document, decode_base64, parse
from model_server.stubs import meta_graph_pb2, model_pb2, predict_pb2, tensor_pb2
from model_server.v2_parameters import BASE64, OutputOptions, RequestOptions
from model_server.v2_tensors import BYTES, DTYPES, datatype_of


@dataclass(frozen=True)
class Input:
    """One input tensor as it was sent, its values not looked at yet.

    Attributes:
        name: of the tensor.
        datatype: one of the protocol's.
        shape: as it was sent.
        values: decodes them, row-major; raises ServingError.
        content_type: what the elements of BYTES are, "" where they are what they look like.

    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: Callable[[], NDArray[Any]]
    content_type: str = ""

    def array(self) -> NDArray[Any]:
        """Decode the values, row-major. Raises ServingError."""
        array = self.values()
        if self.datatype == BYTES and self.content_type == BASE64:
            return v2_tensors.strings([decode_base64(value.decode("latin-1")) for value in array.flat])
        return array


@dataclass(frozen=True)
class Inference:
    """A request, whichever door it came by; if `outputs` is empty, all are wanted."""

    id: str
    options: RequestOptions
    inputs: Mapping[str, Input]
    outputs: Mapping[str, OutputOptions]

    def output(self, name: str) -> OutputOptions:
        """What is asked of an output."""
        return self.outputs.get(name, OutputOptions())

    def is_binary(self, name: str) -> bool:
        """Whether an output is to be sent as bytes."""
        asked = self.output(name).binary
        return self.options.binary if asked is None else asked


def read(body: bytes, header_length: str | None) -> Inference:
    """Read a body; `header_length` says how much of it is JSON, if bytes follow. Raises ServingError."""
    size = len(body)
    if header_length is not None:
        if not (header_length.isascii() and header_length.isdigit()) or int(header_length) > len(body):
            raise invalid(f"Inference-Header-Content-Length is no length of a part of the body: {len(body)}")
        size = int(header_length)
    document = parse(body[:size])
    options = v2_parameters.of_request(_parameters(document))
    tail = _Tail(body[size:])
    inputs: dict[str, Input] = {}
    for one in _objects(document, "inputs"):
        name = _string(one, "name", "an input")
        if name in inputs:
            raise invalid(f'input "{name}" comes twice')
        with naming("input", name):
            inputs[name] = _input(name, one, tail, options)
    if not inputs:
        raise invalid("inputs are missing")
    tail.check_end()
    outputs: dict[str, OutputOptions] = {}
    for one in _objects(document, "outputs"):
        name = _string(one, "name", "an output")
        with naming("output", name):
            outputs[name] = v2_parameters.of_output(_parameters(one))
    return Inference(_string(document, "id", "the request"), options, inputs, outputs)


def predict_request(
    spec: model_pb2.ModelSpec, inference: Inference, definition: meta_graph_pb2.SignatureDef
) -> predict_pb2.PredictRequest:
    """Check the inputs against the signature, then decode them. Raises ServingError."""
    infos, signature = definition.inputs, inference.options.signature
    if set(inference.inputs) != set(infos):
        raise invalid(
            f"signature {signature} takes inputs {_names(infos)}, and the request has "
            f"{_names(inference.inputs)}"
        )
    unknown = set(inference.outputs) - set(definition.outputs)
    if unknown:
        raise invalid(
            f"signature {signature} has outputs {_names(definition.outputs)}, and not {_names(unknown)}"
        )
    request = predict_pb2.PredictRequest(model_spec=spec, output_filter=inference.outputs)
    request.model_spec.signature_name = signature
    for name, given in inference.inputs.items():
        with naming("input", name):
            _encode(_fitting(given, infos[name]), request.inputs[name])
    return request


def _fitting(given: Input, info: meta_graph_pb2.TensorInfo) -> Input:
    """Return the input in the shape in which the model takes it. Raises ServingError."""
    expected = datatype_of(info.dtype)
    if given.datatype != expected:
        raise invalid(f"datatype is {given.datatype}, and the model takes {expected}")
    declared = [dim.size for dim in info.tensor_shape.dim]
    if info.tensor_shape.unknown_rank or _fits(given.shape, declared):
        return given
    # MLServer's codecs write N values as a table of one column.
    flat = given.shape[:-1]
    if given.content_type and given.shape[-1:] == (1,) and _fits(flat, declared):
        return replace(given, shape=flat)
    raise invalid(f"shape is {list(given.shape)}, and the model takes {declared}")


def _fits(shape: Sequence[int], declared: Sequence[int]) -> bool:
    return len(shape) == len(declared) and all(
        size in {-1, own} for size, own in zip(declared, shape, strict=True)
    )


def _encode(given: Input, proto: tensor_pb2.TensorProto) -> None:
    array = given.array()
    proto.dtype = DTYPES[given.datatype]
    for size in given.shape:
        proto.tensor_shape.dim.add().size = size
    if given.datatype == BYTES:
        proto.string_val.extend(array.ravel().tolist())
    else:
        proto.tensor_content = array.tobytes()


def _input(name: str, one: Document, tail: "_Tail", options: RequestOptions) -> Input:
    datatype = v2_tensors.check_datatype(one.get("datatype"))
    shape = v2_tensors.check_shape(one.get("shape"))
    content_type, size = v2_parameters.of_input(_parameters(one), options.content_type)
    data = one.get("data")
    if (size is None) == (data is None):
        raise invalid("either data or the parameter binary_data_size is needed")
    values = (
        partial(v2_tensors.from_json, data, datatype, shape)
        if size is None
        else partial(v2_tensors.from_bytes, tail.take(size), datatype, shape)
    )
    return Input(name, datatype, shape, values, content_type)


class _Tail:
    """The bytes behind the JSON, taken by one input after the other."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, size: int) -> bytes:
        if size > len(self._data) - self._at:
            raise invalid(f"binary_data_size is {size}, and the body has {len(self._data) - self._at} left")
        self._at += size
        return self._data[self._at - size : self._at]

    def check_end(self) -> None:
        if self._at != len(self._data):
            raise invalid(f"the body has {len(self._data) - self._at} bytes that belong to no input")


@contextmanager
def naming(what: str, name: str) -> Iterator[None]:
    """Put the name of what is looked at before what is wrong with it."""
    try:
        yield
    except ServingError as exc:
        raise ServingError(exc.code, f'{what} "{name}": {exc.message}') from exc


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
