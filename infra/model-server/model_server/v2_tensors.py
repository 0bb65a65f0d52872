"""Tensors as the Open Inference Protocol writes them: in JSON, or in bytes behind it. Pure.

BYTES are JSON strings, of text or, where the tensor says so, of base64. In bytes, numbers are little-endian
and row-major, and each of BYTES has its length before it, in four bytes.
"""

import base64
import struct
from collections.abc import Sequence
from contextlib import suppress
from itertools import chain
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caravan.graphs import dtypes
from model_server.errors import Code, ServingError, failed_precondition, invalid
from model_server.stubs import types_pb2
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
WIDE = {"INT8": np.int32, "INT16": np.int32, "UINT8": np.uint32, "UINT16": np.uint32}
"""The types in which messages hold small numbers."""
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
    return dtypes.numpy_type(DTYPES[datatype])


def check_datatype(datatype: Any) -> str:
    """Return the datatype. Raises ServingError unless it is one of the protocol's."""
    if not isinstance(datatype, str) or datatype not in DTYPES:
        raise invalid(f"datatype has to be one of {', '.join(DTYPES)}")
    return datatype


def check_shape(shape: Any) -> tuple[int, ...]:
    """A tensor's shape. Raises ServingError unless it is a list of sizes whose product is sane."""
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise invalid("shape has to be a list of sizes, none of them negative")
    if prod(max(size, 1) for size in shape) > MAX_ELEMENTS:
        raise invalid(f"shape {shape} has more than {MAX_ELEMENTS} elements")
    return tuple(shape)


def strings(values: Sequence[bytes]) -> NDArray[Any]:
    """Return elements of BYTES as a flat array of objects."""
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def from_json(data: Any, datatype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """Decode `data`, nested by the shape or flat, to a flat array. Nothing is made before it is known to fit.

    Raises ServingError if there are more or fewer values than the shape has, or of another type.
    """
    if not isinstance(data, list):
        raise invalid("data has to be a list")
    values = _flat(data, shape)
    _check_count(len(values), shape)
    _check_kind(values, datatype)
    if datatype == BYTES:
        return strings([value.encode("utf-8", "surrogateescape") for value in values])
    array = np.empty(len(values), dtype=numpy_type(datatype))
    _fill(array, values, datatype)
    return array


def from_bytes(data: bytes, datatype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """Decode raw bytes to a flat array. Raises ServingError if they are not what the shape has."""
    count = prod(shape)
    if datatype == BYTES:
        return strings(_split(data, count))
    dtype = numpy_type(datatype)
    if len(data) != count * dtype.itemsize:
        raise invalid(
            f"there are {len(data)} bytes, and shape {list(shape)} of {datatype} has {count * dtype.itemsize}"
        )
    if datatype == BOOL:
        return np.frombuffer(data, np.uint8).astype(bool)
    return np.frombuffer(data, dtype)


def from_values(values: Sequence[Any], datatype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """Take values that have their type already, but for small numbers in wide ones, to a flat array.

    Raises ServingError if there are more or fewer than the shape has, or one is out of its type's range.
    """
    _check_count(len(values), shape)
    if datatype == BYTES:
        return strings(values)
    wide = np.array(values, WIDE.get(datatype, numpy_type(datatype)))
    array = wide.astype(numpy_type(datatype))
    if not np.array_equal(array, wide, equal_nan=array.dtype.kind == "f"):
        raise invalid(f"data has a number that is no {datatype}")
    return array


def _check_count(count: int, shape: Sequence[int]) -> None:
    if count != prod(shape):
        raise invalid(f"data has {count} values, and shape {list(shape)} has {prod(shape)}")


def to_json(array: NDArray[Any], *, in_base64: bool) -> tuple[list[Any], bool]:
    """The values, flat; and whether they are base64, as BYTES that are not all UTF-8 have to be.

    Raises ServingError for NaN and Infinity, which JSON has no words for.
    """
    flat = array.ravel()
    if array.dtype != object:
        numbers = flat if array.dtype.kind in "biuf" else flat.astype(np.float32)
        if not np.isfinite(numbers).all():
            raise failed_precondition("NaN and Infinity are not in JSON: ask for it with binary_data")
        return numbers.tolist(), False
    if not in_base64:
        with suppress(UnicodeDecodeError):
            return [value.decode() for value in flat], False
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
