"""The messages of Kafka `edge-metrics`, read: windows and uncertain images. Pure.

Only the members of the systems before are asked for; what Caravan adds (`id`, `edge`, `classes`) is used
where it is there. A message without an id is named by its content, so that a repeat of it is known too.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import math
import re
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from caravan import image_headers, strict_json
from caravan.errors import BadInput
from caravan.names import MORE, camera_name, class_name, cut
from caravan.strict_json import NotJson
from monitor.hub_counts import folded

UNKNOWN = "unknown"
MOST_CLASSES = 10_000
MOST_CAMERAS = 200
"""Most cameras of one message; the others are counted as one."""
COUNTED_CLASSES = 1000
"""Most classes of a window that are counted, by images; the others are counted as one."""
LARGEST = 2**53
"""Largest count: the largest integer that JavaScript holds exactly."""
LONGEST_FAULT = 300
SHOWN_PREDICTIONS = 100
"""Likeliest classes shown of an uncertain image; the others are summed."""
MEDIA_TYPES = {"JPEG": "image/jpeg", "PNG": "image/png"}

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


@dataclass(frozen=True, slots=True)
class Window:
    """What one camera sent in one window.

    Args:
        id: id of the message, with the camera's name if it has several.
        edge: the camera's edge.
        camera: its name.
        start: start of the window, ISO 8601; empty if the message does not say.
        end: end of the window, ISO 8601.
        seconds: its length; 0 where the message does not say.
        model: whose opinions; empty where the message does not say.
        version: version of the model; 0 if the message does not say.
        threshold: the score from which a detection is certain.
        certain: count by class; classes without any are left out.
        uncertain: the same.
        latency: `prep` and `predict`, as they came: seconds.

    """

    id: str
    edge: str
    camera: str
    start: str
    end: str
    seconds: float
    model: str
    version: int
    threshold: float
    certain: Mapping[str, int]
    uncertain: Mapping[str, int]
    latency: Mapping[str, Any]

    @property
    def images(self) -> int:
        """How many images were counted."""
        return sum(self.certain.values()) + sum(self.uncertain.values())


@dataclass(frozen=True, slots=True)
class Uncertain:
    """An image that a model was unsure of.

    Args:
        id: id of the message; safe in a URL.
        edge: the camera's edge.
        camera: its name.
        item: the class with the highest score.
        score: its probability.
        predictions: probability by class.
        timestamp: when the image came, as the edge wrote it.
        model: whose opinion.
        version: its version.
        prep_seconds: seconds of preparing the input.
        predict_seconds: seconds of the model's call.
        image: JPEG or PNG; None where there is none, or where it is something else.
        media_type: media type of the image; empty if there is none.
        differs: whether it is told because two versions are sure of different products.

    """

    id: str
    edge: str
    camera: str
    item: str
    score: float
    predictions: Mapping[str, float]
    timestamp: str
    model: str
    version: int
    prep_seconds: float
    predict_seconds: float
    image: bytes | None
    media_type: str
    differs: bool = False


def read(value: bytes | None) -> list[Window] | Uncertain:
    """Read a message: the windows of its cameras, or an uncertain image. Large ones are worth a thread.

    Raises:
        BadInput: if it is neither; `reason` is `not-json`, `unknown-message` or `bad-message`.

    """
    outer = _object(value)
    body = _object(outer.get("metrics_json", outer.get("uncertain_metrics_json")))
    name = str(body.get("id", ""))
    if not _ID.fullmatch(name):
        name = hashlib.sha256(value or b"").hexdigest()[:32]
    try:
        return _windows(name, body) if "metrics_json" in outer else _uncertain(name, body)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as exc:
        message = f"the message lacks something, or it is of another type: {exc!r}"
        raise BadInput(cut(message, LONGEST_FAULT), reason="bad-message") from exc


def _object(text: Any) -> dict[str, Any]:
    if text is None:
        raise BadInput("neither metrics_json nor uncertain_metrics_json", reason="unknown-message")
    if not isinstance(text, str | bytes):
        raise BadInput("the message's JSON is not text", reason="not-json")
    try:
        found = strict_json.loads(text)
    except NotJson as exc:
        raise BadInput(f"the message is not JSON: {exc}", reason="not-json") from exc
    if not isinstance(found, dict):
        raise BadInput("the message is not a JSON object", reason="unknown-message")
    return found


def _windows(name: str, body: dict[str, Any]) -> list[Window]:
    config = body.get("config") or {}
    names = _classes(body.get("classes") or config.get("classes"))
    cameras = _cameras(body["camera_metrics"])
    return [
        Window(
            id=name if len(cameras) == 1 else f"{name}.{number}",
            edge=_text(body.get("edge", config.get("edge"))),
            camera=camera,
            start=_short(body.get("window_start", "")),
            end=_short(body["timestamp"]),
            seconds=_positive(config.get("window_size", 0)),
            model=_short(config.get("model", "")),
            version=_count(config.get("model_version", 0)),
            threshold=_positive(config.get("threshold", 0)),
            certain=_counts([each["certain"] for each in counts], names),
            uncertain=_counts([each["uncertain"] for each in counts], names),
            latency={key: _latency(body["latency_metrics"][key]) for key in ("prep", "predict")},
        )
        for number, (camera, counts) in enumerate(cameras.items())
    ]


def _cameras(metrics: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return each camera's counts; cameras beyond the bound count as one, under a name that no camera has."""
    cameras: dict[str, list[dict[str, Any]]] = {}
    for sent, counts in metrics.items():
        camera = MORE if sent == MORE else _text(sent)
        if camera not in cameras and len(cameras) >= MOST_CAMERAS:
            camera = MORE
        cameras.setdefault(camera, []).append(counts)
    return cameras


