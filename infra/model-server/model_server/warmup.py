"""Runs a version's signatures before it serves, so that its first request is not the slow one.

The requests recorded in `assets.extra/tf_serving_warmup_requests`, when the SavedModel has that file, as
TensorFlow Serving does; every signature on made-up rows, whose failure says nothing. Where rows get other
answers in company than alone, or no two of them are answered, requests to that signature are not joined.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from math import prod
from pathlib import Path
from typing import Any

import structlog
from google.protobuf.message import DecodeError

from caravan.graphs.dtypes import declared_input
from caravan.graphs.plausible import examples, shapes
from model_server import tf_records
from model_server.errors import Code, ServingError, invalid
from model_server.joining import agree
from model_server.predict import serialized_examples
from model_server.servable import DEFAULT_SIGNATURE, Arrays, Servable, Signature, parse
from model_server.stubs import prediction_log_pb2

log = structlog.get_logger()

RECORDS = Path("assets.extra") / "tf_serving_warmup_requests"
MAX_RECORDS = 1000
MAX_MADE_UP_ELEMENTS = 1 << 22
MAX_SHAPES = 8
ROWS = 2


def replay(servable: Servable, path: Path, call_seconds: float) -> None:
    """Run the recorded requests (blocking); a call is ended after `call_seconds`.

    Raises ServingError if one fails, which makes the load fail, as in the original.
    """
    if (path / RECORDS).is_file():
        for record in _records(path / RECORDS):
            _replay(servable, record, call_seconds)


def try_out(servable: Servable, call_seconds: float) -> None:
    """Run made-up requests (blocking), and see which signatures' requests may be joined."""
    for signature in servable.signatures.values():
        _make_up(signature, servable.texts(), call_seconds)


def _records(file: Path) -> list[prediction_log_pb2.PredictionLog]:
    try:
        records = islice(tf_records.read(file), MAX_RECORDS + 1)
        logs = [prediction_log_pb2.PredictionLog.FromString(record) for record in records]
    except tf_records.DamagedError as exc:
        raise ServingError(
            Code.DATA_LOSS, f"{exc}. Please verify your warmup data is in TFRecord format."
        ) from exc
    except DecodeError as exc:
        raise invalid(f"Failed to parse warmup record from {file}: {exc}") from exc
    if len(logs) > MAX_RECORDS:
        raise invalid(f"Number of warmup records exceeds the maximum ({MAX_RECORDS}) at {file}")
    return logs


def _replay(servable: Servable, record: prediction_log_pb2.PredictionLog, seconds: float) -> None:
    """Run one recorded request."""
    kind = record.WhichOneof("log_type")
    if kind == "predict_log":
        request = record.predict_log.request
        _run(servable, request.model_spec.signature_name, dict(request.inputs), seconds)
    elif kind in {"classify_log", "regress_log"}:
        request = getattr(record, kind).request
        examples = {"inputs": serialized_examples(request.input)}
        _run(servable, request.model_spec.signature_name, examples, seconds)
    elif kind == "multi_inference_log":
        request = record.multi_inference_log.request
        examples = {"inputs": serialized_examples(request.input)}
        for task in request.tasks:
            _run(servable, task.model_spec.signature_name, examples, seconds)
    else:
        raise ServingError(Code.UNIMPLEMENTED, f"Unsupported log_type for warmup: {kind}")


def _run(servable: Servable, name: str, feeds: dict[str, Any], seconds: float) -> None:
    name = name or DEFAULT_SIGNATURE
    signature = servable.signatures.get(name)
    if signature is None or set(feeds) != set(signature.inputs):
        raise invalid(f'A warmup request does not fit signature "{name}"')
    with _bounded(signature, seconds):
        signature.call(parse(feeds))


def _make_up(signature: Signature, strings: Sequence[bytes], seconds: float) -> None:
    """Ask for plausible rows until some are answered, then see whether they may be asked for together."""
    rows = _answered(signature, strings, seconds)
    if not signature.batchable:
        return
    with _bounded(signature, seconds):
        signature.batchable = len(rows) == ROWS and agree(signature, rows)
    if not signature.batchable:
        reason = "company changes an answer" if len(rows) == ROWS else "no made-up request is answered"
        log.info("requests are not joined", signature=signature.name, reason=reason)


def _answered(signature: Signature, strings: Sequence[bytes], seconds: float) -> list[Arrays]:
    """Return inputs of one row each, all of one shape, that are answered; none if no try is."""
    try:
        inputs = [declared_input(alias, signature.definition.inputs[alias]) for alias in signature.inputs]
    except TypeError:  # sparse tensors and the like, which nobody can send either
        return []
    for shape in islice(shapes(inputs, channels_first=False), MAX_SHAPES):
        if sum(map(prod, shape.values())) > MAX_MADE_UP_ELEMENTS:
            continue
        rows: list[Arrays] = []
        for arrays in examples(inputs, shape, strings):
            with suppress(ServingError), _bounded(signature, seconds):
                signature.call(arrays)
                rows.append(arrays)
            if len(rows) == ROWS:
                break
        if rows:
            return rows
    return []


@contextmanager
def _bounded(signature: Signature, seconds: float) -> Iterator[None]:
    timer = threading.Timer(seconds, signature.interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
