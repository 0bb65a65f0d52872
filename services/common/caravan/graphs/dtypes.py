"""What a signature declares, in NumPy's terms; without TensorFlow."""

from typing import Any

import ml_dtypes
import numpy as np

from caravan.graphs.plausible import Input
from caravan.tf_stubs import without_tensorflow

with without_tensorflow():
    from tensorflow.core.framework import types_pb2
    from tensorflow.core.protobuf import meta_graph_pb2

_NUMPY: dict[int, Any] = {
    types_pb2.DT_HALF: np.float16,
    types_pb2.DT_FLOAT: np.float32,
    types_pb2.DT_DOUBLE: np.float64,
    types_pb2.DT_INT8: np.int8,
    types_pb2.DT_INT16: np.int16,
    types_pb2.DT_INT32: np.int32,
    types_pb2.DT_INT64: np.int64,
    types_pb2.DT_UINT8: np.uint8,
    types_pb2.DT_UINT16: np.uint16,
    types_pb2.DT_UINT32: np.uint32,
    types_pb2.DT_UINT64: np.uint64,
    types_pb2.DT_BOOL: np.bool_,
    types_pb2.DT_STRING: object,
    types_pb2.DT_COMPLEX64: np.complex64,
    types_pb2.DT_COMPLEX128: np.complex128,
    types_pb2.DT_QINT8: [("qint8", np.int8)],
    types_pb2.DT_QUINT8: [("quint8", np.uint8)],
    types_pb2.DT_QINT16: [("qint16", np.int16)],
    types_pb2.DT_QUINT16: [("quint16", np.uint16)],
    types_pb2.DT_QINT32: [("qint32", np.int32)],
    types_pb2.DT_BFLOAT16: ml_dtypes.bfloat16,
    types_pb2.DT_FLOAT8_E5M2: ml_dtypes.float8_e5m2,
    types_pb2.DT_FLOAT8_E4M3FN: ml_dtypes.float8_e4m3fn,
    types_pb2.DT_FLOAT8_E4M3FNUZ: ml_dtypes.float8_e4m3fnuz,
    types_pb2.DT_FLOAT8_E4M3B11FNUZ: ml_dtypes.float8_e4m3b11fnuz,
    types_pb2.DT_FLOAT8_E5M2FNUZ: ml_dtypes.float8_e5m2fnuz,
    types_pb2.DT_INT4: ml_dtypes.int4,
    types_pb2.DT_UINT4: ml_dtypes.uint4,
}
_TENSORFLOW = {np.dtype(one): number for number, one in _NUMPY.items()}


def numpy_type(dtype: int) -> np.dtype[Any]:
    """Return NumPy's type of one of TensorFlow's; object for strings.

    Raises:
        TypeError: if there is none, as of resources.

    """
    if dtype not in _NUMPY:
        raise TypeError(f"NumPy has no type for TensorFlow's type {dtype}")
    found: np.dtype[Any] = np.dtype(_NUMPY[dtype])
    return found


def tensorflow_type(dtype: np.dtype[Any]) -> int:
    """Return the number of TensorFlow's type for one of NumPy's.

    Raises:
        TypeError: if there is none, as for dates.

    """
    if dtype not in _TENSORFLOW:
        raise TypeError(f"TensorFlow has no type for NumPy's type {dtype}")
    return _TENSORFLOW[dtype]


def declared_input(alias: str, info: meta_graph_pb2.TensorInfo) -> Input:
    """Return what a signature says of an input.

    Raises:
        TypeError: if it is no dense tensor.

    """
    dims = tuple(dim.size if dim.size >= 0 else None for dim in info.tensor_shape.dim)
    return Input(alias, numpy_type(info.dtype), None if info.tensor_shape.unknown_rank else dims)
