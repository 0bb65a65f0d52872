"""Floating-point numbers as TensorFlow Serving prints them in JSON."""

from typing import Any

import numpy as np

_WORDS = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


def decimals(values: "np.ndarray[Any, Any]") -> list[str]:
    """Numbers as the original prints them: six digits if they suffice, `1.0`, `NaN`, `-Infinity`."""
    digits = 17 if values.dtype == np.float64 else 9
    texts = _printed(values, 6)
    with np.errstate(over="ignore"):
        read = np.fromiter(map(float, texts), np.float64, len(texts)).astype(values.dtype)
    inexact = np.flatnonzero(read != values)
    for at, text in zip(inexact.tolist(), _printed(values[inexact], digits), strict=True):
        texts[at] = text
    return [text if "." in text or "e" in text else _WORDS.get(text, f"{text}.0") for text in texts]


def _printed(values: "np.ndarray[Any, Any]", digits: int) -> list[str]:
    """Print each with so many digits, all by one format: a format for each takes longer."""
    return (f"%.{digits}g " * len(values) % tuple(values.tolist())).split()
