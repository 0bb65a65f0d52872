"""Runs a version's signatures before it serves, so that its first request is not the slow one.

The requests recorded in `assets.extra/tf_serving_warmup_requests`, when the SavedModel has that file, as
TensorFlow Serving does; for the other signatures one made-up row, whose failure says nothing.
"""

from contextlib import suppress
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import structlog
import tensorflow as tf
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import prediction_log_pb2

from model_server.errors import Code, ServingError, from_exception, invalid
from model_server.predict import serialized_examples
from model_server.servable import DEFAULT_SIGNATURE, Servable, Signature, parse

log = structlog.get_logger()

RECORDS = Path("assets.extra") / "tf_serving_warmup_requests"
MAX_RECORDS = 1000
MAX_MADE_UP_ELEMENTS = 1 << 22
_PICTURE_SIZE = 64


def warm_up(servable: Servable, path: Path) -> None:
    """Run the recorded requests, then what they left out (blocking).

    Raises ServingError if a recorded request fails, which makes the load fail, as in the original.
    """
    warm = set()
    if (path / RECORDS).is_file():
        for record in _records(path / RECORDS):
            warm |= _replay(servable, record)
    for name, signature in servable.signatures.items():
        if name not in warm:
            _make_up(signature)


def _records(file: Path) -> list[prediction_log_pb2.PredictionLog]:
    try:
        records = tf.data.TFRecordDataset(str(file)).take(MAX_RECORDS + 1).as_numpy_iterator()
        logs = [prediction_log_pb2.PredictionLog.FromString(record) for record in records]
    except tf.errors.DataLossError as exc:
        raise ServingError(
            Code.DATA_LOSS, f"{exc.message}. Please verify your warmup data is in TFRecord format."
        ) from exc
    except DecodeError as exc:
        raise invalid(f"Failed to parse warmup record from {file}: {exc}") from exc
    if len(logs) > MAX_RECORDS:
        raise invalid(f"Number of warmup records exceeds the maximum ({MAX_RECORDS}) at {file}")
    return logs


def _replay(servable: Servable, record: prediction_log_pb2.PredictionLog) -> set[str]:
    """Run one recorded request; returns the names of the signatures it ran."""
    kind = record.WhichOneof("log_type")
    if kind == "predict_log":
        request = record.predict_log.request
        return {_run(servable, request.model_spec.signature_name, dict(request.inputs))}
    if kind in {"classify_log", "regress_log"}:
        request = getattr(record, kind).request
        examples = {"inputs": serialized_examples(request.input)}
        return {_run(servable, request.model_spec.signature_name, examples)}
    if kind == "multi_inference_log":
        request = record.multi_inference_log.request
        examples = {"inputs": serialized_examples(request.input)}
        return {_run(servable, task.model_spec.signature_name, examples) for task in request.tasks}
    raise ServingError(Code.UNIMPLEMENTED, f"Unsupported log_type for warmup: {kind}")


def _run(servable: Servable, name: str, feeds: dict[str, Any]) -> str:
    name = name or DEFAULT_SIGNATURE
    signature = servable.signatures.get(name)
    if signature is None or set(feeds) != set(signature.inputs):
        raise invalid(f'A warmup request does not fit signature "{name}"')
    signature.call(parse(feeds))
    return name


def _make_up(signature: Signature) -> None:
    feeds = {alias: _row(signature.definition.inputs[alias]) for alias in signature.inputs}
    if any(feed is None for feed in feeds.values()):
        return
    with suppress(ServingError):
        signature.call({alias: feed for alias, feed in feeds.items() if feed is not None})


def _row(info: meta_graph_pb2.TensorInfo) -> NDArray[Any] | None:
    """Zeros of the declared shape, unknown dimensions being 1; for strings a small picture."""
    shape = [max(dim.size, 1) if dim.size < 0 else dim.size for dim in info.tensor_shape.dim]
    if info.tensor_shape.unknown_rank or prod(shape) > MAX_MADE_UP_ELEMENTS:
        return None
    if info.dtype == types_pb2.DT_STRING:
        picture = tf.io.encode_jpeg(np.zeros((_PICTURE_SIZE, _PICTURE_SIZE, 3), np.uint8)).numpy()
        row = np.empty(shape, dtype=object)
        row.fill(picture)
        return row
    try:
        return np.zeros(shape, dtype=tf.as_dtype(info.dtype).as_numpy_dtype)
    except TypeError as exc:
        log.debug("no made-up request", reason=from_exception(exc).message)
        return None
