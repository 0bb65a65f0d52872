"""What an opinion of the model means to a shopper. Pure."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from caravan.contracts import OTHER, UNCLASSIFIED, VALID
from caravan.names import metadata
from shopper.catalogue import Catalogue, Product
from shopper.ports import Photo, Picture, Prediction, Sender

DIGITS = 6


@dataclass(frozen=True, slots=True)
class Recognition:
    """The answer to one image: the product, `other` where it is not known, and the model's own opinion."""

    product: Product
    known: bool
    prediction: Prediction

    @property
    def bucket(self) -> str:
        """Where the image is kept."""
        return VALID if self.known else UNCLASSIFIED


Answer = Callable[[Recognition, Catalogue], dict[str, Any]]
"""Makes the reply out of a recognition."""
Record = Callable[[Recognition, Sender, bytes, datetime, str], Awaitable[None]]
"""Notes a recognition, with its sender, the image (JPEG), the time it came in (UTC) and its key."""

Compare = Callable[[Picture | Photo, Prediction, str], None]
"""Hears of an answer: the image as the model was shown it, the answer, and where the image is kept."""


def alone(image: Picture | Photo, prediction: Prediction, place: str) -> None:
    """Compare an answer with no other."""


def judge(prediction: Prediction, catalogue: Catalogue, score_accuracy: float) -> Recognition:
    """Decide whether a prediction is known: not `other`, and with a score of at least `score_accuracy`."""
    known = prediction.item != OTHER and prediction.score >= score_accuracy
    product = catalogue.product(prediction.item) if known else catalogue.other
    return Recognition(product, known, prediction)


def answer(recognition: Recognition, catalogue: Catalogue) -> dict[str, Any]:
    """Return the reply to a detection.

    `known` is a string, as the clients of the system before expect. `score` is that of the model's own
    first choice; where that is not good enough, `item` is `other` and the choice is `guess`.
    """
    product, prediction = recognition.product, recognition.prediction
    reply: dict[str, Any] = {
        "known": "true" if recognition.known else "false",
        "pricetag": product.pricetag,
        "products": catalogue.labels,
        "item": product.item,
        "label": product.label,
        "price": str(product.price),
        "score": round(prediction.score, DIGITS),
        "model": prediction.model,
        "version": prediction.version,
    }
    if not recognition.known:
        reply["guess"] = prediction.item
        reply["guess_label"] = catalogue.product(prediction.item).label
    return reply


def with_probabilities(recognition: Recognition, catalogue: Catalogue, top: int) -> dict[str, Any]:
    """Return the reply with `probabilities`: of the `top` likeliest classes, in falling order.

    Fewer where the model has fewer; none where it does not say.
    """
    falling = sorted(recognition.prediction.probabilities.items(), key=lambda pair: pair[1], reverse=True)
    probabilities = {name: round(value, DIGITS) for name, value in falling[:top]}
    return {**answer(recognition, catalogue), "probabilities": probabilities}


def tensor_answer(recognition: Recognition, catalogue: Catalogue) -> dict[str, Any]:
    """Return the reply to a tensor camera.

    To that of a detection it adds the model's own view: `prediction` (its first choice), `probability`, and
    where the model says them, `predictions` (the probabilities of all classes, in the model's order) and
    `index` (of the first choice among them).
    """
    prediction = recognition.prediction
    reply = {**answer(recognition, catalogue), "prediction": prediction.item, "probability": prediction.score}
    if prediction.item in prediction.classes:
        reply["predictions"] = list(prediction.probabilities.values())
        reply["index"] = prediction.classes.index(prediction.item)
    return reply


def facts(recognition: Recognition, sender: Sender) -> dict[str, str]:
    """Return what is kept beside the image, as header-safe text (percent-encoded UTF-8)."""
    prediction = recognition.prediction
    pairs = {
        "label": prediction.item,
        "score": f"{prediction.score:.{DIGITS}f}",
        "model": prediction.model,
        "version": str(prediction.version),
        "origin": sender.origin,
        "camera": sender.camera,
    }
    return metadata(pairs)
