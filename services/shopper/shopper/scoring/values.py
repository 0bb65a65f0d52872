"""Edge scoring as values: what is noted of a detection, the counts of a window, the messages of both. Pure.

The messages have the shape of the systems before: a JSON object whose one member is a JSON string.
"""

from __future__ import annotations

import base64
import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from caravan import strict_json
from caravan.contracts import to_json
from caravan.times import iso
from shopper.ports import Prediction
from shopper.quality.notes import Answered
from shopper.scoring.image import fitting

UNKNOWN = "unknown"
"""The camera of a detection whose sender gave no name."""

PERCENTILES = (50, 75, 90, 99)
DIGITS = 6
AROUND_BYTES = 4096
"""Bytes of a Kafka message left free for its key and format."""

_MARK = "<image>"

Kind = Literal["window", "uncertain"]


@dataclass(frozen=True, slots=True)
class Scored:
    """What is noted of one detection.

    Args:
        camera: name of the camera.
        prediction: the model's opinion.
        certain: whether its score reaches the threshold.
        at: when the image came, UTC.
        image: the JPEG as classified, of an uncertain one.
        answered: the answer that was given, of the model that training images are for.

    """

    camera: str
    prediction: Prediction
    certain: bool
    at: datetime
    image: bytes | None
    answered: Answered | None = None


@dataclass(frozen=True, slots=True)
class WindowDetection:
    """One detection of a window: its class, whether it was certain, and what it took in seconds."""

    item: str
    certain: bool
    prep_seconds: float
    predict_seconds: float


@dataclass(frozen=True, slots=True)
class Window:
    """A tumbling window of one camera and one version of a model.

    Args:
        start: start of the window, seconds since 1970.
        end: end of the window, seconds since 1970, exclusive.
        camera: name of the camera.
        model: name of the model.
        version: its version.
        classes: all that the model knows, in its own order; empty where it does not say.

    """

    start: float
    end: float
    camera: str
    model: str
    version: int
    classes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Message:
    """One message for Kafka `edge-metrics`.

    Args:
        number: its place in the outbox.
        kind: `window` or `uncertain`.
        camera: its key.
        body: the inner JSON, without the image.
        image: a JPEG, where there is one.

    """

    number: int
    kind: Kind
    camera: str
    body: str
    image: bytes | None = None


def window_bounds(now: float, seconds: float) -> tuple[float, float]:
    """Return start and end of the window that a moment falls in, aligned to the clock; all in seconds."""
    start = now // seconds * seconds
    return start, start + seconds


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Return min, max, mean, std (of the population) and the PERCENTILES (linear between ranks) of values."""
    ordered = sorted(values)
    mean = math.fsum(ordered) / len(ordered)
    std = math.sqrt(math.fsum((value - mean) ** 2 for value in ordered) / len(ordered))
    figures = {"min": ordered[0], "max": ordered[-1], "mean": mean, "std": std}
    return {
        **{name: round(value, DIGITS) for name, value in figures.items()},
        "percentiles": [round(_percentile(ordered, percent), DIGITS) for percent in PERCENTILES],
    }


def window_body(
    message_id: str, edge: str, threshold: float, window: Window, counts: Sequence[WindowDetection]
) -> str:
    """Return the inner JSON of a window's message."""
    classes = _with_all(window.classes, (count.item for count in counts))
    seen = Counter((count.item, count.certain) for count in counts)
    return _json(
        {
            "id": message_id,
            "edge": edge,
            "camera_metrics": {
                window.camera: {
                    "certain": [seen[name, True] for name in classes],
                    "uncertain": [seen[name, False] for name in classes],
                }
            },
            "latency_metrics": {
                "prep": summary([count.prep_seconds for count in counts]),
                "predict": summary([count.predict_seconds for count in counts]),
            },
            "timestamp": iso(window.end),
            "window_start": iso(window.start),
            "classes": classes,
            "config": {
                "window_size": window.end - window.start,
                "threshold": threshold,
                "classes": classes,
                "edge": edge,
                "model": window.model,
                "model_version": window.version,
            },
        }
    )


def uncertain_body(message_id: str, edge: str, scored: Scored) -> str:
    """Return the inner JSON of an uncertain image's message, all but the image."""
    prediction = scored.prediction
    classes = _with_all(prediction.classes or tuple(prediction.probabilities), (prediction.item,))
    known = prediction.probabilities or {prediction.item: prediction.score}
    return _json(
        {
            "id": message_id,
            "edge": edge,
            "result_class": prediction.item,
            "result_probability": round(prediction.score, DIGITS),
            "predictions": [_number(known.get(name, 0.0)) for name in classes],
            "classes": classes,
            "camera": scored.camera,
            "timestamp_str": scored.at.isoformat(timespec="milliseconds"),
            "predict_time": round(prediction.predict_seconds, DIGITS),
            "prep_time": round(prediction.prep_seconds, DIGITS),
            "model": prediction.model,
            "model_version": prediction.version,
        }
    )


def encode(message: Message, max_bytes: int) -> bytes:
    """Return the value for Kafka; call it in a thread where there is an image.

    An image that does not fit is scaled down until it does, or left out: `image` is null.
    """
    if message.kind == "window":
        return to_json({"metrics_json": message.body})
    room = max_bytes - AROUND_BYTES - 2 * len(message.body)
    image = None if message.image is None else fitting(message.image, room // 4 * 3)
    mark = None if image is None else _MARK
    body = strict_json.loads_object(message.body)
    value = to_json({"uncertain_metrics_json": _json({"image": mark, **body})})
    # Base64 stands in JSON as it is: a large image need not go through the encoder twice.
    return value if image is None else value.replace(_MARK.encode(), base64.b64encode(image), 1)


def _percentile(ordered: Sequence[float], percent: float) -> float:
    rank = (len(ordered) - 1) * percent / 100
    low = math.floor(rank)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (rank - low)


def _with_all(classes: Iterable[str], items: Iterable[str]) -> list[str]:
    # A model that gives no list, or answers beside it: what was seen completes it, so that all is counted.
    known = list(classes)
    return known + sorted(set(items) - set(known))


def _number(value: float) -> float:
    return round(value, DIGITS) if math.isfinite(value) else 0.0


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
