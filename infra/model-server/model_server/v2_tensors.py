"""Tensors as the Open Inference Protocol writes them: in JSON, or in bytes behind it. Pure.

BYTES are JSON strings, of text or, where the tensor says so, of base64. In bytes, numbers are little-endian
and row-major, and each of BYTES has its length before it, in four bytes.
"""

import base64
import struct
from collections.abc import Sequence
from itertools import chain
from math import prod
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.core.framework import types_pb2

from model_server.errors import Code, ServingError, invalid
from model_server.rest_request import decode_base64
from model_server.tensors import dtype_words

BYTES = "BYTES"
BOOL = "BOOL"
DTYPES = {
    BOOL: types_pb2.DT_BOOL,
    "UINT8": types_pb2.DT_UINT8,
    "UINT16": types_pb2.DT_UINT16,
    "UINT32": types_pb2.DT_UINT32,
    "UINT64": types_pb2.DT_UINT64,
    "INT8": types_pb2.DT_INT8,
    "INT16": types_pb2.DT_INT16,
    "INT32": types_pb2.DT_INT32,
    "INT64": types_pb2.DT_INT64,
    "FP16": types_pb2.DT_HALF,
    "FP32": types_pb2.DT_FLOAT,
    "FP64": types_pb2.DT_DOUBLE,
    "BF16": types_pb2.DT_BFLOAT16,
    BYTES: types_pb2.DT_STRING,
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_LENGTH = struct.Struct("<I")
# Of a tensor without elements too: its other dimensions are multiplied somewhere below.
MAX_ELEMENTS = 2**31


def datatype_of(dtype: int) -> str:
    """The protocol's name of a type. Raises ServingError(UNIMPLEMENTED) if it has none."""
    if dtype not in _NAMES:
        raise ServingError(
            Code.UNIMPLEMENTED, f"The Open Inference Protocol has no datatype for {dtype_words(dtype)}"
        )
    return _NAMES[dtype]


def numpy_type(datatype: str) -> Any:
    """The numpy type; object for BYTES."""
    return np.dtype(tf.as_dtype(DTYPES[datatype]).as_numpy_dtype)


def check_shape(shape: Any) -> tuple[int, ...]:
    """A tensor's shape. Raises ServingError unless it is a list of sizes whose product is sane."""
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise invalid("shape has to be a list of sizes, none of them negative")
    if prod(max(size, 1) for size in shape) > MAX_ELEMENTS:
        raise invalid(f"shape {shape} has more than {MAX_ELEMENTS} elements")
    return tuple(shape)


def from_json(data: Any, datatype: str, shape: tuple[int, ...], *, in_base64: bool) -> NDArray[Any]:
    """Decode `data`, nested by the shape or flat. Nothing is made before it is known to fit.

    Raises ServingError if there are more or fewer values than the shape has, or of another type.
    """
    if not isinstance(data, list):
        raise invalid("data has to be a list")
    values = _flat(data, shape)
    if len(values) != prod(shape):
        raise invalid(f"data has {len(values)} values, and shape {list(shape)} has {prod(shape)}")
    array = np.empty(len(values), dtype=numpy_type(datatype))
    _check_kind(values, datatype)
    if datatype == BYTES:
        array[:] = [
            decode_base64(value) if in_base64 else value.encode("utf-8", "surrogateescape")
            for value in values
        ]
    else:
        _fill(array, values, datatype)
    return array.reshape(shape)


def from_bytes(data: bytes, datatype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """Decode the bytes behind the JSON. Raises ServingError if they are not what the shape has."""
    count = prod(shape)
    if datatype == BYTES:
        values = _split(data, count)
        array = np.empty(count, dtype=object)
        array[:] = values
        return array.reshape(shape)
    dtype = numpy_type(datatype)
    if len(data) != count * dtype.itemsize:
        raise invalid(
            f"binary_data_size is {len(data)}, and shape {list(shape)} of {datatype} "
            f"has {count * dtype.itemsize} bytes"
        )
    if datatype == BOOL:
        return np.frombuffer(data, np.uint8).astype(bool).reshape(shape)
    array = np.frombuffer(data, dtype)
    return array.reshape(shape)


def to_json(array: NDArray[Any]) -> tuple[list[Any], bool]:
    """The values, flat; and whether they are base64, as BYTES that are not all UTF-8 have to be."""
    flat = array.ravel()
    if array.dtype != object:
        return (flat if array.dtype.kind in "biuf" else flat.astype(np.float32)).tolist(), False
    try:
        return [value.decode() for value in flat], False
    except UnicodeDecodeError:
        return [base64.b64encode(value).decode() for value in flat], True


def to_bytes(array: NDArray[Any]) -> bytes:
    """The values in bytes."""
    if array.dtype != object:
        return np.ascontiguousarray(array).tobytes()
    return b"".join(_LENGTH.pack(len(value)) + value for value in array.ravel())


def _flat(data: list[Any], shape: Sequence[int]) -> list[Any]:
    if not data or not isinstance(data[0], list):
        return data
    level: list[Any] = [data]
    for size in shape:
        if not all(isinstance(part, list) and len(part) == size for part in level):
            raise invalid(f"data is nested otherwise than shape {list(shape)} says")
        level = list(chain.from_iterable(level))
    return level


def _check_kind(values: list[Any], datatype: str) -> None:
    kinds: set[type] = {int, float} if "F" in datatype else {int}
    words = "numbers" if "F" in datatype else "whole numbers"
    if datatype == BOOL:
        kinds, words = {bool}, "true or false"
    elif datatype == BYTES:
        kinds, words = {str}, "strings"
    if not set(map(type, values)) <= kinds:
        raise invalid(f"data of {datatype} has to be {words}")


def _fill(array: NDArray[Any], values: list[Any], datatype: str) -> None:
    exact = True
    try:
        if "F" in datatype:
            wide = np.array(values, np.float64)
            with np.errstate(over="ignore"):
                array[:] = wide
            exact = bool((np.isfinite(wide) == np.isfinite(array)).all())
        else:
            array[:] = values
    except OverflowError:
        exact = False
    if not exact:
        raise invalid(f"data has a number that is no {datatype}")


def _split(data: bytes, count: int) -> list[bytes]:
    """The elements of BYTES; at least four bytes each, so `count` is bounded by what came."""
    values: list[bytes] = []
    at = 0
    while at < len(data) and len(values) < count:
        if len(data) - at < _LENGTH.size:
            break
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        if length > len(data) - at:
            raise invalid("binary data of BYTES ends within an element")
        values.append(data[at : at + length])
        at += length
    if at != len(data) or len(values) != count:
        raise invalid(f"binary data of BYTES is not the {count} elements of its shape")
    return values
