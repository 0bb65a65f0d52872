"""TensorProto to Python and back, for the few forms that image classifiers speak."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any

from caravan.errors import Refused
from caravan.names import class_name
from shopper.model.stubs import DT_DOUBLE, DT_FLOAT, DT_HALF, DT_STRING, TensorProto

_FLOATS = {DT_FLOAT: "f", DT_DOUBLE: "d", DT_HALF: "e"}
"""Format characters of `struct`, by type."""


def string_tensor(value: bytes, *, scalar: bool = False) -> Any:
    """Return a TensorProto of dtype string with one value: shape `[1]`, or `[]` if scalar."""
    tensor = TensorProto(dtype=DT_STRING, string_val=[value])
    if not scalar:
        tensor.tensor_shape.dim.add().size = 1
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
    values = _filled(tensor.string_val, math.prod(shape(tensor)))
    return [class_name(value.decode(errors="replace")) for value in values]


def numbers(tensor: Any) -> list[float]:
    """Return the values of a tensor of floats, row by row.

    Raises:
        Refused: if its dtype is another, or its content does not fill its shape.

    """
    code = _FLOATS.get(tensor.dtype)
    if code is None:
        raise Refused("the model answered a tensor that is not of floats")
    size = math.prod(shape(tensor))
    if tensor.tensor_content:
        if len(tensor.tensor_content) != size * struct.calcsize(code):
            raise Refused("the model answered a tensor whose content does not fill its shape")
        return list(struct.unpack(f"<{size}{code}", tensor.tensor_content))
    if tensor.dtype == DT_HALF:
        # Half floats travel as their bits, in integers.
        bits = _filled(tensor.half_val, size)
        return list(struct.unpack(f"<{size}e", struct.pack(f"<{size}H", *bits)))
    return _filled(tensor.float_val if tensor.dtype == DT_FLOAT else tensor.double_val, size)


def shape(tensor: Any) -> list[int]:
    """Return the sizes of a tensor's dimensions."""
    return [int(dim.size) for dim in tensor.tensor_shape.dim]


def _filled(values: Sequence[Any], size: int) -> list[Any]:
    # The format lets equal values at the end be sent once.
    if len(values) > size or (size and not values):
        raise Refused("the model answered a tensor whose content does not fill its shape")
    return [*values, *(values[-1] for _ in range(size - len(values)))]
