"""TensorFlow Serving's messages, to answers in its JSON. Pure.

Compact, where the original breaks lines: JSON's readers see no difference, people at a terminal do.
"""

import base64
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from google.protobuf import json_format

from caravan.contracts import to_json
from model_server.decimals import decimals
from model_server.errors import ServingError, invalid
from model_server.rest_request import Form
from model_server.stubs import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    regression_pb2,
    tensor_pb2,
    types_pb2,
)
from model_server.tensors import VALUE_FIELDS, dtype_words

_ESCAPES = {
    **{code: f"\\u{code:04X}" for code in range(0x20)},
    ord('"'): '\\"',
    ord("\\"): "\\\\",
    ord("\b"): "\\b",
    ord("\f"): "\\f",
    ord("\n"): "\\n",
    ord("\r"): "\\r",
    ord("\t"): "\\t",
}


def predictions(outputs: Mapping[str, tensor_pb2.TensorProto], form: Form) -> bytes:
    """The answer of predict. Raises ServingError if the outputs do not fit the row form."""
    if not outputs:
        raise invalid("Cannot convert empty tensor map to JSON")
    text = _rows(outputs) if form is Form.ROW else _columns(outputs)
    return text.encode("utf-8", "surrogateescape")


def _rows(outputs: Mapping[str, tensor_pb2.TensorProto]) -> str:
    batch = -1
    for name in sorted(outputs):
        dims = outputs[name].tensor_shape.dim
        if not dims:
            raise invalid(f"Tensor name: {name} has no shape information ")
        if batch not in {-1, dims[0].size}:
            raise invalid(
                f"Tensor name: {name} has inconsistent batch size: {dims[0].size} expecting: {batch}"
            )
        batch = dims[0].size
    columns = {name: _split(outputs[name], name, batch) for name in sorted(outputs)}
    if len(columns) == 1:
        rows = next(iter(columns.values()))
    else:
        rows = [_object(dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True)]
    return _object({"predictions": _array(rows)})


def _split(proto: tensor_pb2.TensorProto, name: str, batch: int) -> list[str]:
    """The rows of one output, each as JSON."""
    texts = _value_texts(proto, name)
    shape = [dim.size for dim in proto.tensor_shape.dim][1:]
    size = math.prod(shape)
    return [_nest(texts[row * size : (row + 1) * size], shape) for row in range(batch)]


def _columns(outputs: Mapping[str, tensor_pb2.TensorProto]) -> str:
    values = {
        name: _nest(_value_texts(outputs[name], name), [dim.size for dim in outputs[name].tensor_shape.dim])
        for name in sorted(outputs)
    }
    return _object({"outputs": next(iter(values.values())) if len(values) == 1 else _object(values)})


def _nest(texts: Sequence[str], shape: Sequence[int]) -> str:
    """Brackets around values, by their shape."""
    if not shape:
        return texts[0]
    if len(shape) == 1:
        return _array(texts)
    if not shape[0]:
        return "[]"
    step = len(texts) // shape[0]
    return _array([_nest(texts[at * step : (at + 1) * step], shape[1:]) for at in range(shape[0])])


def _array(values: Iterable[str]) -> str:
    return f"[{','.join(values)}]"


def _object(members: Mapping[str, str]) -> str:
    return f"{{{','.join(f'{_string(name.encode())}:{value}' for name, value in members.items())}}}"


def _value_texts(proto: tensor_pb2.TensorProto, name: str) -> list[str]:
    """Every value of a tensor as JSON."""
    dtype = proto.dtype
    if dtype == types_pb2.DT_HALF:
        return decimals(np.array(proto.half_val, np.uint16).view(np.float16).astype(np.float32))
    if dtype not in VALUE_FIELDS:
        raise invalid(f"Failed to write JSON value for tensor type: {dtype_words(dtype)}")
    values = getattr(proto, VALUE_FIELDS[dtype])
    if dtype in {types_pb2.DT_FLOAT, types_pb2.DT_DOUBLE}:
        return decimals(np.fromiter(values, np.float32 if dtype == types_pb2.DT_FLOAT else np.float64))
    if dtype == types_pb2.DT_STRING:
        return [_bytes_object(value) if name.endswith("_bytes") else _string(value) for value in values]
    if dtype == types_pb2.DT_BOOL:
        return ["true" if value else "false" for value in values]
    return [str(value) for value in values]


def _bytes_object(value: bytes) -> str:
    return f'{{"b64":"{base64.b64encode(value).decode()}"}}'


def _string(value: bytes) -> str:
    """A JSON string; bytes that are not UTF-8 pass as they are, as in the original."""
    return f'"{value.decode("utf-8", "surrogateescape").translate(_ESCAPES)}"'


def classification(result: classification_pb2.ClassificationResult) -> bytes:
    """The answer of classify: `[label, score]` pairs for each example."""
    if not result.classifications:
        raise invalid("Cannot convert empty ClassificationResults to JSON")
    rows = []
    for row in result.classifications:
        scores = decimals(np.array([one.score for one in row.classes], np.float32))
        pairs = zip(row.classes, scores, strict=True)
        rows.append(_array(_array([_string(one.label.encode()), score]) for one, score in pairs))
    return _object({"results": _array(rows)}).encode("utf-8", "surrogateescape")


def regression(result: regression_pb2.RegressionResult) -> bytes:
    """The answer of regress: a number for each example."""
    if not result.regressions:
        raise invalid("Cannot convert empty RegressionResults to JSON")
    values = decimals(np.array([one.value for one in result.regressions], np.float32))
    return _object({"results": _array(values)}).encode()


def status(response: get_model_status_pb2.GetModelStatusResponse) -> bytes:
    """The answer of a model's status."""
    return to_json(_message(response))


def metadata(response: get_model_metadata_pb2.GetModelMetadataResponse) -> bytes:
    """The answer of a version's metadata."""
    signatures = get_model_metadata_pb2.SignatureDefMap()
    response.metadata["signature_def"].Unpack(signatures)
    answer = {
        "model_spec": _message(response.model_spec),
        "metadata": {"signature_def": _message(signatures)},
    }
    return to_json(answer)


def error(fault: ServingError) -> bytes:
    """The answer of whatever failed."""
    message = _string(fault.message.encode("utf-8", "surrogateescape"))
    return _object({"error": message}).encode("utf-8", "surrogateescape")


def _message(message: Any) -> Any:
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
