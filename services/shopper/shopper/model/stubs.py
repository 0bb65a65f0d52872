"""TensorFlow Serving's published gRPC stubs, without TensorFlow.

The stubs need only the protobuf modules inside the `tensorflow` package, but importing any of those runs
`tensorflow/__init__.py`: two seconds and half a gigabyte. While they are imported, an empty package with
the installed one's path stands in for it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import ModuleType


@contextmanager
def _empty_tensorflow() -> Iterator[None]:
    spec = find_spec("tensorflow")
    if "tensorflow" in sys.modules or spec is None or spec.submodule_search_locations is None:
        yield
        return
    package = ModuleType("tensorflow")
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules["tensorflow"] = package
    try:
        yield
    finally:
        # Gone again, so that whoever imports TensorFlow in this process gets the real one.
        del sys.modules["tensorflow"]


with _empty_tensorflow():
    from tensorflow.core.framework.tensor_pb2 import TensorProto
    from tensorflow.core.framework.types_pb2 import (
        DT_DOUBLE,
        DT_FLOAT,
        DT_HALF,
        DT_INT32,
        DT_INT64,
        DT_STRING,
        DT_UINT8,
    )
    from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef
    from tensorflow_serving.apis.get_model_metadata_pb2 import (
        GetModelMetadataRequest,
        GetModelMetadataResponse,
        SignatureDefMap,
    )
    from tensorflow_serving.apis.get_model_status_pb2 import (
        GetModelStatusRequest,
        GetModelStatusResponse,
        ModelVersionStatus,
    )
    from tensorflow_serving.apis.model_service_pb2_grpc import (
        ModelServiceServicer,
        ModelServiceStub,
        add_ModelServiceServicer_to_server,
    )
    from tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse
    from tensorflow_serving.apis.prediction_service_pb2_grpc import (
        PredictionServiceServicer,
        PredictionServiceStub,
        add_PredictionServiceServicer_to_server,
    )

__all__ = [
    "DT_DOUBLE",
    "DT_FLOAT",
    "DT_HALF",
    "DT_INT32",
    "DT_INT64",
    "DT_STRING",
    "DT_UINT8",
    "GetModelMetadataRequest",
    "GetModelMetadataResponse",
    "GetModelStatusRequest",
    "GetModelStatusResponse",
    "ModelServiceServicer",
    "ModelServiceStub",
    "ModelVersionStatus",
    "PredictRequest",
    "PredictResponse",
    "PredictionServiceServicer",
    "PredictionServiceStub",
    "SignatureDef",
    "SignatureDefMap",
    "TensorProto",
    "add_ModelServiceServicer_to_server",
    "add_PredictionServiceServicer_to_server",
]