def _classes(classes: Any) -> list[str] | None:
    """Return the names of classes, each kept once in memory; None where they are not said."""
    if not isinstance(classes, list):
        return None
    _few(classes)
    return [sys.intern(class_name(str(name))) for name in classes]


def _counts(tables: list[Any], names: list[str] | None) -> dict[str, int]:
    """Return the sum of counts by class, bounded."""
    found: Counter[str] = Counter()
    for table in tables:
        _few(table)
        for name, count in zip(names or map(str, range(len(table))), map(_count, table), strict=True):
            if count:
                found[name] += count
    return folded(found, COUNTED_CLASSES)


def _few(classes: list[Any]) -> None:
    if len(classes) > MOST_CLASSES:
        message = f"more than {MOST_CLASSES} classes"
        raise ValueError(message)


def _count(value: Any) -> int:
    if not isinstance(value, int) or not 0 <= value < LARGEST:
        message = f"{value!r} is no count"
        raise ValueError(message)
    return value


def _latency(figures: dict[str, Any]) -> dict[str, Any]:
    return {
        **{name: _positive(figures[name]) for name in ("min", "max", "mean", "std")},
        "percentiles": [_positive(value) for value in figures["percentiles"][:10]],
    }


def _uncertain(name: str, body: dict[str, Any]) -> Uncertain:
    probabilities = [_positive(value) for value in body["predictions"]]
    _few(probabilities)
    names = _classes(body.get("classes")) or map(str, range(len(probabilities)))
    image, media_type = _image(body.get("image"))
    return Uncertain(
        id=name,
        edge=_text(body.get("edge")),
        camera=_text(body["camera"]),
        item=class_name(str(body["result_class"])),
        score=_positive(body["result_probability"]),
        predictions=folded(dict(zip(names, probabilities, strict=True)), SHOWN_PREDICTIONS),
        timestamp=_short(body["timestamp_str"]),
        model=_short(body.get("model", "")),
        version=_count(body.get("model_version", 0)),
        prep_seconds=_positive(body.get("prep_time", 0)),
        predict_seconds=_positive(body.get("predict_time", 0)),
        image=image,
        media_type=media_type,
        differs=isinstance(body.get("differs"), dict),
    )


def _image(text: Any) -> tuple[bytes | None, str]:
    # A browser is to be shown images alone, whatever an edge may send.
    if not isinstance(text, str):
        return None, ""
    try:
        image = base64.b64decode(text, validate=True)
        media_type = MEDIA_TYPES[image_headers.inspect(image).format]
    except (binascii.Error, ValueError, BadInput, KeyError):
        return None, ""
    return image, media_type


def _positive(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number) or number < 0:
        message = f"{value!r} is no positive number"
        raise ValueError(message)
    return number


def _short(value: Any) -> str:
    return camera_name(str(value))


def _text(value: Any) -> str:
    return camera_name(str(value or "")) or UNKNOWN
