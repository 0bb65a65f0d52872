"""Tensors between protocol buffers and numpy, with the meaning TensorFlow's C++ gives them."""

from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caravan.graphs.dtypes import numpy_type
from model_server.errors import invalid
from model_server.stubs import tensor_pb2, types_pb2

# A tensor may be declared larger than the values sent (the last one is repeated): that costs the sender
# nothing and us everything, so there is a limit, in bytes.
MAX_FILLED_BYTES = 64 << 20

_FIELDS = {
    types_pb2.DT_FLOAT: "float_val",
    types_pb2.DT_DOUBLE: "double_val",
    types_pb2.DT_INT32: "int_val",
    types_pb2.DT_INT16: "int_val",
    types_pb2.DT_INT8: "int_val",
    types_pb2.DT_UINT8: "int_val",
    types_pb2.DT_UINT16: "int_val",
    types_pb2.DT_INT64: "int64_val",
    types_pb2.DT_UINT32: "uint32_val",
    types_pb2.DT_UINT64: "uint64_val",
    types_pb2.DT_BOOL: "bool_val",
    types_pb2.DT_STRING: "string_val",
}
_HALVES = frozenset({types_pb2.DT_HALF, types_pb2.DT_BFLOAT16})
_COMPLEX = {types_pb2.DT_COMPLEX64: "scomplex_val", types_pb2.DT_COMPLEX128: "dcomplex_val"}
_LAST_SHIFT = 28
"""The last shift of a varint of 32 bits."""


def dtype_words(dtype: int) -> str:
    """A type as TensorFlow's messages write it: `float`, `int32`, `string`."""
    try:
        return str(types_pb2.DataType.Name(dtype)).removeprefix("DT_").lower()
    except ValueError:
        return f"unknown type ({dtype})"


def to_array(alias: str, proto: tensor_pb2.TensorProto) -> NDArray[Any]:
    """Decode one tensor; strings become an object array of bytes.

    Raises ServingError(INVALID_ARGUMENT, "tensor parsing error: <alias>") if it cannot be decoded.
    """
    dims = [dim.size for dim in proto.tensor_shape.dim]
    if proto.tensor_shape.unknown_rank or any(size < 0 for size in dims):
        raise invalid(f"tensor parsing error: {alias}")
    if not proto.tensor_content and prod(dims) * 4 > MAX_FILLED_BYTES + 4 * proto.ByteSize():
        raise invalid(f"tensor parsing error: {alias}")
    try:
        return _values(proto, prod(dims)).reshape(dims)
    except (ValueError, TypeError) as exc:
        raise invalid(f"tensor parsing error: {alias}") from exc


def _values(proto: tensor_pb2.TensorProto, count: int) -> NDArray[Any]:
    """The values, flat, as TensorFlow takes them: too many are cut, the last of too few is repeated."""
    dtype = numpy_type(proto.dtype)
    if not count:
        return np.empty(0, dtype)
    if proto.tensor_content:
        return _content(proto.tensor_content, dtype, count)
    values = _typed(proto, dtype)[:count]
    if not values.size:
        return np.full(count, b"", object) if dtype.hasobject else np.zeros(count, dtype)
    if values.size < count:
        return np.concatenate([values, np.repeat(values[-1:], count - values.size)])
    return values


def _content(content: bytes, dtype: np.dtype[Any], count: int) -> NDArray[Any]:
    """Decode packed values. Raises ValueError if they are not as many."""
    if dtype.hasobject:
        return _strings(content, count)
    values = np.frombuffer(content, np.uint8 if dtype == np.bool_ else dtype)
    if values.size != count:
        raise ValueError("there are not as many values as the shape says")
    return values.astype(np.bool_) if dtype == np.bool_ else values


def _strings(content: bytes, count: int) -> NDArray[Any]:
    """Decode packed strings: all their lengths as varints, then all of them."""
    sizes: list[int] = []
    at = size = shift = 0
    while len(sizes) < count:
        if at == len(content) or shift > _LAST_SHIFT:
            raise ValueError("the strings end within their lengths")
        size |= (content[at] & 0x7F) << shift
        shift += 7
        if content[at] < 0x80:  # noqa: PLR2004 the bit that says that there is more
            sizes.append(size)
            size = shift = 0
        at += 1
    if sum(sizes) != len(content) - at:
        raise ValueError("the strings are not as long as their lengths say")
    values = np.empty(count, object)
    for index, size in enumerate(sizes):
        values[index] = content[at : at + size]
        at += size
    return values


def _typed(proto: tensor_pb2.TensorProto, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return what the field of this type has."""
    if proto.dtype in _HALVES:
        return np.fromiter(proto.half_val, np.int32).astype(np.uint16).view(dtype)
    if proto.dtype in _COMPLEX:
        parts = getattr(proto, _COMPLEX[proto.dtype])
        return np.array(parts[: len(parts) // 2 * 2], dtype.type(0).real.dtype).view(dtype)
    if "float8" in dtype.name:
        return np.frombuffer(proto.float8_val, np.uint8).view(dtype)
    field = _FIELDS.get(proto.dtype, "int_val")
    values = getattr(proto, field)
    if field != "int_val":
        return np.fromiter(values, dtype, len(values))
    # Out of range numbers wrap around, as TensorFlow's do.
    return np.fromiter(values, np.int32, len(values)).astype(dtype)


def to_proto(array: NDArray[Any], dtype: int) -> tensor_pb2.TensorProto:
    """Encode one tensor with its values in the typed field, as the official server answers."""
    proto = tensor_pb2.TensorProto(dtype=dtype)
    for size in array.shape:
        proto.tensor_shape.dim.add().size = size
    field = _FIELDS.get(dtype)
    if field is not None:
        getattr(proto, field).extend(array.ravel().tolist())
    elif dtype in _HALVES:
        proto.half_val.extend(np.ascontiguousarray(array).view(np.uint16).ravel().tolist())
    else:
        proto.tensor_content = np.ascontiguousarray(array).tobytes()
    return proto


VALUE_FIELDS = {
    types_pb2.DT_FLOAT: "float_val",
    types_pb2.DT_DOUBLE: "double_val",
    types_pb2.DT_INT8: "int_val",
    types_pb2.DT_INT16: "int_val",
    types_pb2.DT_INT32: "int_val",
    types_pb2.DT_UINT8: "int_val",
    types_pb2.DT_INT64: "int64_val",
    types_pb2.DT_UINT32: "uint32_val",
    types_pb2.DT_UINT64: "uint64_val",
    types_pb2.DT_BOOL: "bool_val",
    types_pb2.DT_STRING: "string_val",
}
"""Where a TensorProto keeps its values, by dtype: those that JSON can carry."""
