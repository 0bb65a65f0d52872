"""shopper: windows, summaries and messages of the edge scoring, as values."""

import base64
import io
import json
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from PIL import Image

from shopper.ports import Prediction
from shopper.scoring.values import (
    Message,
    Scored,
    Window,
    WindowDetection,
    encode,
    summary,
    uncertain_body,
    window_body,
    window_bounds,
)
from support.files import as_file

AT = datetime(2026, 11, 21, 12, 0, 3, 250_000, UTC)
CLASSES = ("tea-licorice", "tea-green", "tea-lemon")
START = datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp()
WINDOW = Window(START, START + 10, "till-3", "tea_model_b64", 2, CLASSES)


def photo(side: int) -> bytes:
    return as_file(Image.effect_noise((side, side // 2), 80).convert("RGB"), "JPEG", quality=95)


def inner(value: bytes, member: str) -> dict[str, Any]:
    outer = json.loads(value)
    assert list(outer) == [member]
    body: dict[str, Any] = json.loads(outer[member])
    return body


@pytest.mark.parametrize(
    ("now", "seconds", "bounds"), [(29.99, 10, (20, 30)), (30.0, 10, (30, 40)), (7.25, 0.5, (7.0, 7.5))]
)
def test_a_window_is_aligned_to_the_clock(now: float, seconds: float, bounds: tuple[float, float]) -> None:
    assert window_bounds(now, seconds) == bounds


@pytest.mark.parametrize("count", [1, 2, 7, 100])
def test_a_summary_has_the_figures_of_numpy(count: int) -> None:
    values = np.random.default_rng(count).exponential(0.01, count)
    found = summary(values.tolist())
    assert found["percentiles"] == pytest.approx(np.percentile(values, [50, 75, 90, 99]), abs=1e-6)
    expected = (values.min(), values.max(), values.mean(), values.std())
    assert (found["min"], found["max"], found["mean"], found["std"]) == pytest.approx(expected, abs=1e-6)


def test_a_windows_message_counts_in_the_order_of_its_classes() -> None:
    counts = [
        WindowDetection("tea-green", certain=True, prep_seconds=0.001, predict_seconds=0.02),
        WindowDetection("tea-green", certain=True, prep_seconds=0.003, predict_seconds=0.04),
        WindowDetection("tea-lemon", certain=False, prep_seconds=0.002, predict_seconds=0.03),
    ]
    body = window_body("a-1w", "edge1", 0.8, WINDOW, counts)
    metrics = inner(encode(Message(1, "window", "till-3", body), 10**6), "metrics_json")
    assert metrics["camera_metrics"] == {"till-3": {"certain": [0, 2, 0], "uncertain": [0, 0, 1]}}
    assert metrics["latency_metrics"]["prep"]["mean"] == 0.002
    assert metrics["latency_metrics"]["predict"]["percentiles"][0] == 0.03
    assert metrics["timestamp"] == "2026-11-21T12:00:10.000+00:00"
    assert metrics["config"] == {
        "window_size": 10,
        "threshold": 0.8,
        "classes": list(CLASSES),
        "edge": "edge1",
        "model": "tea_model_b64",
        "model_version": 2,
    }


def test_a_model_without_a_list_of_classes_is_counted_by_what_it_answered() -> None:
    window = Window(0, 10, "till-3", "old", 1, ())
    counts = [
        WindowDetection(name, certain=True, prep_seconds=0, predict_seconds=0) for name in ("b", "a", "b")
    ]
    metrics = json.loads(window_body("a-1w", "edge1", 0.8, window, counts))
    assert metrics["classes"] == ["a", "b"]
    assert metrics["camera_metrics"]["till-3"]["certain"] == [1, 2]


def test_an_uncertain_images_message_has_the_image_as_classified_and_all_probabilities() -> None:
    image = photo(64)
    probabilities = dict(zip(CLASSES, (0.25, 0.05, 0.7), strict=True))
    prediction = Prediction("tea-lemon", 0.7, "tea_model_b64", 2, probabilities, CLASSES, 0.001, 0.02)
    body = uncertain_body("a-1", "edge1", Scored("till-3", prediction, certain=False, at=AT, image=image))
    found = inner(encode(Message(1, "uncertain", "till-3", body, image), 10**6), "uncertain_metrics_json")
    assert base64.b64decode(found.pop("image")) == image
    assert found == {
        "id": "a-1",
        "edge": "edge1",
        "result_class": "tea-lemon",
        "result_probability": 0.7,
        "predictions": [0.25, 0.05, 0.7],
        "classes": list(CLASSES),
        "camera": "till-3",
        "timestamp_str": "2026-11-21T12:00:03.250+00:00",
        "predict_time": 0.02,
        "prep_time": 0.001,
        "model": "tea_model_b64",
        "model_version": 2,
    }


def test_an_image_too_large_for_a_message_is_scaled_down() -> None:
    image = photo(1600)
    value = encode(Message(1, "uncertain", "till-3", '{"id":"a-1"}', image), 100_000)
    assert len(image) > 100_000 > len(value)
    smaller = Image.open(io.BytesIO(base64.b64decode(inner(value, "uncertain_metrics_json")["image"])))
    assert smaller.format == "JPEG"
    assert smaller.width == pytest.approx(2 * smaller.height, abs=2)


@pytest.mark.parametrize("image", [photo(400), b"\xff\xd8 damaged" + bytes(9000)])
def test_an_image_that_cannot_fit_is_left_out(image: bytes) -> None:
    value = encode(Message(1, "uncertain", "till-3", '{"id":"a-1"}', image), 4200)
    assert inner(value, "uncertain_metrics_json") == {"id": "a-1", "image": None}
