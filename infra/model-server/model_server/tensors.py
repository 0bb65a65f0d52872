"""Tensors between protocol buffers and numpy, with the meaning TensorFlow's C++ gives them."""

from math import prod
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.core.framework import tensor_pb2, types_pb2

from model_server.errors import invalid

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
        return np.asarray(tf.make_ndarray(proto))
    except (ValueError, TypeError, KeyError, OverflowError):
        # Python's decoder is the quicker one, and the stricter: TensorFlow's own has the last word.
        return _parse(alias, proto)


def _parse(alias: str, proto: tensor_pb2.TensorProto) -> NDArray[Any]:
    try:
        tensor = tf.raw_ops.ParseTensor(serialized=proto.SerializeToString(), out_type=proto.dtype)
    except (tf.errors.OpError, TypeError, ValueError) as exc:
        raise invalid(f"tensor parsing error: {alias}") from exc
    return from_tensor(tensor)


def from_tensor(tensor: Any) -> NDArray[Any]:
    """An eager tensor's values; a string tensor, a scalar too, becomes an object array of bytes."""
    value = tensor.numpy()
    return value if isinstance(value, np.ndarray) else np.asarray(value, dtype=tensor.dtype.as_numpy_dtype)


def to_proto(array: NDArray[Any], dtype: int) -> tensor_pb2.TensorProto:
    """Encode one tensor with its values in the typed field, as the official server answers."""
    proto = tensor_pb2.TensorProto(dtype=dtype)
    for size in array.shape:
        proto.tensor_shape.dim.add().size = size
    field = _FIELDS.get(dtype)
    if field is not None:
        getattr(proto, field).extend(array.ravel().tolist())
    elif dtype in {types_pb2.DT_HALF, types_pb2.DT_BFLOAT16}:
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
