"""What two versions' answers to one image say of the new one. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from caravan.contracts import OTHER
from shopper.ports import Photo, Picture, Pixels, Prediction

Guess = Literal["worse", "better", "same"]


@dataclass(frozen=True, slots=True)
class Said:
    """What a version said of an image: the product, `other` where it was not sure; and its score."""

    version: int
    item: str
    score: float


@dataclass(frozen=True, slots=True)
class Pair:
    """What both versions said of one image.

    Args:
        image: place of the image: `<bucket>/<key>`.
        candidate: what the new version said.
        beside: what the version before said.
        guess: whether the new version seems to be wrong.
        digest: SHA-256 of the image as it was sent.
        picture: a small JPEG of it, if both are sure and differ; empty where there is none.

    """

    image: str
    candidate: Said
    beside: Said
    guess: Guess
    digest: bytes
    picture: bytes = b""


def are_sure_and_differ(candidate: Said, beside: Said) -> bool:
    """Tell whether both versions named a product, and not the same one: people are shown such images."""
    return candidate.item != beside.item and OTHER not in {candidate.item, beside.item}


def said(prediction: Prediction, score_accuracy: float) -> Said:
    """Return what a sender would be told: a score below `score_accuracy` is no answer."""
    item = prediction.item if prediction.score >= score_accuracy else OTHER
    return Said(prediction.version, item, prediction.score)


def guess(candidate: Said, beside: Said, known_before: Collection[str]) -> Guess:
    """Guess which version is wrong, as long as nobody has looked.

    Of two that are sure of different products it is the new one: the other has stood the test. Equal versions
    hardly ever differ so, and one that errs at a new place mostly does (`tests/bench/bench_canary.py`).
    Of a product that only the new version knows, the other has nothing to say.

    Args:
        candidate: what the new version said.
        beside: what the version before said.
        known_before: the classes of the version before; none where it does not say.

    """
    if candidate.item == beside.item:
        return "same"
    if beside.item == OTHER:
        return "better"
    is_new = bool(known_before) and candidate.item not in known_before
    return "same" if is_new and candidate.item != OTHER else "worse"


def digest_of(image: Picture | Photo) -> bytes:
    """Return the SHA-256 of an image as it was sent."""
    if isinstance(image, Pixels):
        return hashlib.sha256(image.values.tobytes()).digest()
    return hashlib.sha256(image.sent if isinstance(image, Photo) else image).digest()


def is_drawn(digest: bytes, share: float) -> bool:
    """Tell whether an image is among the share that the new version answers; always the same of one image."""
    return int.from_bytes(digest[:8]) < share * 2**64


def version_before(
    newest: int, served: Collection[int], stopped: Collection[int], answering: int
) -> int | None:
    """Return the version that the newest is compared with; None where there is none to trust.

    Args:
        newest: the highest version that answers.
        served: versions that the model server has loaded, or is loading.
        stopped: versions that were found to be worse than another.
        answering: the version that answered up to now; 0 where it is not known.

    """
    trusted = [version for version in served if version < newest and version not in stopped]
    return answering if answering in trusted else max(trusted, default=None)
