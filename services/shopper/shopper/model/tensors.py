"""TensorProto to Python and back, for the few forms that image classifiers speak."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caravan.errors import Refused
from caravan.names import class_name
from shopper.model.inputs import DTYPES
from shopper.model.stubs import DT_DOUBLE, DT_FLOAT, DT_HALF, DT_STRING, TensorProto

_FLOATS = {DT_FLOAT: "<f4", DT_DOUBLE: "<f8", DT_HALF: "<f2"}
_CODES = {name: code for code, name in DTYPES.items()}


def string_tensor(value: bytes, *, scalar: bool = False) -> Any:
    """Return a TensorProto of dtype string with one value: shape `[1]`, or `[]` if scalar."""
    tensor = TensorProto(dtype=DT_STRING, string_val=[value])
    if not scalar:
        tensor.tensor_shape.dim.add().size = 1
    return tensor


def number_tensor(values: NDArray[Any]) -> Any:
    """Return a TensorProto of the array's dtype (one of `inputs.DTYPES`) and shape."""
    little = values.astype(values.dtype.newbyteorder("<"), copy=False)
    tensor = TensorProto(dtype=_CODES[values.dtype.name], tensor_content=little.tobytes())
    for size in values.shape:
        tensor.tensor_shape.dim.add().size = size
    return tensor


def is_of_floats(tensor: Any) -> bool:
    """Tell whether a tensor's dtype is one of floats."""
    return tensor.dtype in _FLOATS


def is_of_strings(tensor: Any) -> bool:
    """Tell whether a tensor's dtype is string."""
    return bool(tensor.dtype == DT_STRING)


def texts(tensor: Any) -> list[str]:
    """Return the values of a string tensor, row by row, fit to be names of classes.

    Raises:
        Refused: if its dtype is another.

    """
    if tensor.dtype != DT_STRING:
        raise Refused("the model answered a tensor that is not of strings")
    return [class_name(value.decode(errors="replace")) for value in _filled(tensor.string_val, _size(tensor))]


def numbers(tensor: Any) -> list[float]:
    """Return the values of a tensor of floats, row by row.

    Raises:
        Refused: if its dtype is another, or its content does not fill its shape.

    """
    values: list[float] = array(tensor).reshape(-1).tolist()
    return values


def array(tensor: Any) -> NDArray[Any]:
    """Return a tensor of floats as an array of its shape.

    Raises:
        Refused: if its dtype is another, or its content does not fill its shape.

    """
    code = _FLOATS.get(tensor.dtype)
    if code is None:
        raise Refused("the model answered a tensor that is not of floats")
    shape = [int(dim.size) for dim in tensor.tensor_shape.dim]
    if tensor.tensor_content:
        if len(tensor.tensor_content) != math.prod(shape) * np.dtype(code).itemsize:
            raise Refused("the model answered a tensor whose content does not fill its shape")
        return np.frombuffer(tensor.tensor_content, code).reshape(shape)
    if tensor.dtype == DT_HALF:
        # Half floats travel as their bits, in integers.
        bits = np.array(_filled(tensor.half_val, _size(tensor)), np.uint16)
        return bits.view(np.float16).reshape(shape)
    values = tensor.float_val if tensor.dtype == DT_FLOAT else tensor.double_val
    return np.array(_filled(values, _size(tensor)), code).reshape(shape)


def _size(tensor: Any) -> int:
    return math.prod(int(dim.size) for dim in tensor.tensor_shape.dim)


def _filled(values: Sequence[Any], size: int) -> list[Any]:
    # The format lets equal values at the end be sent once.
    if len(values) > size or (size and not values):
        raise Refused("the model answered a tensor whose content does not fill its shape")
    return [*values, *(values[-1] for _ in range(size - len(values)))]
